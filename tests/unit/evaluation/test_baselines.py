"""The baselines: sane scores, fitted once per data set, and the known figures of MIT-BIH."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from kdsearch.data import Dataset, DataSettings, load_beats, load_dataset, prepare
from kdsearch.errors import DataError
from kdsearch.evaluation import baselines
from kdsearch.evaluation.baselines import (
    ISOLATION_FOREST,
    NAMES,
    NEAREST_NEIGHBOUR,
    PCA_10,
    PCA_30,
    baseline_scores,
)
from kdsearch.metrics.ranking import rank


def simulated(leads: int = 1) -> Dataset:
    settings = DataSettings.model_validate(
        {"simulated": {"patients": 6, "beats": 1500}, "leads": leads}
    )
    return load_dataset(settings, Path("unused"))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulated()


def trained_on(data: Dataset, beats: int) -> Dataset:
    """The same data set with few training beats."""
    training = replace(data.training, train=data.training.train[:beats])
    return replace(data, training=training, fingerprint=f"{beats} beats")


def areas(data: Dataset, cache: Path) -> dict[str, float]:
    """Test AUC of each baseline."""
    found = baseline_scores(data, cache)
    return {name: rank(found[name].test, data.test.abnormal).roc_auc() for name in NAMES}


@pytest.mark.parametrize("leads", [1, 2])
def test_every_baseline_tells_abnormal_beats_apart(leads: int, cache: Path):
    data = simulated(leads)
    found = baseline_scores(data, cache)
    assert tuple(found) == NAMES
    for scores in found.values():
        assert scores.validation.dtype == scores.test.dtype == np.float32
        assert rank(scores.validation, data.training.validation.abnormal).roc_auc() > 0.75
        assert rank(scores.test, data.test.abnormal).roc_auc() > 0.75
        assert scores.seconds > 0


def test_reconstruction_error_by_singular_vectors(data: Dataset, cache: Path):
    train, x = data.training.train[:, 0].astype(np.float64), data.test.x[:, 0]
    mean = train.mean(axis=0)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2]
    for name, components in ((PCA_10, 10), (PCA_30, 30)):
        kept = (x - mean) @ axes[:components].T @ axes[:components]
        expected = ((x - mean - kept) ** 2).mean(axis=1)
        found = baseline_scores(data, cache)[name].test
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_a_beat_that_was_trained_on_is_its_own_neighbour(data: Dataset, cache: Path):
    remembered = replace(data.test, x=data.training.train[: len(data.test.x)])
    found = baseline_scores(replace(data, test=remembered), cache)
    assert found[NEAREST_NEIGHBOUR].test.max() < 1e-2
    assert np.median(found[NEAREST_NEIGHBOUR].validation) > 0.1


def test_the_same_data_give_the_same_scores(data: Dataset, tmp_path: Path):
    once, again = (baseline_scores(data, tmp_path / place) for place in ("a", "b"))
    for name in NAMES:
        np.testing.assert_array_equal(once[name].test, again[name].test)
        np.testing.assert_array_equal(once[name].validation, again[name].validation)


def test_fitted_once_per_data_set(
    data: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = baseline_scores(data, cache)

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(baselines, "_fit_and_score", refuse)
    monkeypatch.setattr(NearestNeighbors, "fit", refuse)
    found = baseline_scores(data, cache)
    for name in NAMES:
        np.testing.assert_array_equal(found[name].test, first[name].test)
        assert found[name].seconds == first[name].seconds
    with pytest.raises(AssertionError, match="fitted again"):
        baseline_scores(replace(data, fingerprint="another"), cache)


def test_a_damaged_cache_is_made_anew(data: Dataset, cache: Path):
    first = baseline_scores(data, cache)[PCA_10].test.copy()
    (torn,) = cache.glob("baselines/*/test.npy")
    torn.write_bytes(torn.read_bytes()[:100])
    np.testing.assert_array_equal(baseline_scores(data, cache)[PCA_10].test, first)


@pytest.mark.parametrize("beats", [2, 5, 25, 41])
def test_fewer_beats_than_components(data: Dataset, cache: Path, beats: int):
    found = baseline_scores(trained_on(data, beats), cache)
    for scores in found.values():
        assert np.isfinite(scores.test).all()
    assert areas(trained_on(data, beats), cache)[PCA_30] > 0.7


def test_one_beat_is_too_few(data: Dataset, cache: Path):
    with pytest.raises(DataError, match="need at least 2 training beats, but there are 1"):
        baseline_scores(trained_on(data, 1), cache)


def test_known_figures_of_mit_bih(mitdb: Path, mitdb_cache: Path, tmp_path: Path):
    settings = DataSettings(source=str(mitdb))
    beats = load_beats(settings, mitdb_cache)
    by_fold = areas(prepare(beats, settings), tmp_path)
    # Measured with other code, on another random fold of the same proportions.
    known = {PCA_10: 0.896, PCA_30: 0.881, NEAREST_NEIGHBOUR: 0.963}
    assert {name: by_fold[name] for name in known} == pytest.approx(known, abs=0.015)
    assert by_fold[ISOLATION_FOREST] == pytest.approx(0.900, abs=0.02)

    # Of new patients the nearest neighbour knows nothing: the best becomes the worst.
    new = areas(
        prepare(beats, settings.model_copy(update={"split": "inter_patient"})), tmp_path
    )
    assert new == pytest.approx(
        {PCA_10: 0.799, PCA_30: 0.851, NEAREST_NEIGHBOUR: 0.750, ISOLATION_FOREST: 0.800},
        abs=0.02,
    )
    assert max(by_fold, key=by_fold.__getitem__) == min(new, key=new.__getitem__)

    # Three numbers a beat, without any network, where its patient's own beats are known.
    chosen = {"split": "inter_patient", "context": "patient"}
    data = prepare(beats, settings.model_copy(update=chosen))
    train, test = data.training.train, data.test
    score = baselines.three_numbers(train, *train.shape[1:])
    ranking = rank(score(test.x), test.abnormal)
    assert ranking.roc_auc() == pytest.approx(0.949, abs=0.002)
    assert ranking.average_precision() == pytest.approx(0.779, abs=0.005)
