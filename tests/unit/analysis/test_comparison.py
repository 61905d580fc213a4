"""Best so far over trials and over training time, on records made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from kdsearch.analysis.comparison import best_so_far, over_compute, over_trials
from kdsearch.runs.trial_folder import TrialRecord


def record(number: int, auc: float, seconds: float, state: str = "completed") -> TrialRecord:
    return TrialRecord(number, state, {}, {1: auc, 2: auc}, seconds)  # type: ignore[arg-type]


SLOW = [record(0, 0.7, 10), record(1, 0.6, 10), record(2, 0.9, 10)]
FAST = [record(1, 0.85, 2), record(0, 0.8, 2), record(2, 0.99, 2, "failed")]


def test_best_so_far_counts_failures_as_cost_alone() -> None:
    curve = best_so_far(FAST)
    assert curve["trials"].tolist() == [1, 2, 3]
    assert curve["epochs"].tolist() == [2, 4, 6]
    assert curve["seconds"].tolist() == [2, 4, 6]
    assert curve["best"].tolist() == [0.8, 0.85, 0.85]


def test_a_trial_without_an_epoch_has_reached_nothing() -> None:
    curve = best_so_far([TrialRecord(0, "running", {}), record(1, 0.5, 1)])
    assert math.isnan(curve["best"][0])
    assert curve["best"][1] == 0.5


def test_over_trials_ends_where_a_run_ends() -> None:
    table = over_trials({"slow": SLOW, "fast": FAST[:2]})
    assert table["trials"].tolist() == [1, 2, 3]
    assert table["slow"].tolist() == [0.7, 0.7, 0.9]
    assert table["fast"].tolist()[:2] == [0.8, 0.85]
    assert pd.isna(table["fast"][2])


def test_over_compute_gives_every_run_the_same_time() -> None:
    table = over_compute({"slow": SLOW, "fast": FAST})
    assert table["seconds"].tolist() == pytest.approx([0.6, 1.5, 3, 4.5, 6])
    assert table["slow"].isna().all(), "its first trial took longer than all that"
    assert table["fast"].tolist()[2:] == [0.8, 0.85, 0.85]


def test_no_trials() -> None:
    assert over_trials({"empty": []}).empty
    assert over_compute({"empty": []}).empty
