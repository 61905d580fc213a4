"""From a source to a data set: normalised, padded, limited, and known by its fingerprint."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from kdsearch.data import (
    Beats,
    DataSettings,
    load_beats,
    load_dataset,
    normalise,
    pad,
    prepare,
)
from kdsearch.data.mitbih import DS1, DS2
from kdsearch.data.sources import resolved_paths, resolved_source
from kdsearch.errors import DataError

SMALL = {"simulated": {"patients": 6, "beats": 600}}


def settings(**changes) -> DataSettings:
    return DataSettings.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def beats() -> Beats:
    return load_beats(settings(), Path("unused"))


def test_normalise_scales_each_beat_and_lead_and_makes_flat_ones_zero():
    x = np.array([[[1, 2, 3], [7, 7, 7]], [[0, -4, -8], [1e-3, 0, 0]]], dtype=np.float32)
    expected = [[[-1, 0, 1], [0, 0, 0]], [[1, 0, -1], [1, -1, -1]]]
    scaled = normalise(x)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_pad_repeats_the_edges():
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(pad(x, multiple=4), [[[0, 1, 2, 2], [3, 4, 5, 5]]])
    np.testing.assert_array_equal(pad(x, 5), [[[0, 0, 1, 2, 2], [3, 3, 4, 5, 5]]])
    assert pad(x, 3) is x
    assert pad(np.zeros((1, 1, 321), dtype=np.float32)).shape == (1, 1, 352)


def test_a_data_set_is_normalised_and_ready(beats: Beats):
    data = prepare(beats, settings(leads=2, n_aug=2))
    for x in (data.training.train, data.training.validation.x, data.test.x):
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        assert x.shape[1:] == (2, 320)
        assert x.min() == -1
        assert x.max() == 1
    assert not data.training.validation.abnormal.all()
    assert data.simulated
    originals = len(data.training.train) // 3
    plain = prepare(beats, settings(leads=2)).training.train
    np.testing.assert_array_equal(data.training.train[:originals], plain)


def test_labels_stay_with_their_beats(beats: Beats):
    data = prepare(beats, settings(validation_limit=40))
    rows = {normalise(x[:1]).tobytes(): i for i, x in enumerate(beats.x)}
    for part in (data.training.validation, data.test):
        found = [rows[x.tobytes()] for x in part.x]
        np.testing.assert_array_equal(beats.classes[found], part.classes)
        np.testing.assert_array_equal(beats.record[found], part.record)
        np.testing.assert_array_equal(part.classes != "N", part.abnormal)
    train = [rows[x.tobytes()] for x in data.training.train]
    assert set(beats.classes[train].tolist()) == {"N"}


def test_limits_and_description(beats: Beats):
    data = prepare(beats, settings(train_limit=100, validation_limit=30, n_aug=1))
    assert len(data.training.train) == 200
    assert len(data.training.validation.x) == 30
    assert data.description == (
        "simulated ECG, 6 patients, 600 beats; fold 0 of 5: 100 to train and 100 warped, "
        "25 + 5 abnormal to validate, 100 + 88 abnormal to test"
    )


def test_the_fingerprint_changes_with_what_is_learned_from_and_with_nothing_else(beats: Beats):
    same = [{}, {"split": "fold"}, {"split": "auto", "fold": 0}]
    assert len({prepare(beats, settings(**change)).fingerprint for change in same}) == 1
    other = [
        {},
        {"fold": 1},
        {"leads": 2},
        {"n_aug": 1},
        {"train_limit": 50},
        {"validation_limit": 50},
        {"seed": 1},
        {"split": "stratified"},
        {"split": "inter_patient"},
    ]
    assert len({prepare(beats, settings(**change)).fingerprint for change in other}) == len(
        other
    )
    # The fold says nothing where there are none.
    folds = [settings(split="stratified", fold=fold) for fold in (0, 1)]
    assert len({prepare(beats, each).fingerprint for each in folds}) == 1


def test_short_beats_are_padded_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.standard_normal((60, 100)), y=np.arange(60) % 3 == 0)
    # A relative path starts at the current directory.
    monkeypatch.chdir(tmp_path)
    data = load_dataset(DataSettings(source="mine.npz"), tmp_path / "cache")
    assert data.training.train.shape == (24, 1, 128)
    assert data.test.x.shape[2] == data.training.validation.x.shape[2] == 128
    assert data.description.startswith("mine.npz, 60 beats; stratified split: 24 to train, ")
    assert not data.simulated


def test_test_beats_of_patients_who_are_in_training_are_known(tmp_path: Path):
    rng = np.random.default_rng(0)
    record = np.repeat([*DS1, *DS2], 10)
    classes = np.where(np.arange(len(record)) % 5 == 0, "V", "N")
    beats = Beats(
        rng.standard_normal((len(record), 1, 64)).astype(np.float32),
        classes,
        record,
        "f" * 64,
        "made up",
        patient=np.where(record == "202", "201", record),
    )
    data = prepare(beats, settings(split="inter_patient"))
    # In DS1 and DS2 of the literature, 201 is on one side and 202, the same man, on the other.
    np.testing.assert_array_equal(data.test.shared, data.test.record == "202")
    assert (
        "warning: test records of patients who have another record in training or validation: "
        "202"
    ) in data.notes
    np.savez(tmp_path / "mit.npz", x=beats.x, y=classes, record=record)
    read = load_dataset(
        settings(source=str(tmp_path / "mit.npz"), split="inter_patient"), tmp_path
    )
    np.testing.assert_array_equal(read.test.shared, data.test.shared)
    apart = prepare(replace(beats, patient=None), settings(split="inter_patient"))
    assert apart.test.shared is None
    assert prepare(beats, settings(split="fold")).test.shared is None


@pytest.mark.parametrize(("limit", "said"), [(2, True), (38, True), (None, False)])
def test_few_beats_to_judge_by_are_a_warning(beats: Beats, limit: int | None, said: bool):
    notes = prepare(beats, settings(validation_limit=limit, split="stratified")).notes
    few = [note for note in notes if "to validate: an AUC of fewer than 20 says little" in note]
    assert bool(few) == said
    if limit == 2:
        assert few[1].startswith("warning: 1 abnormal beat to validate")


def test_more_leads_than_a_source_has():
    with pytest.raises(DataError, match=r"simulated ECG.*: data\.leads is 3, but .* have 2"):
        load_dataset(settings(leads=3), Path("unused"))


@pytest.mark.parametrize(
    "source", ["nowhere", "nowhere/at_all.npz", "Simulated", "~/nowhere-at-all"]
)
def test_a_source_that_is_not_there(tmp_path: Path, source: str):
    message = (
        f"^data.source: no such file or folder( in {Path.cwd()})?: '{source}' "
        r"\(expected 'simulated', 'mitbih'"
    )
    with pytest.raises(DataError, match=message):
        load_beats(DataSettings(source=source), tmp_path)


def test_paths_hold_wherever_they_are_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    chosen = settings(source="beats.npz", patients="who.csv")
    resolved = resolved_paths(chosen)
    assert resolved.source == str(tmp_path / "beats.npz")
    assert resolved.patients == str(tmp_path / "who.csv")
    assert resolved_paths(resolved) == resolved
    assert resolved_source("~/mitdb") == str(Path.home() / "mitdb")
    assert [resolved_source(word) for word in ("simulated", "mitbih")] == [
        "simulated",
        "mitbih",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a1.hea", "'.*a1.hea' is a part of a WFDB record: give the folder of records"),
        ("b.csv", "'.*b.csv' is a table: give its folder if a row is a sample"),
        ("N_samples.npy", "'.*N_samples.npy' is one array: give the folder"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, name: str, message: str):
    (tmp_path / name).write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=f"data.source: {message}"):
        load_beats(settings(source=str(tmp_path / name)), tmp_path)


def test_a_folder_without_beats(tmp_path: Path):
    with pytest.raises(DataError, match=r"neither WFDB records .* nor N_samples\.npy in the"):
        load_beats(DataSettings(source=str(tmp_path)), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "source"),
        ({"leads": 0}, "leads"),
        ({"split": "random"}, "split"),
        ({"fold": 5}, "fold"),
        ({"n_aug": -1}, "n_aug"),
        ({"train_limit": 0}, "train_limit"),
        ({"validation_limit": 1}, "validation_limit"),
        ({"seed": -1}, "seed"),
        ({"sorce": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_are_checked(change, message: str):
    with pytest.raises(ValidationError, match=message):
        settings(**change)


def test_importing_is_quick_for_workers():
    slow = "{'wfdb', 'biosppy', 'pandas', 'matplotlib', 'joblib', 'scipy'}"
    code = f"import sys, kdsearch.data; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
