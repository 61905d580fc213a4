"""Is one score really better than another: intervals, tests and a sentence that says it.

A difference is always the first minus the second, so that above 0 the first is better. Two
things can be asked. Of two trained networks on the same beats, `delong` and
`bootstrap_difference` say what other beats, or other patients, might change. Of two ways of
training, repeated with the same seeds, `paired_by_seed` says what other seeds might change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from kdsearch.data.beats import BoolArray, IndexArray, TextArray
from kdsearch.metrics.ranking import DoubleArray, Ranking, rank

Judgement = Literal["better", "worse", "not distinguishable"]
BETTER: Judgement = "better"
WORSE: Judgement = "worse"
NOT_DISTINGUISHABLE: Judgement = "not distinguishable"

MetricName = Literal["auc", "ap"]


@dataclass(frozen=True)
class Interval:
    """A difference and what it may really be.

    Attributes:
        estimate: The difference as measured.
        low: Lower end; NaN where there is too little to calculate an interval from.
        high: Upper end, likewise.
        confidence: How often such intervals contain the true difference, between 0 and 1.
    """

    estimate: float
    low: float
    high: float
    confidence: float

    @property
    def known(self) -> bool:
        """False where there was too little to calculate the ends from."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        if not self.known:
            return f"{self.estimate:+z.3f} (no interval: too few to calculate one)"
        digits = _decimals(self)
        ends = f"{self.low:+z.{digits}f} to {self.high:+z.{digits}f}"
        return f"{self.estimate:+z.{digits}f} ({_percent(self)} interval {ends})"


@dataclass(frozen=True)
class Comparison:
    """Two scores of the same beats.

    Attributes:
        auc_a: Area under the ROC curve of the first.
        auc_b: Of the second.
        difference: The first minus the second.
        p_value: Two-sided, of the hypothesis that both areas are equal; NaN where the
            interval is not known.
    """

    auc_a: float
    auc_b: float
    difference: Interval
    p_value: float


def delong(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    abnormal: BoolArray,
    confidence: float = 0.95,
) -> Comparison:
    """Difference of two correlated areas under the ROC curve, beats being independent.

    DeLong, DeLong and Clarke-Pearson (Biometrics 44(3), 1988), in O(n log n) as shown by Sun
    and Xu (IEEE Signal Processing Letters 21(11), 2014). Beats of one patient are alike, which
    it does not know: where records are known, `bootstrap_difference` over them is the honest
    one. It is an approximation for many beats: scores that separate perfectly have no
    variance, and their interval has no width.

    Args:
        scores_a: Anomaly scores, shape (n,), higher is more abnormal; may have ties.
        scores_b: Another method's scores of the same beats, shape (n,).
        abnormal: The truth, shape (n,).
        confidence: Of the interval.

    Returns:
        Both areas and their difference; its interval is NaN where there are fewer than two
        normal or two abnormal beats.

    Raises:
        ValueError: Shapes differ, a score is not finite, all beats are of one kind, or the
            confidence is not between 0 and 1.
    """
    first, second = _checked(scores_a, scores_b, abnormal)
    _check_confidence(confidence)
    found_a, spared_a = _placements(first, abnormal)
    found_b, spared_b = _placements(second, abnormal)
    # Variances of the differences, so that equal scores give exactly 0.
    variance = _variance_of_mean(found_a - found_b) + _variance_of_mean(spared_a - spared_b)
    auc_a, auc_b = float(found_a.mean()), float(found_b.mean())
    difference, error = auc_a - auc_b, math.sqrt(variance)
    reach = float(ndtri((1 + confidence) / 2)) * error
    return Comparison(
        auc_a=auc_a,
        auc_b=auc_b,
        difference=Interval(difference, difference - reach, difference + reach, confidence),
        p_value=_two_sided(difference, error),
    )


def _placements(scores: DoubleArray, abnormal: BoolArray) -> tuple[DoubleArray, DoubleArray]:
    """For each abnormal beat the part of the normals below it, and the reverse for normals.

    Binary searches give the values that Sun and Xu take from midranks, ties counted half.
    """
    positives, negatives = scores[abnormal], scores[~abnormal]
    return _part_below(positives, negatives), 1 - _part_below(negatives, positives)


def _part_below(values: DoubleArray, among: DoubleArray) -> DoubleArray:
    in_order = np.sort(among)
    below = np.searchsorted(in_order, values, side="left")
    not_above = np.searchsorted(in_order, values, side="right")
    parts: DoubleArray = (below + not_above) / (2 * len(among))
    return parts


def _variance_of_mean(values: DoubleArray) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan


def _two_sided(difference: float, error: float) -> float:
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * ndtr(-abs(difference) / error))


