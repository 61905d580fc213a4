"""From a source to a data set: normalised, padded, limited, and known by its fingerprint."""

import subprocess
import sys
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
