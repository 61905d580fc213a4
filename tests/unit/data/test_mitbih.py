"""The MIT-BIH Arrhythmia Database: the published beats, its records, and its download."""

import hashlib
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_cases import write_record

from kdsearch.data import DataSettings, load_beats, load_dataset, mitbih
from kdsearch.data.wfdb_files import read_header
from kdsearch.errors import DataError


def test_the_44_records_give_the_published_beats(mitdb: Path, mitdb_cache: Path):
    settings = DataSettings(source=str(mitdb))
    beats = load_beats(settings, mitdb_cache)
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
    # The recipe that other people's trained teachers were trained on.
    assert beats.fingerprint.startswith("59cada1f3a198eb5")
    assert beats.left_out["207"] == 1_458
    assert sum(beats.left_out.values()) == 3_119
    assert "207: 472 waves of ventricular flutter (!) are not beats" in beats.notes
    assert beats.record is not None
    assert list(dict.fromkeys(beats.record.tolist())) == list(mitbih.NOT_PACED)

    data = load_dataset(settings, mitdb_cache)
    assert data.training.train.shape == (62_437, 1, 320)
    assert (~data.training.validation.abnormal).sum() == 6_937
    assert (~data.test.abnormal).sum() == 17_343

    patients = load_dataset(settings.model_copy(update={"split": "inter_patient"}), mitdb_cache)
    assert Counter(patients.training.validation.classes.tolist()) == {
        "N": 10_201,
        "S": 582,
        "V": 1_525,
        "F": 390,
        "Q": 2,
    }
    assert set(patients.test.record.tolist()) == set(mitbih.DS2)
    assert "664 normal beats of the test records without an R peak" in patients.description
    assert (
        "warning: test records of patients who have another record in training or validation: "
        "202" in patients.notes
    )
    assert len(np.unique(patients.test.record)) == len(np.unique(patients.test.patients)) == 22


def test_ds1_and_ds2_are_the_44_records_without_a_pacemaker():
    assert len(mitbih.DS1) == len(mitbih.DS2) == 22
    assert len(mitbih.NOT_PACED) == 44
    assert not set(mitbih.DS1) & set(mitbih.DS2)
    assert len(mitbih.ALL_RECORDS) == 48


def test_a_record_is_known_by_its_number_and_its_form(tmp_path: Path):
    header = read_header(write_record(tmp_path, "102"))
    assert not mitbih.is_mitbih(header)
    whole = replace(header, frames=650_000)
    assert mitbih.is_mitbih(whole)
    assert not mitbih.is_mitbih(replace(whole, rate_hz=250.0))
    assert not mitbih.is_mitbih(replace(whole, path=tmp_path / "r102"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of PhysioNet's."""
    records = tmp_path / "records"
    records.mkdir()
    return records


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
        (
            lambda f: (f / "234.dat").write_bytes(b"half"),
            r"234\.dat: wrong checksum after the download; try again",
        ),
    ],
)
def test_a_broken_download_leaves_nothing(physionet, tmp_path: Path, break_it, message: str):
    break_it(physionet)
    with pytest.raises(DataError, match=message):
        load_beats(DataSettings(source="mitbih"), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mitdb-1.0.0.lock"]