def bootstrap_difference(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    abnormal: BoolArray,
    records: TextArray | None = None,
    *,
    metric: MetricName = "auc",
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Difference of a ranking metric, with an interval from drawing the beats again.

    The paired percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13): both scores are measured on the same draws. With records, whole patients
    are drawn, because beats of one patient are alike; with few patients the interval is a
    little too narrow. Draws without normal or without abnormal beats are repeated.

    Args:
        scores_a: Anomaly scores, shape (n,), higher is more abnormal.
        scores_b: Another method's scores of the same beats, shape (n,).
        abnormal: The truth, shape (n,).
        records: Patient of each beat, shape (n,); None draws single beats.
        metric: ``auc``, area under the ROC curve, or ``ap``, average precision.
        resamples: How many draws.
        seed: The same seed draws the same beats.
        confidence: Of the interval.

    Returns:
        The first minus the second; the ends are NaN if all beats are of one patient.

    Raises:
        ValueError: Shapes differ, a score is not finite, all beats are of one kind, the metric
            is not known, there are no resamples, or the confidence is not between 0 and 1.
    """
    first, second = _checked(scores_a, scores_b, abnormal)
    _check_confidence(confidence)
    _check_resampling(metric, resamples)
    drawn_as = _clusters(records, len(abnormal))
    both = _Order.of(first, abnormal), _Order.of(second, abnormal)
    estimate = _difference(both, np.ones(len(abnormal)), metric)
    if drawn_as.max() == 0:  # a single patient says nothing of others
        return Interval(estimate, math.nan, math.nan, confidence)
    rng = np.random.default_rng(seed)
    found = [
        _difference(both, _draw(drawn_as, abnormal, rng), metric) for _ in range(resamples)
    ]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high), confidence)


def _clusters(records: TextArray | None, n: int) -> IndexArray:
    """Number of what each beat is drawn with, from 0; shape (n,)."""
    if records is None:
        return np.arange(n)
    if records.shape != (n,):
        raise ValueError(f"records of shape {records.shape} for {n} beats")
    return np.asarray(np.unique(records, return_inverse=True)[1], dtype=np.int64)


def _draw(clusters: IndexArray, abnormal: BoolArray, rng: np.random.Generator) -> DoubleArray:
    """How often each beat is drawn, shape (n,); normal and abnormal ones are among them."""
    count = int(clusters.max()) + 1
    while True:
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        weights: DoubleArray = times[clusters].astype(np.float64)
        if 0 < weights @ abnormal < weights.sum():
            return weights


@dataclass(frozen=True)
class _Order:
    """Scores sorted once, so that a draw is only another weight for each beat.

    Attributes:
        order: Beats from the highest score, shape (n,).
        ends: Where runs of equal scores end, shape (t,).
        thresholds: The score of each run, shape (t,).
        abnormal: The truth in this order, shape (n,).
    """

    order: IndexArray
    ends: IndexArray
    thresholds: DoubleArray
    abnormal: BoolArray

    @classmethod
    def of(cls, scores: DoubleArray, abnormal: BoolArray) -> _Order:
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        return cls(order, ends, ranked[ends], abnormal[order])

    def ranking(self, weights: DoubleArray) -> Ranking:
        """As if each beat were there as often as its weight says."""
        ranked = weights[self.order]
        called = np.cumsum(ranked)[self.ends]
        found = np.cumsum(ranked * self.abnormal)[self.ends]
        # Thresholds above every beat that was drawn call none, which has no precision.
        first = int(np.searchsorted(called, 0, side="right"))
        called, found = called[first:], found[first:]
        return Ranking(self.thresholds[first:], found, called - found)


def _difference(both: tuple[_Order, _Order], weights: DoubleArray, metric: MetricName) -> float:
    first, second = (order.ranking(weights) for order in both)
    if metric == "auc":
        return first.roc_auc() - second.roc_auc()
    return first.average_precision() - second.average_precision()


def paired_by_seed(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean difference of two ways of training, repeated with the same seeds.

    Student's t interval of the differences; pairs cancel what a seed does to both.

    Args:
        a: One figure per seed, shape (seeds,).
        b: The other way's figures with the same seeds in the same order, shape (seeds,).
        confidence: Of the interval.

    Returns:
        The first minus the second; of a single seed there is no interval, and its ends are
        NaN (``known`` is False).

    Raises:
        ValueError: Shapes differ, there are no seeds, a figure is not finite, or the
            confidence is not between 0 and 1.
    """
    _check_confidence(confidence)
    first, second = _figures(a), _figures(b)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} seeds against {len(second)}: pairs need the same seeds")
    differences = first - second
    estimate, n = float(differences.mean()), len(differences)
    if n < 2:
        return Interval(estimate, math.nan, math.nan, confidence)
    error = math.sqrt(_variance_of_mean(differences))
    reach = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    return Interval(estimate, estimate - reach, estimate + reach, confidence)


