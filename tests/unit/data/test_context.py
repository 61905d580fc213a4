"""A beat beside its patient's own: which beats make it, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from kdsearch.data import Beats, DataSettings, load_beats, normalise, prepare
from kdsearch.data.beats import Moments
from kdsearch.data.context import ADAPTED_S, references, signal_leads, with_context
from kdsearch.errors import DataError
from kdsearch.evaluation.baselines import (
    IN_CONTEXT,
    NAMES,
    OWN_BEAT,
    THREE_NUMBERS,
    baseline_scores,
)
from kdsearch.metrics.ranking import rank

LENGTH = 32


def settings(**changes: object) -> DataSettings:
    simulated = {"patients": 6, "beats": 900}
    return DataSettings.model_validate(
        {"simulated": simulated, "context": "patient", "split": "inter_patient", **changes}
    )


@pytest.fixture(scope="module")
def beats() -> Beats:
    return load_beats(settings(), Path("unused"))


def recording(kinds: str) -> tuple[np.ndarray, Moments]:
    """Beats, one a second; an ``e`` is ectopic: early by 0.4 s and upside down."""
    wave = np.sin(np.linspace(0, 6, LENGTH)).astype(np.float32) * np.linspace(1, 2, LENGTH)
    x = np.stack([-wave if kind == "e" else wave for kind in kinds])[:, None]
    between = np.array([0.6 if kind == "e" else 1.0 for kind in kinds])
    return x.astype(np.float32), Moments.of_times(between.cumsum())


def test_moments_of_one_recording_and_of_several():
    one = Moments.of_times(np.array([1.0, 1.5, 3.0]))
    np.testing.assert_array_equal(one.before_s, [np.nan, 0.5, 1.5])
    np.testing.assert_array_equal(one.after_s, [0.5, 1.5, np.nan])
    both = Moments.join([one, one[np.array([2])]])
    np.testing.assert_array_equal(both.time_s, [1, 1.5, 3, 3])
    np.testing.assert_array_equal(both.before_s, [np.nan, 0.5, 1.5, 1.5])


@pytest.mark.parametrize("share", ["n" * 9 + "e", "ne", "neee"])
def test_the_own_beat_is_a_late_one_even_where_most_are_early(share: str):
    x, moments = recording(share * 20)
    own = references(x, np.full(len(x), "a"), moments)["a"]
    np.testing.assert_allclose(own.beat, normalise(x[:1])[0], atol=1e-6)
    assert own.interval_s == pytest.approx(1.0)


def test_what_comes_after_five_minutes_changes_nothing():
    x, moments = recording("n" * 400)
    changed = x.copy()
    later = moments.time_s >= moments.time_s[0] + ADAPTED_S
    changed[later] *= -1
    record = np.full(len(x), "a")
    first, second = (references(y, record, moments)["a"] for y in (x, changed))
    np.testing.assert_array_equal(first.beat, second.beat)
    changed[~later] *= -1
    assert (references(changed, record, moments)["a"].beat != first.beat).any()


def test_leads_of_a_context():
    x, moments = recording("nnenn" * 8)
    own = references(x, np.full(len(x), "a"), moments)
    found = with_context(normalise(x), np.full(len(x), "a"), moments, own)
    assert found.dtype == np.float32
    assert found.shape == (40, 3, LENGTH)
    assert signal_leads(3, context=True) == signal_leads(1, context=False) == 1
    np.testing.assert_array_equal(found[:, 0], normalise(x)[:, 0])
    np.testing.assert_allclose(found[0, 1], 0, atol=1e-6)
    np.testing.assert_allclose(
        found[2, 1], (normalise(x)[2, 0] - normalise(x)[0, 0]) / 2, atol=1e-6
    )
    # The R peak is at 14 of 32 samples: before it one interval, from it on the other.
    np.testing.assert_allclose(found[2, 2, :14], np.log(0.6), rtol=1e-5)
    np.testing.assert_allclose(found[1, 2, 14:], np.log(0.6), rtol=1e-5)
    # Nothing is known of the time before the first beat and after the last one.
    assert (found[0, 2, :14] == 0).all()
    assert (found[-1, 2, 14:] == 0).all()


def test_a_lost_beat_is_not_infinitely_late():
    x = recording("nnnn")[0]
    moments = Moments.of_times(np.array([0.0, 1.0, 2.0, 200.0]))
    own = references(x[:3], np.full(3, "a"), moments[np.arange(3)])
    found = with_context(normalise(x), np.full(4, "a"), moments, own)
    assert found[3, 2, 0] == 1
    assert found.min() >= -1


def test_a_data_set_with_context(beats: Beats):
    plain, data = (prepare(beats, settings(context=c, leads=2)) for c in ("none", "patient"))
    assert plain.fingerprint != data.fingerprint
    assert data.training.context
    assert not plain.training.context
    for one, other in (
        (plain.training.train, data.training.train),
        (plain.training.validation.x, data.training.validation.x),
        (plain.test.x, data.test.x),
    ):
        assert other.shape == (len(one), 5, 320)
        np.testing.assert_array_equal(other[:, :2], one)
    # Unlabelled: classes decide which beats train, and nothing of what stands in a lead.
    relabelled = replace(beats, classes=np.roll(beats.classes, 1))
    rows = {x[:2].tobytes(): x for x in data.test.x}
    for x in prepare(relabelled, settings(leads=2)).test.x:
        np.testing.assert_array_equal(rows[x[:2].tobytes()], x)


def test_copies_are_compared_with_the_own_beat_as_the_originals_are(beats: Beats):
    train = prepare(beats, settings(n_aug=1)).training.train
    original, copy = np.split(train, 2)
    own = original[:, 0] - 2 * original[:, 1]
    np.testing.assert_allclose(copy[:, 0] - 2 * copy[:, 1], own, atol=1e-5)
    np.testing.assert_array_equal(copy[:, 2], original[:, 2])


def test_the_difference_is_a_baseline(beats: Beats, tmp_path: Path):
    data = prepare(beats, settings())
    found = baseline_scores(data, tmp_path)
    assert tuple(found) == (*NAMES, *IN_CONTEXT)
    assert rank(found[OWN_BEAT].test, data.test.abnormal).roc_auc() > 0.9
    expected = (data.test.x[:, 1] ** 2).mean(axis=1)
    np.testing.assert_allclose(found[OWN_BEAT].test, expected, rtol=1e-5)

    def numbers(x: np.ndarray) -> np.ndarray:
        return np.stack([np.log((x[:, 1] ** 2).mean(axis=1)), x[:, 2, 0], x[:, 2, -1]], axis=1)

    normal = EmpiricalCovariance().fit(numbers(data.training.train.astype(np.float64)))
    expected = normal.mahalanobis(numbers(data.test.x))
    np.testing.assert_allclose(found[THREE_NUMBERS].test, expected, rtol=2e-2)
    assert rank(found[THREE_NUMBERS].test, data.test.abnormal).roc_auc() > 0.9


def test_beats_without_times_are_refused(beats: Beats):
    for unknown in ({"moments": None}, {"record": None}):
        with pytest.raises(DataError, match=r"data\.context is 'patient', but the patient"):
            prepare(replace(beats, **unknown), settings(split="fold"))


def write_npz(folder: Path, **arrays: np.ndarray) -> DataSettings:
    x = np.random.default_rng(0).normal(size=(40, 1, LENGTH)).astype(np.float32)
    record = np.repeat(["a", "b"], 20)
    y = np.arange(40) % 4 == 0
    np.savez(folder / "beats.npz", x=x, y=y.astype(int), record=record, **arrays)
    return DataSettings(source=str(folder / "beats.npz"), split="stratified", context="patient")


def test_times_in_an_npz(tmp_path: Path):
    time_s = np.tile(np.arange(20) * 0.8, 2)
    chosen = write_npz(tmp_path, time_s=time_s)
    found = load_beats(chosen, tmp_path)
    assert found.moments is not None
    np.testing.assert_allclose(found.moments.before_s[[1, 19, 21]], 0.8)
    assert np.isnan(found.moments.before_s[[0, 20]]).all()
    assert np.isnan(found.moments.after_s[[19, 39]]).all()
    assert prepare(found, chosen).test.x.shape[1] == 3
    with pytest.raises(DataError, match=r"must increase from beat to beat, .* in record b"):
        load_beats(write_npz(tmp_path, time_s=np.minimum(np.arange(40), 25)), tmp_path)
    with pytest.raises(DataError, match=r"time_s: expected a number for each of 40 beats"):
        load_beats(write_npz(tmp_path, time_s=time_s[1:]), tmp_path)


def test_the_five_minutes_that_are_adapted_to_are_not_scored(tmp_path: Path):
    # Half of record a is adapted to; record b ends before.
    time_s = np.concatenate([np.arange(20) * 30.0, np.arange(20) * 10.0])
    chosen = write_npz(tmp_path, time_s=time_s)
    data = prepare(load_beats(chosen, tmp_path), chosen)
    plain = prepare(load_beats(chosen, tmp_path), chosen.changed(context="none"))
    late = (time_s >= 300) | (np.arange(40) >= 20)
    np.testing.assert_array_equal(data.rows.train, plain.rows.train)
    for part in ("validation", "test"):
        rows = getattr(plain.rows, part)
        assert not late[rows].all()
        np.testing.assert_array_equal(getattr(data.rows, part), rows[late[rows]])
    assert "after the first five minutes of each record" in data.description
    assert "five minutes" not in plain.description
