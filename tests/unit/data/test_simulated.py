"""Simulated beats: the same everywhere, plausible, and neither trivial nor hopeless."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from kdsearch.data import DataSettings, SimulatedSettings, prepare
from kdsearch.data.simulated import simulate

SMALL = SimulatedSettings(patients=8, beats=800)


@pytest.fixture(scope="module")
def default():
    return simulate(SimulatedSettings(), seed=0)


def test_the_default_beats_are_what_they_say(default):
    assert default.x.shape == (7000, 2, 320)
    assert default.x.dtype == np.float32
    assert default.x.flags.c_contiguous
    assert default.simulated
    assert default.description == "simulated ECG, 24 patients, 7,000 beats"
    assert Counter(default.classes.tolist()) == {
        "N": 5880,
        "V": 560,
        "S": 336,
        "F": 168,
        "Q": 56,
    }
    assert sorted(set(default.record.tolist())) == [f"sim{i:02d}" for i in range(24)]


def test_the_same_seed_gives_the_same_bits_on_every_machine():
    beats = simulate(SMALL, seed=7)
    steps = np.rint(beats.x * 200).astype("<i2")
    assert hashlib.sha256(steps.tobytes()).hexdigest()[:16] == "c32bcbc9aa321bd2"
    assert "".join(beats.classes[:40]) == "NNNNNNNFNNNNNNNNNNNNNVNNNNNNQNNNNNNNNNNN"


def test_samples_are_whole_steps_of_the_converter(default):
    steps = default.x * 200
    assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_seed_and_settings_change_beats_and_fingerprint():
    variants = [(SMALL, 0), (SMALL, 1), (SMALL.model_copy(update={"noise_mv": 0.05}), 0)]
    beats = [simulate(settings, seed) for settings, seed in variants]
    assert len({b.fingerprint for b in beats}) == 3
    assert len({b.x.tobytes() for b in beats}) == 3


def test_normal_beats_have_their_r_peak_at_sample_140(default):
    normal = default.x[default.classes == "N", 0]
    # Among the samples of the complex: further out stand the neighbours' peaks.
    assert np.median(normal[:, 120:161].argmax(axis=1)) == 20


def width_of_complex(beats) -> np.ndarray:
    middle = np.abs(beats[:, 0, 100:220])
    return (middle > 0.3 * middle.max(axis=1, keepdims=True)).sum(axis=1)


def test_ventricular_and_paced_beats_are_wide(default):
    width = {
        name: width_of_complex(default.x[default.classes == name]).mean() for name in "NVQ"
    }
    assert min(width["V"], width["Q"]) > 1.15 * width["N"]


@pytest.mark.parametrize("split", ["fold", "inter_patient"])
def test_a_simple_detector_does_neither_fail_nor_win(default, split):
    data = prepare(default, DataSettings(split=split))
    train, test = data.training.train[:, 0], data.test.x[:, 0]
    pca = PCA(10, random_state=0).fit(train)
    error = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).mean(axis=1)
    assert 0.80 < roc_auc_score(data.test.abnormal, error) < 0.94


@pytest.mark.parametrize("settings", [{"patients": 2, "beats": 100}, {"abnormal": 0.9}])
def test_extreme_settings_work(settings):
    beats = simulate(SimulatedSettings(**{"beats": 300, **settings}), seed=0)
    assert np.isfinite(beats.x).all()
    assert set("NSVFQ") == set(beats.classes.tolist())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patients": 100, "beats": 500}, "at least ten beats per patient, but beats=500"),
        ({"patients": 1}, "greater than or equal to 2"),
        ({"abnormal": 0.0}, "greater than or equal to 0.001"),
        ({"abnormal": 0.9999999}, "less than or equal to 0.9"),
        ({"noise_mv": float("nan")}, "noise_mv"),
        ({"noise": 1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense(settings, message: str):
    with pytest.raises(ValidationError, match=message):
        SimulatedSettings(**settings)
