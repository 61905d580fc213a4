"""Random histories of a run: whatever fails in whatever order, the promises hold."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))

from histories import History

from kdsearch.files import atomic
from kdsearch.files.atomic import make_folder
from kdsearch.runs.trial_folder import TrialFolder, TrialRecord
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.workers.training import Training


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(histories: int, steps: int = 15, **options: Any) -> None:
    chosen = settings(
        max_examples=histories,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    run_state_machine_as_test(History, settings=chosen)


def test_no_history_breaks_a_promise() -> None:
    run(200)


def begins_at_0(ledger: Ledger, *args: Any, **kwargs: Any) -> None:
    INIT(ledger, *args, **kwargs)
    ledger._order = 0


def only_at_the_end(trial: TrialFolder, record: TrialRecord) -> None:
    if record.finished:
        WRITE_RECORD(trial, record)


def in_place(path: Any, *parts: bytes) -> None:
    make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, b"".join(parts))
    os.close(descriptor)


INIT, WRITE_RECORD = Ledger.__init__, TrialFolder.write_record
FAULTS: dict[str, tuple[Any, str, Any, str]] = {
    "no generation": (
        *(TrialFolder, "check_generation", lambda _: None),
        "a worker of an earlier driver writes",
    ),
    "order from 0": (Ledger, "__init__", begins_at_0, "two trials ended at once"),
    "no rename": (atomic, "write_bytes", in_place, "lost"),
    "no record at the start": (
        *(TrialFolder, "write_record", only_at_the_end),
        "the settings of a trial are lost or changed",
    ),
    "no checkpoint": (
        *(Training, "checkpoint_write", lambda _: None),
        "more is lost than a report",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_found(fault: str) -> None:
    owner, name, broken, promise = FAULTS[fault]
    with mock.patch.object(owner, name, broken), pytest.raises(AssertionError, match=promise):
        run(200, phases=[Phase.generate])
