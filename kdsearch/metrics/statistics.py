"""Test whether one score is better than another: an interval, a p-value and a sentence.

A difference is always the first minus the second, so that above 0 the first is better.
The interval of `compare` covers other seeds and other patients. That of `paired_by_seed` covers
other seeds only, on the same beats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from kdsearch.data.beats import BoolArray, TextArray
from kdsearch.metrics.ranking import DoubleArray, checked_scores

Judgement = Literal["better", "worse", "not distinguishable"]
BETTER: Judgement = "better"
WORSE: Judgement = "worse"
NOT_DISTINGUISHABLE: Judgement = "not distinguishable"
# How often intervals miss the true difference: they are 95 % intervals.
ERROR = 1 - 0.95


@dataclass(frozen=True)
class Interval:
    """A difference with its 95 % confidence interval.

    Attributes:
        estimate: The difference as measured.
        low: Lower end; NaN if there are too few values for an interval.
        high: Upper end; NaN in the same case.
    """

    estimate: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        if not self.known:
            return f"{self.estimate:+z.3f} (no interval: too few to calculate one)"
        digits = _decimals(self)
        ends = f"{self.low:+z.{digits}f} to {self.high:+z.{digits}f}"
        return f"{self.estimate:+z.{digits}f} (95 % interval {ends})"


@dataclass(frozen=True)
class Comparison:
    """A difference with its interval and the p-value that belongs to it.

    Attributes:
        difference: Of the areas under the ROC curve, the first minus the second.
        p_value: Two-sided, of the hypothesis that there is no difference, from the same
            distribution as the interval: below 0.05 exactly where the interval excludes 0. NaN
            where the interval is not known.
        of_seeds: The seeds' part of the variance of the difference; NaN where not known.
        of_patients: The patients' part, likewise.
    """

    difference: Interval
    p_value: float
    of_seeds: float = math.nan
    of_patients: float = math.nan


@dataclass(frozen=True)
class Area:
    """Area under the ROC curve of one network, and what each patient contributes to it.

    Attributes:
        area: Of all beats.
        pseudovalues: Jackknife pseudovalue of the area for each patient, shape (patients,).
    """

    area: float
    pseudovalues: DoubleArray


def compare(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    abnormal: BoolArray,
    patients: TextArray | None = None,
    *,
    error: float | None = None,
) -> Comparison:
    """Difference of two areas under the ROC curve, as `compare_areas`.

    Args:
        scores_a: Anomaly scores, shape (seeds, n), higher is more abnormal; may have ties.
        scores_b: Another method's scores of the same beats, of the same shape: with the same
            seeds in the same order, or repeated for each seed if it has none.
        abnormal: As of `area`.
        patients: Likewise.
        error: As of `compare_areas`.

    Raises:
        ValueError: Shapes differ, a score is not finite, or all beats are of one kind.
    """
    first, second = np.asarray(scores_a), np.asarray(scores_b)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            f"scores of shapes {first.shape} and {second.shape}: expected (seeds, beats), both "
            "with the same seeds"
        )
    a, b = ([area(row, abnormal, patients) for row in rows] for rows in (first, second))
    return compare_areas(a, b, error=error)


def compare_areas(
    a: Sequence[Area], b: Sequence[Area], *, error: float | None = None
) -> Comparison:
    """Difference of two areas under the ROC curve, for other seeds and other patients.

    Seeds and patients are crossed: each seed's network scores all patients. The variance of the
    mean difference is the sum of two components, both of jackknife pseudovalues of the area
    with whole patients left out: that of the seeds' means, and that of the patients' means
    (Dorfman, Berbaum and Metz, Investigative Radiology 27(9), 1992, with seeds in the place of
    readers and patients in the place of cases; patients as clusters of beats as in Obuchowski,
    Biometrics 53(2), 1997). The interval is Student's t with Satterthwaite's degrees of freedom
    (Biometrics Bulletin 2(6), 1946). What a seed does to single patients is counted in both
    components, which makes the interval a little too wide where that is large.
    ``benchmarks/coverage.py`` simulates how often it contains the truth.

    Args:
        a: A network per seed.
        b: The other method's networks, with the same seeds in the same order.
        error: The chance that this interval may miss the truth, where several looks share
            `ERROR`; see `kdsearch.evaluation.adaptive`. Default: all of it.

    Returns:
        The interval is NaN for a single seed, for a single patient, and where one patient has
        all the normal or all the abnormal beats.
    """
    error = ERROR if error is None else error
    estimate = float(np.mean([x.area - y.area for x, y in zip(a, b, strict=True)]))
    pseudovalues = np.array(
        [x.pseudovalues - y.pseudovalues for x, y in zip(a, b, strict=True)]
    )
    seeds, count = pseudovalues.shape
    if seeds < 2 or count < 2 or not np.isfinite(pseudovalues).all():
        return Comparison(Interval(estimate, math.nan, math.nan), math.nan)
    of_seeds = _variance_of_mean(pseudovalues.mean(axis=1))
    of_patients = _variance_of_mean(pseudovalues.mean(axis=0))
    variance = of_seeds + of_patients
    if variance == 0:
        p_value = 1.0 if estimate == 0 else 0.0
        same = Interval(estimate, estimate, estimate)
        return Comparison(same, p_value, of_seeds, of_patients)
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_patients**2 / (count - 1))
    deviation = math.sqrt(variance)
    reach = float(stdtrit(freedom, 1 - error / 2)) * deviation
    # Two areas cannot differ by more than 1, but Student's t has no bounds.
    low, high = max(estimate - reach, -1.0), min(estimate + reach, 1.0)
    p_value = float(2 * stdtr(freedom, -abs(estimate) / deviation))
    # Scaled, so that it still belongs to the interval.
    p_value = min(1.0, p_value * ERROR / error)
    return Comparison(Interval(estimate, low, high), p_value, of_seeds, of_patients)


def area(scores: ArrayLike, abnormal: BoolArray, patients: TextArray | None = None) -> Area:
    """Area under the ROC curve of one network, and its jackknife pseudovalue of each patient.

    All pairs of an abnormal and a normal beat are counted once; leaving out a patient then is
    to take away the pairs that his beats are part of.

    Args:
        scores: Anomaly scores, shape (n,), higher is more abnormal; may have ties.
        abnormal: The truth, shape (n,).
        patients: Patient of each beat, shape (n,); None takes every beat for a patient of its
            own, and an interval then speaks of other beats alone.

    Raises:
        ValueError: Shapes differ, a score is not finite, or all beats are of one kind.
    """
    values = checked_scores(scores, abnormal)
    # Number of each beat's patient, from 0.
    clusters = np.arange(len(abnormal))
    if patients is not None:
        if patients.shape != abnormal.shape:
            raise ValueError(f"patients of shape {patients.shape} for {len(abnormal)} beats")
        clusters = np.unique(patients, return_inverse=True)[1]
    count = int(clusters.max()) + 1
    positives, negatives = values[abnormal], values[~abnormal]
    of_positive, of_negative = clusters[abnormal], clusters[~abnormal]
    below = _number_below(positives, negatives)
    above = len(positives) - _number_below(negatives, positives)
    own = np.zeros(count)
    n_positive = np.bincount(of_positive, minlength=count)
    n_negative = np.bincount(of_negative, minlength=count)
    for patient in np.flatnonzero((n_positive > 0) & (n_negative > 0)):
        mine = positives[of_positive == patient], negatives[of_negative == patient]
        own[patient] = _number_below(*mine).sum()
    pairs = (len(positives) - n_positive) * (len(negatives) - n_negative)
    left = below.sum() - np.bincount(of_positive, below, count)
    left += own - np.bincount(of_negative, above, count)
    whole = float(below.mean()) / len(negatives)
    # Without this patient there may be no pair: the pseudovalue is NaN then.
    without = np.divide(left, pairs, out=np.full(count, math.nan), where=pairs > 0)
    return Area(whole, count * whole - (count - 1) * without)


def _number_below(values: DoubleArray, among: DoubleArray) -> DoubleArray:
    """How many of ``among`` are below each value, ties counted half."""
    in_order = np.sort(among)
    below = np.searchsorted(in_order, values, side="left")
    not_above = np.searchsorted(in_order, values, side="right")
    numbers: DoubleArray = (below + not_above) / 2
    return numbers


def _variance_of_mean(values: DoubleArray) -> float:
    return float(values.var(ddof=1)) / len(values)


def paired_by_seed(a: ArrayLike, b: ArrayLike, error: float | None = None) -> Interval:
    """Mean difference of two ways of training, repeated with the same seeds.

    Student's t interval of the differences; pairs cancel what a seed does to both.

    Args:
        a: One figure per seed, shape (seeds,).
        b: The other way's figures with the same seeds in the same order, shape (seeds,).
        error: As of `compare_areas`.

    Returns:
        The first minus the second; of a single seed there is no interval, and its ends are
        NaN (``known`` is False).

    Raises:
        ValueError: Shapes differ, there are no seeds, or a figure is not finite.
    """
    first, second = _figures(a), _figures(b)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} seeds against {len(second)}: pairs need the same seeds")
    differences = first - second
    estimate, n = float(differences.mean()), len(differences)
    if n < 2:
        return Interval(estimate, math.nan, math.nan)
    error = ERROR if error is None else error
    deviation = math.sqrt(_variance_of_mean(differences))
    reach = float(stdtrit(n - 1, 1 - error / 2)) * deviation
    return Interval(estimate, estimate - reach, estimate + reach)


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
    """Return whether the first is better or worse, for a metric of which more is better.

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
    *,
    seeds: int,
    beats: int,
    patients: int | None = None,
) -> str:
    """Return one sentence for a reader without knowledge of statistics.

    Args:
        name: What was compared, as it is called within a sentence: ``the student``.
        other: What it was compared with.
        interval: Of their AUC, the first minus the second, from `compare`.
        seeds: How often both were trained.
        beats: How many beats they were measured on.
        patients: Of how many patients; None where that is not known.
    """
    evidence = f"{_count(seeds, 'seed')} and {_count(beats, 'beat')}"
    if patients is not None:
        evidence = f"{_count(seeds, 'seed')} and {_count(patients, 'patient')}"
        evidence += f" with {_count(beats, 'beat')}"
    if interval.known:
        covers = "other seeds and other patients"
        if patients is None:
            covers = "other seeds and other beats; the patients are not known"
        text = _known(name, other, interval, covers, evidence)
    else:
        few_seeds = "trainings with other seeds"
        missing = few_seeds if seeds < 2 else "patients with beats of both kinds"
        text = (
            f"{name} and {other} are not distinguishable: the AUC of {name} is "
            f"{_signed(interval.estimate, _decimals(interval))}, but there are too few "
            f"{missing} to tell this from chance ({evidence})"
        )
    return f"{text[0].upper()}{text[1:]}."


