"""What is said of a search while it runs and when its time is over."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning import progress
from kdsearch.tuning.progress import SearchProgress, confirmation_progress, teacher_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_time_budget_tells_what_was_done(clock: list[float]):
    search = SearchProgress(Console(file=io.StringIO()), 5, [])
    search.started(Suggestion(0, {}))
    assert search.within(1.0) == (
        "the time budget of 1 s is used up: no epoch was trained, because starting the trials "
        "alone takes longer; give a larger --time-budget"
    )
    clock[0] += 12
    for curve in ({0.25: 0.5}, {0.25: 0.5, 1: 0.5}, {0.25: 0.5, 1: 0.5, 2: 0.5}):
        search.reported(TrialRecord(0, "running", {}, curve), 2)
    search.ended(0, "completed", "")
    assert search.within(20.0) == (
        "the time budget of 20 s is used up: 1 trials ended and 2 epochs were trained, the "
        "first after 12 s"
    )


def test_teachers_that_train_side_by_side_have_a_line_each():
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=200)
        with teacher_progress(console, members=2) as on_epoch:
            for epoch, member in ((1, 0), (1, 1), (2, 0), (2, 1)):
                on_epoch(EpochReport(epoch, {}, 1.0, 0.5 + member / 4, 0.5), 2, member)
        ended = [line for line in file.getvalue().splitlines() if "2/2" in line]
        for number, val_auc in ((1, "0.5000"), (2, "0.7500")):
            (*_, line) = [line for line in ended if f"teacher {number} of 2" in line]
            assert f"val_auc {val_auc}" in line


def test_markup_in_a_reason_is_text():
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=200)
        search = SearchProgress(console, 1, [])
        with search.shown():
            search.started(Suggestion(0, {"target": "[/b]"}))
            search.ended(0, "failed", "expected [/b] and [red]")
        with teacher_progress(console) as on_epoch:
            on_epoch(EpochReport(1, {}, 1.0, 0.5, 0.5), 2, 0)
        with confirmation_progress(console) as on_done:
            on_done("[/b] seed 1", 1, 2)
        assert "[/b] seed 1" in file.getvalue()
        assert ("expected [/b] and [red]" in file.getvalue()) is not terminal
