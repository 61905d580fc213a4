"""Beats of WFDB records: which are cut, which are left out, and what is said of it."""

from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_cases import PEAKS, RATE, SECONDS, SYMBOLS, Signal, ecg, write_record

from kdsearch.data import Beats, DataSettings, load_beats, load_dataset
from kdsearch.data.recordings import cut_record
from kdsearch.data.wfdb_files import read_header
from kdsearch.errors import DataError

# The '+' is no beat and the last window leaves the record.
CLASSES = "NNSVFQ" + "N" * 12


def load(folder: Path, tmp_path: Path, **settings) -> Beats:
    return load_beats(
        DataSettings.model_validate({"source": str(folder), **settings}), tmp_path / "cache"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "records"


def long_header(path: Path) -> None:
    """Have a record of 20 s say that it is one of MIT-BIH, of half an hour."""
    file = path.with_name(f"{path.name}.hea")
    file.write_text(file.read_text().replace(" 7200\n", " 650000\n"))
    path.with_name(f"{path.name}.dat").write_bytes(bytes(650_000 * 4))


def test_windows_classes_and_leads_of_a_record(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    beats = load(folder, tmp_path, leads=2)
    assert "".join(beats.classes) == CLASSES
    assert set(beats.record.tolist()) == {"a1"}
    assert beats.patient is None
    # MLII is first although it is the file's second, and twice as high as V5.
    height = beats.x.max(axis=2)
    assert height[:, 0] == pytest.approx(2 * height[:, 1], rel=0.02)
    assert beats.cutting.leads == ("MLII", "V5")
    # One sample before the window's 140th: positions are counted from 1.
    assert set(beats.x[:, 0].argmax(axis=1).tolist()) == {139}


def without_a_beat(signal: Signal) -> Signal:
    signal[PEAKS[9] - 60 : PEAKS[9] + 200] = 0
    return signal


def upside_down(signal: Signal) -> Signal:
    return -signal


def test_outside_mit_bih_every_annotated_beat_is_kept(folder: Path, tmp_path: Path):
    for damage in (without_a_beat, upside_down):
        write_record(folder, "a1", damage=damage)
        beats = load(folder, tmp_path)
        assert "".join(beats.classes) == CLASSES
        assert beats.notes == ()


def test_normal_beats_without_an_r_peak_can_be_left_out(folder: Path, tmp_path: Path):
    write_record(folder, "a1", damage=without_a_beat)
    beats = load(folder, tmp_path, unconfirmed="drop")
    assert "".join(beats.classes) == CLASSES[:-1]
    assert beats.left_out == {"a1": 1}
    assert beats.notes == (
        "warning: 1 beat left out, labelled normal where a detector finds no R peak "
        "(data.unconfirmed): a1 1 (7.1%)",
    )


def test_a_lead_that_is_upside_down_has_r_peaks_that_point_down(folder: Path, tmp_path: Path):
    header = read_header(write_record(folder, "a1", leads=("I", "II"), damage=upside_down))
    assert "".join(cut_record(header, 1, rule="published").classes) == "SVFQ"
    assert "".join(cut_record(header, 1, rule="either sign").classes) == CLASSES
    beats = load(folder, tmp_path, unconfirmed="drop")
    assert "".join(beats.classes) == CLASSES
    assert beats.left_out == {"a1": 0}


def test_published_is_the_rule_of_mit_bih_alone(folder: Path, tmp_path: Path):
    path = write_record(folder, "100")
    write_record(folder, "a1", damage=upside_down)
    long_header(path)  # and without a signal, so that no beat has an R peak
    beats = load(folder, tmp_path)
    assert "".join(beats.classes[beats.record == "100"]) == "SVFQ"
    assert "".join(beats.classes[beats.record == "a1"]) == CLASSES
    assert beats.description == "WFDB records of records, 2 records, 22 beats"
    kept = load(folder, tmp_path, unconfirmed="keep")
    assert "".join(kept.classes[kept.record == "100"]) == "NNSVFQ" + "N" * 13
    assert kept.fingerprint != beats.fingerprint


def test_paced_records_are_left_out_whatever_lies_beside_them(folder: Path, tmp_path: Path):
    long_header(write_record(folder, "102"))
    with pytest.raises(DataError, match=r"MIT-BIH's 102 have a pacemaker"):
        load(folder, tmp_path)
    # A record of another database that has the same number.
    write_record(folder, "104")
    beats = load(folder, tmp_path)
    assert set(beats.record.tolist()) == {"104"}
    assert "left out, as they have a pacemaker: 102" in beats.notes


def test_other_symbols_of_beats_have_their_classes(folder: Path, tmp_path: Path):
    write_record(folder, "a1", symbols=["n", "B", "r", "?", "!", "!", "N", "~", "N"])
    beats = load(folder, tmp_path)
    assert "".join(beats.classes) == "SNVQNN"
    # A wave of flutter is no beat, but the interval after it begins there.
    assert beats.moments.before_s.tolist() == pytest.approx(
        [np.nan, 1, 1, 1, 1, 2], nan_ok=True
    )
    assert "a1: 2 waves of ventricular flutter (!) are not beats" in beats.notes


def test_a_rate_that_is_no_whole_number_moves_nothing(folder: Path, tmp_path: Path):
    seconds = 6000
    peaks_s = np.arange(0.5, seconds - 1.5)
    samples = np.rint(peaks_s * 333.33).astype(np.int64)
    wfdb.wrsamp(
        "a1",
        fs=333.33,
        units=["mV"],
        sig_name=["II"],
        p_signal=_sparse(samples, round(seconds * 333.33))[:, None],
        fmt=["16"],
        write_dir=str(folder),
    )
    wfdb.wrann("a1", "atr", samples, ["N"] * len(samples), write_dir=str(folder))
    peak = load(folder, tmp_path).x[:, 0].argmax(axis=1)
    assert np.abs(peak - 139).max() <= 1


def _sparse(at: np.ndarray, length: int) -> Signal:
    """The same wave at each sample, written where it is and nowhere else."""
    wave = np.exp(-0.5 * (np.arange(-20, 21) / 5.0) ** 2)
    signal = np.zeros(length)
    signal[at[:, None] + np.arange(-20, 21)] = wave
    return signal


@pytest.fixture(autouse=True)
def _made(folder: Path) -> None:
    folder.mkdir()


def test_several_samples_per_frame(folder: Path, tmp_path: Path):
    mlii, pulse = ecg(PEAKS / RATE, SECONDS, 480), np.full(SECONDS * 15, 70.0)
    wfdb.wrsamp(
        "a1",
        fs=15,
        units=["bpm", "mV"],
        sig_name=["HR", "MLII"],
        e_p_signal=[pulse, mlii],
        samps_per_frame=[1, 32],
        fmt=["16", "16"],
        adc_gain=[10.0, 2000.0],
        baseline=[0, 0],
        write_dir=str(folder),
    )
    at = np.rint(PEAKS / RATE * 15).astype(np.int64)
    wfdb.wrann("a1", "atr", at, SYMBOLS, write_dir=str(folder))
    beats = load(folder, tmp_path)
    # The heart rate is no lead, and the ECG has 480 samples a second, not 15.
    assert beats.cutting.leads == ("MLII",)
    assert "".join(beats.classes).startswith(CLASSES)
    # A beat is placed to within half a frame, 33 ms or 12 samples.
    assert np.abs(beats.x[:, 0].argmax(axis=1) - 139).max() <= 12
    assert beats.notes == (
        "warning: a1: its annotations count at 15 Hz and place a beat to within 33 ms",
    )


def test_annotations_of_another_time_resolution(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    expected = load(folder, tmp_path)
    wfdb.wrann("a1", "atr", PEAKS * 2, SYMBOLS, fs=720, write_dir=str(folder))
    beats = load(folder, tmp_path)
    np.testing.assert_array_equal(beats.x, expected.x)
    np.testing.assert_array_equal(beats.moments.time_s, expected.moments.time_s)


@pytest.mark.parametrize("rate", [180, 257, 500])
def test_other_sampling_rates_are_resampled(folder: Path, tmp_path: Path, rate: int):
    write_record(folder, "a1", rate=rate)
    beats = load(folder, tmp_path)
    assert beats.x.shape[1:] == (2, 320)
    assert set(beats.x[:, 0].argmax(axis=1).tolist()) <= {138, 139, 140}


def test_a_header_without_a_length(folder: Path, tmp_path: Path):
    path = write_record(folder, "a1")
    expected = load(folder, tmp_path)
    file = path.with_name("a1.hea")
    file.write_text(file.read_text().replace("a1 2 360 7200", "a1 2 360"))
    np.testing.assert_array_equal(load(folder, tmp_path).x, expected.x)


def test_segments_are_one_record(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    expected = load(folder, tmp_path)
    half = SECONDS * RATE // 2
    for part in (1, 2):
        write_record(
            folder,
            f"a1_{part}",
            symbols=None,
            damage=lambda s, p=part: s[half * (p - 1) :][:half],
        )
    (folder / "a1.dat").unlink()
    (folder / "a1.hea").write_text(f"a1/2 2 360 {2 * half}\na1_1 {half}\na1_2 {half}\n")
    beats = load(folder, tmp_path)
    assert beats.description == "WFDB records of records, 1 record, 18 beats"
    np.testing.assert_allclose(beats.x, expected.x, atol=1e-3)
    (folder / "a1_2.dat").unlink()
    with pytest.raises(DataError, match=r"a1_2\.dat: missing, but a1\.hea is there"):
        load(folder, tmp_path)


def test_without_mlii_the_first_lead_is_used(folder: Path, tmp_path: Path):
    write_record(folder, "a1", leads=("II", "V1"))
    assert load(folder, tmp_path).cutting.leads == ("II", "V1")


def test_leads_that_differ_are_named(folder: Path, tmp_path: Path):
    for name, leads in (("a1", ("V4", "II")), ("a2", ("V5", "II")), ("a3", ("V5", "II"))):
        write_record(folder, name, leads=leads)
    beats = load(folder, tmp_path)
    assert beats.cutting.leads == (None, "II")
    assert beats.notes == (
        "warning: records differ in lead 1, which is chosen by its number: V5 (a2, a3), V4 "
        "(a1); data.leads also takes names, as [II, V5]",
    )


def test_leads_by_name(folder: Path, tmp_path: Path):
    write_record(folder, "a1", leads=("V1", "MLII"))
    write_record(folder, "a2", leads=("MLII", "V1"))
    beats = load(folder, tmp_path, leads=["V1", "MLII"])
    height = beats.x.max(axis=2)
    assert height[:, 1] == pytest.approx(2 * height[:, 0], rel=0.02)
    assert beats.cutting.leads == ("V1", "MLII")
    assert beats.notes == ()
    write_record(folder, "a3", leads=("V1", "V2"))
    with pytest.raises(DataError, match=r"a3\.hea: no lead MLII \(found: V1, V2\)"):
        load(folder, tmp_path, leads=["V1", "MLII"])
    some = load(folder, tmp_path, leads=["V1", "MLII"], on_bad="skip")
    np.testing.assert_array_equal(some.x, beats.x)
    assert "warning: 1 record skipped: " in some.notes[0]
    assert load(folder, tmp_path, leads=["V1"]).x.shape[1] == 1


def test_leads_by_name_are_for_records(tmp_path: Path):
    x = np.random.default_rng(0).standard_normal((20, 64))
    np.savez(tmp_path / "b.npz", x=x, y=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"data\.leads: leads have names in WFDB records alone"):
        load(tmp_path / "b.npz", tmp_path, leads=["II"])


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


def test_another_annotator(folder: Path, tmp_path: Path):
    write_record(folder, "a1", symbols=["V"] * 8)
    write_record(folder, "a1", symbols=["N"] * 9, annotator="qrs")
    assert "".join(load(folder, tmp_path).classes) == "V" * 8
    assert "".join(load(folder, tmp_path, annotator="qrs").classes) == "N" * 9
    with pytest.raises(DataError, match=r"a1\.man: missing, but a1\.hea is there"):
        load(folder, tmp_path, annotator="man")


def test_hidden_files_are_no_records(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    (folder / "._a1.hea").write_bytes(b"\x00\x05\x16\x07")
    assert set(load(folder, tmp_path).record.tolist()) == {"a1"}


def test_records_in_folders(folder: Path, tmp_path: Path):
    write_record(folder / "p1", "a1")
    write_record(folder / "p1", "a2")
    write_record(folder / "p2", "a1")
    beats = load(folder, tmp_path)
    assert list(dict.fromkeys(beats.record.tolist())) == ["p1/a1", "p1/a2", "p2/a1"]
    (note,) = beats.notes
    assert "the folders of 3 records look like those of 2 patients (p1, p2, ...)" in note
    write_record(folder, "b1")
    beats = load(folder, tmp_path)
    assert set(beats.record.tolist()) == {"b1"}
    assert "3 records in folders inside it are not read" in beats.notes


def test_names_in_capitals_are_explained(folder: Path, tmp_path: Path):
    path = write_record(folder, "a1")
    for end in ("hea", "dat", "atr"):
        path.with_name(f"a1.{end}").rename(path.with_name(f"A1.{end.upper()}"))
    with pytest.raises(DataError, match=r"no WFDB record .* but A1\.HEA: rename it"):
        load(folder, tmp_path)


def without_a_value(signal: Signal) -> Signal:
    signal[PEAKS[9] + 3, 1] = np.nan
    return signal


def test_bad_records_are_skipped_where_that_is_allowed(folder: Path, tmp_path: Path):
    for name in ("a1", "a2", "a3", "a4"):
        write_record(folder, name, symbols=None if name == "a2" else SYMBOLS)
    (folder / "a3.dat").write_bytes((folder / "a3.dat").read_bytes()[:999])
    (folder / "a4.hea").write_text("what is\nthis?\n")
    with pytest.raises(DataError, match=r"a4\.hea: not a readable WFDB header"):
        load(folder, tmp_path)
    beats = load(folder, tmp_path, on_bad="skip")
    assert set(beats.record.tolist()) == {"a1"}
    (note,) = beats.notes
    assert note.startswith("warning: 3 records skipped: ")
    for reason in ("a4.hea: not a readable", "a2.atr: missing", "a3.dat: "):
        assert reason in note


def test_beats_over_missing_values_are_skipped_where_that_is_allowed(
    folder: Path, tmp_path: Path
):
    write_record(folder, "a1")
    whole = load(folder, tmp_path)
    write_record(folder, "a1", damage=without_a_value)
    with pytest.raises(DataError, match=r"no value \(NaN\) in lead MLII, sample 3,423"):
        load(folder, tmp_path)
    beats = load(folder, tmp_path, on_bad="skip")
    # The windows and the filter of one beat and of its neighbours reach the gap.
    assert len(beats.x) == 17
    np.testing.assert_allclose(beats.x, np.delete(whole.x, 8, axis=0), atol=1e-3)
    assert beats.notes == (
        "warning: 1 beat left out, over missing values of the signal: a1 1 (5.3%)",
    )


def test_no_normal_or_no_abnormal_beats(folder: Path, tmp_path: Path):
    settings = DataSettings(source=str(folder))
    for symbols, kind in ((["V"] * 10, "normal"), (["N"] * 10, "abnormal")):
        write_record(folder, "a1", symbols=symbols)
        with pytest.raises(DataError, match=rf"no {kind} beats, but both kinds are needed"):
            load_dataset(settings, tmp_path / "cache")


def truncate(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def with_nan(signal: np.ndarray) -> np.ndarray:
    signal[500, 1] = np.nan
    return signal


def header(text: str):
    return lambda folder: (folder / "a1.hea").write_text(text)


LINE = "a1.dat 16 2000(0)/mV 16 0 0 0 0 II\n"
DAMAGES = {
    "truncated signal": (lambda f: truncate(f / "a1.dat", 0.6), r"a1\.dat: .*truncated"),
    "empty signal": (lambda f: truncate(f / "a1.dat", 0), r"a1\.dat: .*truncated"),
    "no signal": (lambda f: (f / "a1.dat").unlink(), r"a1\.dat: missing, but a1\.hea is there"),
    "no annotations": (lambda f: (f / "a1.atr").unlink(), r"a1\.atr: missing"),
    "empty annotations": (lambda f: truncate(f / "a1.atr", 0), r"a1\.atr: .*truncated"),
    "half of the annotations": (lambda f: truncate(f / "a1.atr", 0.5), r"a1\.atr: .*truncated"),
    "a page in place of annotations": (
        lambda f: (f / "a1.atr").write_text("<!DOCTYPE html><html>404 Not Found</html>"),
        r"a1\.atr: not readable WFDB annotations \(ValueError: it is a text\)",
    ),
    "annotations of another record": (
        lambda f: wfdb.wrann("a1", "atr", PEAKS * 9, SYMBOLS, write_dir=str(f)),
        r"a1\.atr: its last beat is at .* but the signal ends at 20\.0 s",
    ),
    "codes that mean nothing": (
        lambda f: (f / "a1.atr").write_bytes(bytes([10, 200, 10, 200, 10, 4, 0, 0])),
        r"a1\.atr: .* unknown codes",
    ),
    "rubbish in the header": (
        header("what is\nthis?\n"),
        r"a1\.hea: not a readable WFDB header",
    ),
    "binary header": (
        lambda f: (f / "a1.hea").write_bytes(b"\x00\xff\x80" * 50),
        r"a1\.hea: not a readable WFDB header",
    ),
    "empty header": (lambda f: truncate(f / "a1.hea", 0), r"a1\.hea: not a readable WFDB"),
    "a rate of nothing": (
        header(f"a1 1 0 7200\n{LINE}"),
        r"a1\.hea: an ECG must be sampled at 50 to 100,000 Hz, but found 0 Hz",
    ),
    "a heart rate for an ECG": (header(f"a1 1 4 7200\n{LINE}"), "but found 4 Hz"),
    "no signals": (header("a1 0 360 7200\n"), r"a1\.hea: describes no signal"),
    "a length beyond all memory": (
        header(f"a1 1 360 100000000000\n{LINE}"),
        r"a1\.dat: truncated: 28,800 bytes, but a1\.hea says 100,000,000,000 samples",
    ),
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
    with pytest.raises(DataError, match=message) as error:
        load(folder, tmp_path)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("beats/*/meta.json"))


def test_annotations_of_a_part_of_the_record_are_a_warning(folder: Path, tmp_path: Path):
    write_record(folder, "a1", symbols=SYMBOLS[:5])
    assert (
        "warning: a1: its annotations end at 4 s, its signal at 20 s"
        in load(folder, tmp_path).notes
    )


def test_a_wrong_rate_is_a_warning(folder: Path, tmp_path: Path):
    path = write_record(folder, "a1")
    file = path.with_name("a1.hea")
    file.write_text(file.read_text().replace("a1 2 360", "a1 2 90"))
    (note,) = load(folder, tmp_path).notes
    assert note == (
        "warning: a1: 100% of the intervals between its beats are shorter than 0.15 s or "
        "longer than 3 s; is its rate 90 Hz?"
    )


def test_more_leads_than_a_record_has(folder: Path, tmp_path: Path):
    write_record(folder, "a1")
    write_record(folder, "a2", leads=("MLII",))
    with pytest.raises(DataError, match=r"a2\.hea: data\.leads is 2, but the record has 1"):
        load(folder, tmp_path, leads=2)


def test_a_very_short_record_gives_no_beats(folder: Path, tmp_path: Path):
    write_record(folder, "a1", symbols=["N"], damage=lambda signal: signal[:300])
    with pytest.raises(DataError, match="not one beat could be cut"):
        load(folder, tmp_path)


def patients_of(folder: Path, text: str) -> str:
    path = folder.parent / "patients.csv"
    path.write_text(text)
    return str(path)


def test_records_of_one_patient(folder: Path, tmp_path: Path):
    names = [f"data_{patient}_{part}" for patient in (8, 21, 84) for part in (1, 2)]
    for name in names:
        write_record(folder, name)
    beats = load(folder, tmp_path)
    (note,) = beats.notes
    assert note.startswith("warning: the names of 6 records look like those of 3 patients")
    rows = "".join(f"{name},{name[:-2]}\n" for name in names)
    table = patients_of(folder, f"record,patient\n{rows}other,x\n")
    known = load(folder, tmp_path, patients=table)
    assert known.notes == ()
    assert known.fingerprint != beats.fingerprint
    assert known.description.endswith("6 records, 108 beats of 3 patients")
    assert known.patient.tolist() == [name[:-2] for name in known.record]

    split = {"source": str(folder), "split": "inter_patient", "patients": table}
    for seed in range(3):
        data = load_dataset(
            DataSettings.model_validate({**split, "seed": seed}), tmp_path / "cache"
        )
        sides = [set(p.patients.tolist()) for p in (data.training.validation, data.test)]
        assert not sides[0] & sides[1]
        assert [len(side) for side in sides] == [1, 1]
        assert not [n for n in data.notes if "another record in training" in n]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected the columns 'record,patient', found ''"),
        ("a1,p1\n", r"line 1: expected the columns 'record,patient', found 'a1,p1'"),
        ("record,patient\na1\n", "row 2: expected a record and a patient"),
        ("record,patient\na1,\n", "row 2: expected a record and a patient"),
        ("record,patient\na1,p1\na1,p2\n", "row 3: record a1 has another patient above"),
        ("record,patient\nb1,p1\n", "no patient for 1 of 1 records, the first: a1"),
        ("record,patient\n\udcff,p1\n", "not a readable .csv .UnicodeDecodeError"),
    ],
)
def test_tables_of_patients_that_are_refused(
    folder: Path, tmp_path: Path, text: str, message: str
):
    write_record(folder, "a1")
    path = tmp_path / "patients.csv"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=rf"patients\.csv: {message}"):
        load(folder, tmp_path, patients=str(path))
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        load(folder, tmp_path, patients=str(tmp_path / "none.csv"))
