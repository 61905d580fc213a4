"""WFDB records: the published beats of MIT-BIH, and records that are damaged."""

import hashlib
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from kdsearch.data import DataSettings, load_beats, load_dataset, mitbih
from kdsearch.errors import DataError

RATE = 360
SECONDS = 20
# R peaks once a second, half a second off the start; the last annotation has no whole window.
PEAKS = np.arange(RATE // 2, SECONDS * RATE - 1, RATE)
SYMBOLS = ["N", "L", "A", "V", "F", "/", "+", "N"] + ["N"] * (len(PEAKS) - 8)


def ecg(peaks: np.ndarray, samples: int) -> np.ndarray:
    t = np.arange(samples)
    bells = np.exp(-0.5 * ((t - peaks[:, None]) / 5.0) ** 2)
    waves = np.exp(-0.5 * ((t - peaks[:, None] - 90) / 20.0) ** 2)
    return (bells + 0.2 * waves).sum(axis=0)


def write_record(folder: Path, name: str, leads: tuple[str, ...] = ("V5", "MLII"), **change):
    rate = change.get("rate", RATE)
    peaks = PEAKS * rate // RATE
    mlii = ecg(peaks * RATE / rate, SECONDS * RATE)
    mlii = np.interp(np.arange(SECONDS * rate) * RATE / rate, np.arange(len(mlii)), mlii)
    signal = np.stack([mlii if lead == "MLII" else 0.5 * mlii for lead in leads], axis=1)
    signal = change.get("damage", lambda s: s)(signal)
    wfdb.wrsamp(
        name,
        fs=rate,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        p_signal=signal,
        fmt=["212"] * len(leads),
        adc_gain=[200.0] * len(leads),
        baseline=[0] * len(leads),
        write_dir=str(folder),
    )
    wfdb.wrann(name, "atr", peaks, change.get("symbols", SYMBOLS), write_dir=str(folder))


def load(folder: Path, tmp_path: Path, leads: int = 1):
    return load_beats(DataSettings(source=str(folder), leads=leads), tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = tmp_path / "records"
    records.mkdir()
    return records


def test_the_44_records_give_the_published_beats(tmp_path: Path):
    source = os.environ.get("KDSEARCH_MITDB")
    if not source:
        assert not os.environ.get("CI"), "CI has to set KDSEARCH_MITDB to the MIT-BIH records"
        pytest.skip("KDSEARCH_MITDB does not name a folder with the MIT-BIH records")
    settings = DataSettings(source=source)
    beats = load_beats(settings, tmp_path)
    assert beats.x.shape == (97_568, 2, 320)
    assert isinstance(beats.x, np.memmap)
    assert Counter(beats.classes.tolist()) == {
        "N": 86_717,
        "S": 3_026,
        "V": 7_008,
        "F": 802,
        "Q": 15,
    }
    assert beats.description == "MIT-BIH, 44 records, 97,568 beats"
    assert beats.record is not None
    assert list(dict.fromkeys(beats.record.tolist())) == list(mitbih.NOT_PACED)

    data = load_dataset(settings, tmp_path)
    assert data.training.train.shape == (62_437, 1, 320)
    assert (~data.training.validation.abnormal).sum() == 6_937
    assert (~data.test.abnormal).sum() == 17_343

    patients = load_dataset(settings.model_copy(update={"split": "inter_patient"}), tmp_path)
    assert Counter(patients.training.validation.classes.tolist()) == {
        "N": 10_201,
        "S": 582,
        "V": 1_525,
        "F": 390,
        "Q": 2,
    }
    assert set(patients.test.record.tolist()) == set(mitbih.DS2)


def test_ds1_and_ds2_are_the_44_records_without_a_pacemaker():
    assert len(mitbih.DS1) == len(mitbih.DS2) == 22
    assert len(mitbih.NOT_PACED) == 44
    assert not set(mitbih.DS1) & set(mitbih.DS2)
    assert len(mitbih.ALL_RECORDS) == 48


def test_windows_classes_and_leads_of_a_record(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    beats = load(folder, tmp_path, leads=2)
    # The '+' is no beat and the last window leaves the record.
    assert "".join(beats.classes) == "NNSVFQ" + "N" * 12
    assert set(beats.record.tolist()) == {"a1"}
    # MLII is first although it is the file's second, and twice as high as V5.
    height = beats.x.max(axis=2)
    assert height[:, 0] == pytest.approx(2 * height[:, 1], rel=0.02)
    # One sample before the window's 140th: positions are counted from 1.
    assert set(beats.x[:, 0].argmax(axis=1).tolist()) == {139}


def test_normal_beats_without_an_r_peak_are_left_out(folder: Path, tmp_path: Path):
    def no_fifth_beat(signal):
        signal[PEAKS[9] - 60 : PEAKS[9] + 200] = 0
        return signal

    write_record(folder, "a1", damage=no_fifth_beat)
    assert len(load(folder, tmp_path).x) == 17
    assert "".join(load(folder, tmp_path).classes) == "NNSVFQ" + "N" * 11


def test_the_paced_records_are_left_out_of_mit_bih_only(folder: Path):
    for name in ("100", "102", "217", "234"):
        (folder / f"{name}.hea").touch()
    assert mitbih.record_names(folder) == ["100", "234"]
    (folder / "another.hea").touch()
    assert mitbih.record_names(folder) == ["100", "102", "217", "234", "another"]


def test_only_paced_records_are_none(folder: Path):
    (folder / "102.hea").touch()
    with pytest.raises(DataError, match=r"no WFDB record .* without a pacemaker"):
        mitbih.record_names(folder)


def test_other_sampling_rates_are_resampled(folder: Path, tmp_path: Path):
    write_record(folder, "slow", rate=180)
    beats = load(folder, tmp_path)
    assert beats.x.shape[1:] == (2, 320)
    assert set(beats.x[:, 0].argmax(axis=1).tolist()) <= {138, 139, 140}


def test_without_mlii_the_first_lead_is_used(folder: Path, tmp_path: Path):
    write_record(folder, "a1", leads=("II", "V1"))
    assert mitbih.read_header(folder / "a1").leads == ("II", "V1")
    assert load(folder, tmp_path).x.shape[1] == 2


def test_one_and_two_leads_share_a_cache_entry(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    one, two = load(folder, tmp_path, leads=1), load(folder, tmp_path, leads=2)
    assert one.fingerprint == two.fingerprint
    assert len(list((tmp_path / "cache" / "beats").glob("*.lock"))) == 1


def test_other_content_is_another_fingerprint(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    before = load(folder, tmp_path).fingerprint
    write_record(folder, "a1", symbols=[*SYMBOLS[:-1], "V"])
    assert load(folder, tmp_path).fingerprint != before


def truncate(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def with_nan(signal: np.ndarray) -> np.ndarray:
    signal[500, 1] = np.nan
    return signal


DAMAGES = {
    "truncated signal": (lambda f: truncate(f / "a1.dat", 0.6), r"a1\.dat: .*truncated"),
    "empty signal": (lambda f: truncate(f / "a1.dat", 0), r"a1\.dat: .*truncated"),
    "no signal": (lambda f: (f / "a1.dat").unlink(), r"a1\.dat: missing, but a1\.hea is there"),
    "no annotations": (lambda f: (f / "a1.atr").unlink(), r"a1\.atr: missing"),
    "empty annotations": (lambda f: truncate(f / "a1.atr", 0), r"a1\.atr: "),
    "rubbish in the header": (
        lambda f: (f / "a1.hea").write_text("what is\nthis?\n"),
        r"a1\.hea: not a readable WFDB header",
    ),
    "binary header": (
        lambda f: (f / "a1.hea").write_bytes(b"\x00\xff\x80" * 50),
        r"a1\.hea: not a readable WFDB header",
    ),
    "empty header": (lambda f: truncate(f / "a1.hea", 0), r"a1\.hea: not a readable WFDB"),
    "no value": (
        lambda f: write_record(f, "a1", damage=with_nan),
        r"a1\.dat: no value \(NaN\) in lead MLII, sample 500",
    ),
    "no beats": (
        lambda f: write_record(f, "a1", symbols=["+"] * len(PEAKS)),
        r"a1\.atr: no beats",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_records_are_named(folder: Path, tmp_path: Path, damage, message: str):
    write_record(folder, "a1")
    damage(folder)
    with pytest.raises(DataError, match=message):
        load(folder, tmp_path)
    assert not list((tmp_path / "cache").glob("beats/*/meta.json"))


def test_more_leads_than_a_record_has(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    write_record(folder, "a2", leads=("MLII",))
    with pytest.raises(DataError, match=r"a2\.hea: data\.leads is 2, but the record has 1"):
        load(folder, tmp_path, leads=2)


def test_a_flat_or_very_short_record_gives_no_beats(folder: Path, tmp_path: Path):
    write_record(folder, "a1", damage=np.zeros_like, symbols=["N"] * len(PEAKS))
    with pytest.raises(DataError, match="not one beat could be cut"):
        load(folder, tmp_path)
    write_record(folder, "a1", damage=lambda signal: signal[:300])
    with pytest.raises(DataError, match="not one beat could be cut"):
        load(folder, tmp_path)


@pytest.fixture
def physionet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for PhysioNet's server: a folder from which files are copied."""
    sums = []
    for name in mitbih.NOT_PACED:
        for end in mitbih.EXTENSIONS:
            content = f"{name}.{end}".encode()
            (folder / f"{name}.{end}").write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()} {name}.{end}")
    (folder / mitbih.SUMS).write_text("\n".join(sums))

    def copy(database: str, target: str, names: list[str]) -> None:
        sys.stdout.write("wfdb prints as it goes")
        assert database == "mitdb"
        for name in names:
            shutil.copy(folder / name, target)

    monkeypatch.setattr(wfdb, "dl_files", copy)
    return folder


def test_download_is_done_once_and_silent(physionet: Path, tmp_path: Path, capsys):
    found = mitbih.fetch(tmp_path / "cache")
    assert len(list(found.iterdir())) == 3 * 44 + 1
    assert capsys.readouterr().out == ""
    shutil.rmtree(physionet)
    assert mitbih.fetch(tmp_path / "cache") == found


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "234.dat").unlink(), "give their folder with --data"),
        (lambda f: (f / "234.dat").write_bytes(b"half"), r"234\.dat came damaged; try again"),
    ],
)
def test_a_broken_download_leaves_nothing(physionet, tmp_path: Path, break_it, message: str):
    break_it(physionet)
    with pytest.raises(DataError, match=message):
        load_beats(DataSettings(source="mitbih"), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mitdb-1.0.0.lock"]
