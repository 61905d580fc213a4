"""Ranking metrics of anomaly scores, all from one sort.

A beat is called abnormal when its score is at least the threshold. Abnormal is positive:
sensitivity is the fraction of abnormal beats that are called abnormal, specificity the fraction
of normal beats that are not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdsearch.data.beats import NORMAL, BoolArray, IndexArray, TextArray

DoubleArray = NDArray[np.float64]
# What a search maximises, on the validation beats.
Metric = Literal["val_auc", "val_ap"]
METRICS: dict[Metric, str] = {"val_auc": "AUC", "val_ap": "AP"}


@dataclass(frozen=True)
class Confusion:
    """Counts of beats at one threshold."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float:
        """Fraction of the abnormal beats that are called abnormal."""
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Fraction of the normal beats that are called normal."""
        return self.true_negatives / (self.true_negatives + self.false_positives)

    @property
    def ppv(self) -> float | None:
        """Fraction of the beats called abnormal that are so; None if there are none."""
        called = self.true_positives + self.false_positives
        return self.true_positives / called if called else None

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and PPV."""
        wrong = self.false_positives + self.false_negatives
        return 2 * self.true_positives / (2 * self.true_positives + wrong)

    @property
    def accuracy(self) -> float:
        """Fraction of all beats that are classified correctly."""
        right = self.true_positives + self.true_negatives
        return right / (right + self.false_positives + self.false_negatives)

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers, without ``ppv`` if it is None."""
        figures = {
            **asdict(self),
            "accuracy": self.accuracy,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "f1": self.f1,
        }
        return figures if self.ppv is None else {**figures, "ppv": self.ppv}


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one AAMI class against the normal beats.

    Attributes:
        n: Beats of the class.
        roc_auc: Of this class alone against the normals; None for the normals themselves.
        sensitivity: At the threshold; None for the normals.
        specificity: At the threshold; None for abnormal classes.
    """

    n: int
    roc_auc: float | None
    sensitivity: float | None
    specificity: float | None

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, without what does not apply to the class."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Metrics:
    """Everything that is reported of one set of scores.

    Attributes:
        n: Beats.
        n_abnormal: Of them abnormal.
        roc_auc: Area under the ROC curve, ties counted as half.
        average_precision: Mean precision over recall steps, not interpolated.
        equal_error_rate: Where as many normals are called abnormal as abnormals are missed.
        confusion: Counts at the threshold of the evaluation.
        classes: Figures by AAMI class.
    """

    n: int
    n_abnormal: int
    roc_auc: float
    average_precision: float
    equal_error_rate: float
    confusion: Confusion
    classes: dict[str, ClassFigures]

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers; those of ``confusion`` and of each class are nested."""
        classes = {label: figures.as_dict() for label, figures in self.classes.items()}
        return {**vars(self), "confusion": self.confusion.as_dict(), "classes": classes}


@dataclass(frozen=True)
class Ranking:
    """Scores after the one sort.

    Attributes:
        thresholds: The distinct scores, from the highest, shape (t,).
        true_positives: Abnormal beats at or above each threshold, shape (t,).
        false_positives: Normal beats at or above each threshold, shape (t,).
    """

    thresholds: DoubleArray
    true_positives: DoubleArray
    false_positives: DoubleArray

    def roc_auc(self) -> float:
        """Probability that an abnormal beat scores above a normal one, ties counted half."""
        return _area(self.true_positives, self.false_positives)

    def average_precision(self) -> float:
        """Sum of precision times the gain in recall over thresholds, as scikit-learn has it."""
        precision = self.true_positives / (self.true_positives + self.false_positives)
        gains = np.diff(self.true_positives, prepend=0)
        return float(np.sum(precision * gains) / self.true_positives[-1])

    def best_f1(self) -> tuple[float, float]:
        """The largest F1 and its threshold, the highest one where several are equally good."""
        called = self.true_positives + self.false_positives
        f1 = 2 * self.true_positives / (called + self.true_positives[-1])
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.thresholds[best])

    def equal_error_rate(self) -> float:
        """The false positive rate at which it equals the false negative rate.

        Taken on the ROC curve's straight lines, where the curve meets the anti-diagonal.
        """
        false_positive = _rates(self.false_positives)
        false_negative = 1 - _rates(self.true_positives)
        gap = false_positive - false_negative
        after = int(np.argmax(gap >= 0))
        before = after - 1
        part = -gap[before] / (gap[after] - gap[before])
        step = false_positive[after] - false_positive[before]
        return float(false_positive[before] + part * step)

    def confusion(self, threshold: float) -> Confusion:
        """Counts when beats from ``threshold`` upwards are called abnormal."""
        called = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        found = int(self.true_positives[called - 1]) if called else 0
        false = int(self.false_positives[called - 1]) if called else 0
        return Confusion(
            threshold=float(threshold),
            true_positives=found,
            false_positives=false,
            true_negatives=int(self.false_positives[-1]) - false,
            false_negatives=int(self.true_positives[-1]) - found,
        )


def rank(scores: ArrayLike, abnormal: BoolArray) -> Ranking:
    """Sort once; everything else follows from the result.

    Args:
        scores: Anomaly scores, shape (n,), higher is more abnormal.
        abnormal: The truth, shape (n,).

    Raises:
        ValueError: The shapes differ, a score is not a finite number, or all beats are of one
            kind, so that there is nothing to tell apart.
    """
    return _Sorted(checked_scores(scores, abnormal)).ranking(abnormal)


def evaluate(
    scores: ArrayLike, classes: TextArray, *, threshold: float | None = None
) -> Metrics:
    """All metrics of one set of scores.

    Args:
        scores: Anomaly scores, shape (n,), higher is more abnormal.
        classes: AAMI class of each beat, shape (n,); every class but N is abnormal.
        threshold: Where counts, sensitivities and the specificity are taken; chosen on other
            beats to be honest. Default: that of the best F1 on these scores, as published.

    Raises:
        ValueError: As `rank`.
    """
    abnormal = np.asarray(classes != NORMAL)
    in_order = _Sorted(checked_scores(scores, abnormal))
    ranking = in_order.ranking(abnormal)
    if threshold is None:
        _, threshold = ranking.best_f1()
    confusion = ranking.confusion(threshold)
    false = ranking.false_positives
    figures = {NORMAL: ClassFigures(int(false[-1]), None, None, confusion.specificity)}
    for label in np.unique(classes[abnormal]):
        counts = in_order.counts(np.asarray(classes == label))
        called = Ranking(ranking.thresholds, counts, false).confusion(threshold)
        figures[str(label)] = ClassFigures(
            n=int(counts[-1]),
            roc_auc=_area(counts, false),
            sensitivity=called.sensitivity,
            specificity=None,
        )
    return Metrics(
        n=len(abnormal),
        n_abnormal=int(abnormal.sum()),
        roc_auc=ranking.roc_auc(),
        average_precision=ranking.average_precision(),
        equal_error_rate=ranking.equal_error_rate(),
        confusion=confusion,
        classes=figures,
    )


class _Sorted:
    """The order of scores from the highest, and where runs of equal scores end."""

    def __init__(self, scores: DoubleArray) -> None:
        self._order: IndexArray = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        self.thresholds: DoubleArray = ranked[self._ends]

    def ranking(self, abnormal: BoolArray) -> Ranking:
        return Ranking(self.thresholds, self.counts(abnormal), self.counts(~abnormal))

    def counts(self, chosen: BoolArray) -> DoubleArray:
        """Return the number of chosen beats at or above each threshold."""
        counts: DoubleArray = np.cumsum(chosen[self._order], dtype=np.float64)[self._ends]
        return counts


def checked_scores(scores: ArrayLike, abnormal: BoolArray) -> DoubleArray:
    """Return the scores in double precision.

    Raises:
        ValueError: As `rank`.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != abnormal.shape or values.ndim != 1:
        raise ValueError(f"scores of shape {values.shape} for {abnormal.shape} labels")
    broken = int(np.count_nonzero(~np.isfinite(values)))
    if broken:
        raise ValueError(f"{broken} of {len(values)} scores are not finite numbers")
    positives = int(np.count_nonzero(abnormal))
    if positives in (0, len(values)):
        raise ValueError(
            "ranking metrics need normal and abnormal beats, but there are "
            f"{len(values) - positives} normal and {positives} abnormal"
        )
    return values


def _rates(counts: DoubleArray) -> DoubleArray:
    """Counts over thresholds as rates, starting with none."""
    rates: DoubleArray = np.concatenate(([0.0], counts / counts[-1]))
    return rates


def _area(true_positives: DoubleArray, false_positives: DoubleArray) -> float:
    return float(np.trapezoid(_rates(true_positives), _rates(false_positives)))
