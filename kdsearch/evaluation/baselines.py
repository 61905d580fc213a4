"""Simple baselines that take seconds; a distilled detector should be better than these.

All are fitted on the teacher's normal training beats, one row of samples per beat. They treat a
row as a plain vector, without the order of samples or leads. On a split with the same patients
in training and test, the nearest neighbour is better than every published figure of BeatGAN; on
new patients it is the worst of all. A verdict without them would be misleading.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import Dataset, FloatArray
from kdsearch.data.context import signal_leads
from kdsearch.errors import DataError
from kdsearch.files.cache import Arrays, cached_arrays

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

PCA_10 = "PCA 10, reconstruction error"
PCA_30 = "PCA 30, reconstruction error"
NEAREST_NEIGHBOUR = "nearest neighbour on PCA 40"
ISOLATION_FOREST = "isolation forest on PCA 40"
NAMES = (PCA_10, PCA_30, NEAREST_NEIGHBOUR, ISOLATION_FOREST)
# Where beats come with their context alone.
OWN_BEAT = "difference from the patient's own beat"
THREE_NUMBERS = "difference and both intervals, Mahalanobis distance"
IN_CONTEXT = (OWN_BEAT, THREE_NUMBERS)

# Part of the cache's key: raise it whenever the same data set would get other scores.
VERSION = 2
COMPONENTS = 40
SMALLEST_DIFFERENCE = 1e-6
SEED = 0

# Beats, shape (n, features), to one score each, shape (n,).
Score = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class BaselineScores:
    """Scores of one baseline.

    Attributes:
        validation: Anomaly scores of the validation beats, shape (n,), float32.
        test: Anomaly scores of the test beats, shape (n,), float32.
        seconds: Wall time to fit and to score both, when it was done; the principal
            components, which all share, are counted in each.
    """

    validation: FloatArray
    test: FloatArray
    seconds: float


def baseline_scores(dataset: Dataset, cache: Path) -> dict[str, BaselineScores]:
    """Scores of all baselines, by their name for people; fitted once per data set.

    With fewer beats than components, the number of components is reduced.

    Args:
        dataset: Fitted on its training beats; validation and test beats are scored.
        cache: Folder for what is calculated only once, see `kdsearch.data.cache_dir`.

    Returns:
        One entry for each of ``NAMES``, in their order, and of ``IN_CONTEXT`` where there is a
        context; higher scores are more abnormal.

    Raises:
        DataError: There are fewer than two training beats, or the cache cannot be written.
    """
    entry = cache / "baselines" / f"{dataset.fingerprint}-{VERSION}"
    arrays = cached_arrays(entry, lambda: _fit_and_score(dataset))
    names = (*NAMES, *IN_CONTEXT) if dataset.training.context else NAMES
    return {
        name: BaselineScores(
            validation=arrays["validation"][row],
            test=arrays["test"][row],
            seconds=float(arrays["seconds"][row]),
        )
        for row, name in enumerate(names)
    }


def _fit_and_score(dataset: Dataset) -> Arrays:
    """Scores of shape (baselines, n) and seconds of shape (baselines,)."""
    train = _rows(dataset.training.train)
    if len(train) < 2:
        raise DataError(
            f"{dataset.description}: baselines need at least 2 training beats, "
            f"but there are {len(train)}"
        )
    parts = [_rows(dataset.training.validation.x), _rows(dataset.test.x)]
    start = time.perf_counter()
    from sklearn.decomposition import PCA  # noqa: PLC0415

    # One component less than would describe every training beat without any error.
    count = min(COMPONENTS, len(train) - 1, train.shape[1] - 1)
    # From the covariance: exact, the same every time, and fast where beats are many.
    pca = PCA(n_components=count, svd_solver="covariance_eigh").fit(train)
    shared_s = time.perf_counter() - start
    results = [_timed(partial(fit, pca, train), parts) for fit in FITS.values()]
    if dataset.training.context:
        shape = dataset.test.x.shape[1:]
        fits = (partial(_difference, *shape), partial(three_numbers, train, *shape))
        results += [_timed(fit, parts) for fit in fits]
    return {
        "validation": np.stack([scores[0] for scores, _ in results]),
        "test": np.stack([scores[1] for scores, _ in results]),
        "seconds": np.array([shared_s + seconds for _, seconds in results]),
    }


def _timed(fit: Callable[[], Score], parts: list[FloatArray]) -> tuple[list[FloatArray], float]:
    start = time.perf_counter()
    score = fit()
    scores = [score(x).astype(np.float32) for x in parts]
    return scores, time.perf_counter() - start


def _rows(x: FloatArray) -> FloatArray:
    """Flatten beats: (n, leads, length) to (n, features)."""
    return x.reshape(len(x), -1)


def _reconstruction(components: int) -> Callable[[PCA, FloatArray], Score]:
    """Mean squared error of the reconstruction from the first components."""

    def fit(pca: PCA, train: FloatArray) -> Score:
        axes = pca.components_[:components]

        def score(x: FloatArray) -> FloatArray:
            centred = x - pca.mean_
            left = centred - centred @ axes.T @ axes
            return np.asarray((left**2).mean(axis=1))

        return score

    return fit


def _nearest_neighbour(pca: PCA, train: FloatArray) -> Score:
    """Euclidean distance to the most similar training beat."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

    memory = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(pca.transform(train))
    return lambda x: np.asarray(memory.kneighbors(pca.transform(x))[0][:, 0])


def _isolation_forest(pca: PCA, train: FloatArray) -> Score:
    """Isolation forest (Liu, Ting and Zhou, ICDM 2008)."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415

    forest = IsolationForest(random_state=SEED).fit(pca.transform(train))
    return lambda x: np.asarray(-forest.score_samples(pca.transform(x)))


def _difference(leads: int, length: int) -> Score:
    """Mean square of the leads that say how a beat differs from its patient's own."""
    signal = signal_leads(leads, context=True)

    def score(x: FloatArray) -> FloatArray:
        beats = x.reshape(len(x), leads, length)
        return np.asarray((beats[:, signal : 2 * signal] ** 2).mean(axis=(1, 2)))

    return score


def three_numbers(train: FloatArray, leads: int, length: int) -> Score:
    """Mahalanobis distance from the training beats, by three numbers and without a network.

    They are the logarithm of the difference from the patient's own beat, and those of the
    intervals before and after the beat, as parts of the patient's own interval.
    """
    difference = _difference(leads, length)

    def numbers(x: FloatArray) -> NDArray[np.float64]:
        # The last lead is the rhythm: the one logarithm up to the R peak, the other behind it.
        rhythm = x.reshape(len(x), leads, length)[:, -1]
        # A beat that is its patient's own has no difference at all.
        unlike = np.log(np.maximum(difference(x), SMALLEST_DIFFERENCE))
        return np.stack([unlike, rhythm[:, 0], rhythm[:, -1]], axis=1).astype(np.float64)

    normal = numbers(train)
    mean = normal.mean(axis=0)
    inverse = np.linalg.pinv(np.cov(normal.T))

    def score(x: FloatArray) -> FloatArray:
        centred = numbers(x) - mean
        return np.asarray(np.einsum("ni,ij,nj->n", centred, inverse, centred))

    return score


FITS: dict[str, Callable[[PCA, FloatArray], Score]] = {
    PCA_10: _reconstruction(10),
    PCA_30: _reconstruction(30),
    NEAREST_NEIGHBOUR: _nearest_neighbour,
    ISOLATION_FOREST: _isolation_forest,
}