def _known(name: str, other: str, interval: Interval, covers: str, evidence: str) -> str:
    verdict, digits = judge(interval), _decimals(interval)
    if verdict == NOT_DISTINGUISHABLE:
        start = f"{name} and {other} are not distinguishable"
        if interval.low == interval.high == 0:
            return f"{start}: their AUC is the same ({evidence})"
        return (
            f"{start}: the AUC of {name} was measured "
            f"{_signed(interval.estimate, digits)}, but may really be anything from "
            f"{_signed(interval.low, digits)} to {_signed(interval.high, digits)} "
            f"(95 % confidence interval for {covers}; from {evidence})"
        )
    near, far = sorted((abs(interval.low), abs(interval.high)))
    return (
        f"{name} is {verdict} than {other}: its AUC is "
        f"{_signed(interval.estimate, digits)} (95 % confidence interval "
        f"{near:.{digits}f} to {far:.{digits}f} for {covers}; from {evidence})"
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _signed(value: float, digits: int) -> str:
    return f"{abs(value):.{digits}f} {'lower' if value < 0 else 'higher'}"


def _decimals(interval: Interval) -> int:
    """Return the number of decimals: three, or more for a narrow interval."""
    if not interval.known:
        return 3
    smallest = [(interval.high - interval.low) / 2]
    if judge(interval) != NOT_DISTINGUISHABLE:
        smallest.append(min(abs(interval.low), abs(interval.high)))
    needed = [math.ceil(-math.log10(size)) for size in smallest if size > 0]
    return min(max([3, *needed]), 6)


def _figures(values: ArrayLike) -> DoubleArray:
    figures = np.asarray(values, dtype=np.float64)
    if figures.ndim != 1 or len(figures) == 0:
        raise ValueError(f"one figure per seed is needed, but the shape is {figures.shape}")
    if not np.isfinite(figures).all():
        raise ValueError(f"not all figures are finite numbers: {figures.tolist()}")
    return figures
