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
from kdsearch.runs.trial_folder import TrialFolder
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.workers.training import Training

# A machine that stops leaves its threads to end with an error.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


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


def in_place(path: Any, *parts: bytes) -> None:
    make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, b"".join(parts))
    os.close(descriptor)


INIT = Ledger.__init__
FAULTS = {
    "a worker of an earlier driver writes": (TrialFolder, "check_generation", lambda _: None),
    "two trials ended at once": (Ledger, "__init__", begins_at_0),
    "a trial has other settings": (atomic, "write_bytes", in_place),
    "more is lost than an epoch": (Training, "checkpoint_write", lambda _: None),
}


@pytest.mark.parametrize("promise", FAULTS)
def test_a_broken_promise_is_found(promise: str) -> None:
    owner, name, fault = FAULTS[promise]
    with mock.patch.object(owner, name, fault), pytest.raises(AssertionError, match=promise):
        run(200, phases=[Phase.generate])
