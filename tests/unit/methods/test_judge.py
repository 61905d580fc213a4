"""What an epoch was worth."""

from __future__ import annotations

import numpy as np
import pytest
from search_cases import tiny_dataset

from kdsearch.errors import TrialDiverged
from kdsearch.methods.judge import judge
from kdsearch.methods.protocol import EpochReport

VALIDATION = tiny_dataset().training.validation
SCORES = np.arange(len(VALIDATION.x), dtype=np.float32)


def test_scores_are_ranked():
    scores = SCORES + 100 * VALIDATION.abnormal
    found = judge(3, {"loss": 0.5}, scores, VALIDATION, seconds=2.0)
    assert found == EpochReport(3, {"loss": 0.5}, 2.0, val_auc=1.0, val_ap=1.0)


@pytest.mark.parametrize(
    ("losses", "scores", "message"),
    [
        ({"fine": 1.0, "loss": np.inf}, SCORES, "loss became inf in epoch 3"),
        ({"loss": 0.5}, SCORES * np.nan, "validation score became nan in epoch 3"),
    ],
)
def test_what_is_not_finite_has_diverged(losses: dict, scores: np.ndarray, message: str):
    found = judge(3, losses, scores, VALIDATION, seconds=2.0)
    assert isinstance(found, TrialDiverged)
    assert str(found) == message
