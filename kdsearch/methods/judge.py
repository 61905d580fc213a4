"""Validation metrics of an epoch from a student's scores."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import LabelledBeats
from kdsearch.errors import TrialDiverged
from kdsearch.methods.protocol import EpochReport
from kdsearch.metrics.ranking import rank


def judge(
    epoch: int,
    losses: Mapping[str, float],
    scores: NDArray[np.float32],
    validation: LabelledBeats,
    *,
    seconds: float,
) -> EpochReport | TrialDiverged:
    """Rank the scores; a loss or a score that is not finite is a `TrialDiverged`.

    Args:
        epoch: Epochs trained so far.
        losses: Mean of each term.
        scores: Of the validation beats, shape (n,).
        validation: These beats.
        seconds: Wall time of the epoch.
    """
    for name, value in {**losses, "validation score": float(scores.sum())}.items():
        if not math.isfinite(value):
            return TrialDiverged(f"{name} became {value} in epoch {epoch}")
    ranking = rank(scores, validation.abnormal)
    return EpochReport(
        epoch, dict(losses), seconds, ranking.roc_auc(), ranking.average_precision()
    )
