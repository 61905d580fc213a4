"""Compare a beat with its own patient's beats; needs no labels, so it works at test time.

A beat that is normal for one patient is abnormal for another, and a premature beat may have the
shape of a normal one. The first minutes of the same recording show both. Ectopic beats are
early, so a patient's *late* beats, those after the longest intervals, are used as the normal
ones. This works even if most beats are ectopic, unlike a median over all beats. Rhythm as an
input: de Chazal et al., IEEE Trans. Biomed. Eng. 51(7), 2004; the first minutes of a recording
as what a detector may adapt to: ANSI/AAMI EC57.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import R_PEAK, BoolArray, FloatArray, Moments, TextArray, normalise

# Part of the data's fingerprint: raise it whenever the same beats would get another context.
VERSION = 3

ADAPTED_S = 300.0
LATE_QUANTILE = 0.9
# Intervals that differ by more than this factor are as good as it.
LARGEST_FACTOR = np.e


@dataclass(frozen=True)
class Reference:
    """A patient's usual beat.

    Attributes:
        beat: Median of the late beats among the first, normalised, shape (leads, length).
        interval_s: How long the interval before a beat is at least for it to be late.
    """

    beat: FloatArray
    interval_s: float


def adapted(record: TextArray, moments: Moments) -> BoolArray:
    """Which beats a detector adapts to: those of the first five minutes of a record.

    Args:
        record: Record of each beat, shape (n,).
        moments: When they came.

    Returns:
        Shape (n,).
    """
    _, index = np.unique(record, return_inverse=True)
    first = np.full(len(moments.time_s), np.inf)
    np.minimum.at(first, index, moments.time_s)
    return np.asarray(moments.time_s < first[index] + ADAPTED_S)


def references(
    x: FloatArray, record: TextArray, moments: Moments, quantile: float = LATE_QUANTILE
) -> dict[str, Reference]:
    """Return the usual beat of each patient: of the first five minutes, without labels.

    Args:
        x: Raw beats, shape (n, leads, length).
        record: Record of each, shape (n,).
        moments: When they came.
        quantile: Of the intervals before beats, from which on a beat is late.

    Returns:
        One entry for each record.
    """
    found = {}
    early = adapted(record, moments)
    for name in np.unique(record):
        rows = np.flatnonzero((record == name) & early)
        beats = normalise(np.asarray(x[rows]))
        found[str(name)] = _reference(beats, moments.before_s[rows], quantile)
    return found


def _reference(x: FloatArray, before_s: NDArray[np.float64], quantile: float) -> Reference:
    known = np.isfinite(before_s)
    if not known.any():
        return Reference(np.median(x, axis=0), 1.0)
    interval_s = float(np.quantile(before_s[known], quantile))
    late = known & (before_s >= interval_s)
    return Reference(np.median(x[late], axis=0), interval_s)


def with_context(
    x: FloatArray, record: TextArray, moments: Moments, own: Mapping[str, Reference]
) -> FloatArray:
    """Add leads: the difference from the patient's usual beat, and the rhythm.

    Args:
        x: Normalised beats, shape (n, leads, length).
        record: Record of each, shape (n,); one of ``own``.
        moments: When they came.
        own: From `references`.

    Returns:
        Shape (n, 2 * leads + 1, length), all values from -1 to 1: the beats; half of their
        difference from the patient's own; and one lead of two steps, the natural logarithms
        of the interval before a beat, up to its R peak, and of the one after it, both as
        parts of the patient's own interval. An unknown interval counts as that.
    """
    names, index = np.unique(record, return_inverse=True)
    beats = np.stack([own[str(name)].beat for name in names])
    intervals_s = np.array([own[str(name)].interval_s for name in names])[index]
    ratios = np.stack([moments.before_s, moments.after_s], axis=1) / intervals_s[:, None]
    ratios = np.nan_to_num(ratios, nan=1.0).clip(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    steps = np.log(ratios).astype(np.float32)
    before = round(R_PEAK * x.shape[-1])
    rhythm = np.repeat(steps, [before, x.shape[-1] - before], axis=1)[:, None]
    return np.concatenate([x, (x - beats[index]) / 2, rhythm], axis=1).astype(np.float32)


def all_leads(leads: int, *, context: bool) -> int:
    """Return the number of leads of a prepared beat, with those of its context."""
    return 2 * leads + 1 if context else leads


def signal_leads(leads: int, *, context: bool) -> int:
    """Return the number of leads of the beat itself, which come first."""
    return (leads - 1) // 2 if context else leads