def mean_and_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation (of the sample, n - 1) of figures over seeds, shape (n,).

    Returns:
        The standard deviation is NaN for a single value.

    Raises:
        ValueError: There are no values, or one is not finite.
    """
    figures = _figures(values)
    sd = float(figures.std(ddof=1)) if len(figures) > 1 else math.nan
    return float(figures.mean()), sd


def judge(interval: Interval) -> Judgement:
    """Is the first better or worse than the second, for a metric of which more is better?

    An interval that contains 0, or that is not known, distinguishes nothing.
    """
    if interval.low > 0:
        return BETTER
    if interval.high < 0:
        return WORSE
    return NOT_DISTINGUISHABLE


def sentence(
    name: str,
    other: str,
    interval: Interval,
    metric_name: str,
    *,
    seeds: int,
    beats: int | None = None,
    patients: int | None = None,
) -> str:
    """One sentence for a reader who knows no statistics.

    Args:
        name: What was compared, as it is called within a sentence: ``the student``.
        other: What it was compared with.
        interval: Of the first minus the second.
        metric_name: What was measured; more must be better.
        seeds: How often both were trained.
        beats: How many beats they were measured on, where it should be said.
        patients: Of how many patients, where it is known.

    Raises:
        ValueError: There is no repetition.
    """
    if seeds < 1:
        raise ValueError(f"a comparison needs at least one repetition, but seeds={seeds}")
    evidence = _evidence(seeds, beats, patients)
    if not interval.known:
        text = _unknown(name, other, interval, metric_name, evidence, few_seeds=seeds < 2)
    else:
        text = _known(name, other, interval, metric_name, evidence)
        if seeds == 1:
            # The interval is about other beats: it cannot speak for another training.
            text += "; trained once each, which is too few to say whether it would happen again"
    return f"{text[0].upper()}{text[1:]}."


def _known(name: str, other: str, interval: Interval, metric: str, evidence: str) -> str:
    verdict, digits = judge(interval), _decimals(interval)
    if verdict == NOT_DISTINGUISHABLE:
        start = f"{name} and {other} are not distinguishable"
        if interval.low == interval.high == 0:
            return f"{start}: their {metric} is the same ({evidence})"
        return (
            f"{start}: the {metric} of {name} was measured "
            f"{_signed(interval.estimate, digits)}, but may really be anything from "
            f"{_signed(interval.low, digits)} to {_signed(interval.high, digits)} "
            f"({_percent(interval)} confidence interval; {evidence})"
        )
    near, far = sorted((abs(interval.low), abs(interval.high)))
    return (
        f"{name} is {verdict} than {other}: its {metric} is "
        f"{_signed(interval.estimate, digits)} ({_percent(interval)} confidence interval "
        f"{near:.{digits}f} to {far:.{digits}f}; {evidence})"
    )


def _unknown(
    name: str, other: str, interval: Interval, metric: str, evidence: str, *, few_seeds: bool
) -> str:
    missing = "trainings with other seeds" if few_seeds else "repetitions, beats or patients"
    return (
        f"{name} and {other} are not distinguishable: the {metric} of {name} is "
        f"{_signed(interval.estimate, _decimals(interval))}, but there are too few {missing} "
        f"to tell this from chance ({evidence})"
    )


def _evidence(seeds: int, beats: int | None, patients: int | None) -> str:
    """``5 repetitions, 27,111 beats of 22 patients``."""
    parts = [_count(seeds, "repetition")]
    if beats is not None:
        parts.append(_count(beats, "beat"))
    of = ", ".join(parts)
    return of if patients is None else f"{of} of {_count(patients, 'patient')}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _signed(value: float, digits: int) -> str:
    return f"{abs(value):.{digits}f} {'lower' if value < 0 else 'higher'}"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.confidence:g} %"


def _decimals(interval: Interval) -> int:
    """Three, or as many as the width calls for and as keep an end off 0 that is not 0."""
    if not interval.known:
        return 3
    smallest = [(interval.high - interval.low) / 2]
    if judge(interval) != NOT_DISTINGUISHABLE:
        smallest.append(min(abs(interval.low), abs(interval.high)))
    needed = [math.ceil(-math.log10(size)) for size in smallest if size > 0]
    return min(max([3, *needed]), 6)


def _checked(
    scores_a: ArrayLike, scores_b: ArrayLike, abnormal: BoolArray
) -> tuple[DoubleArray, DoubleArray]:
    if abnormal.dtype != np.bool_:
        raise ValueError(f"abnormal has to be of type bool, but is {abnormal.dtype}")
    # Ranking refuses what cannot be compared: shapes, NaN, beats of one kind only.
    for scores in (scores_a, scores_b):
        rank(scores, abnormal)
    return np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, but is {confidence}")


def _check_resampling(metric: str, resamples: int) -> None:
    if metric not in ("auc", "ap"):
        raise ValueError(f"metric must be 'auc' or 'ap', but is {metric!r}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, but is {resamples}")


def _figures(values: ArrayLike) -> DoubleArray:
    figures = np.asarray(values, dtype=np.float64)
    if figures.ndim != 1 or len(figures) == 0:
        raise ValueError(f"one figure per seed is needed, but the shape is {figures.shape}")
    if not np.isfinite(figures).all():
        raise ValueError(f"not all figures are finite numbers: {figures.tolist()}")
    return figures
