"""BeatGAN that keeps a log of every epoch it computes, and fails on demand.

Loaded by the searches under test as ``method: faulty:FaultyBeatGan``. What it does is set by
the environment, which Ray's workers inherit:

    FAULTY_LOG      a file that gets a line ``<trial> <epoch>`` for each epoch computed
    FAULTY_PAUSE_S  how long an epoch lasts at least
    FAULTY_PLAN     JSON: {"<trial>": [kind, epoch, times]}, kind one of raise, nan,
                    exit, kill, memory
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.beatgan import BeatGan
from kdsearch.errors import TrialDiverged
from kdsearch.method import EpochReport, Stack

TEACHER = -1


class FaultyStack:
    """A stack of one that logs and fails around the real one."""

    def __init__(self, stack: Stack, *, teacher: bool) -> None:
        self._stack = stack
        self._teacher = teacher
        self._trial = TEACHER
        self.slots = stack.slots

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        self._trial = TEACHER if self._teacher else seed % 1_000_003
        self._stack.put_in(slot, settings, seed=seed, state=state)

    def advance(self) -> Mapping[int, EpochReport | Exception]:
        time.sleep(float(os.environ.get("FAULTY_PAUSE_S", "0")))
        reports = self._stack.advance()
        report = reports[0]
        if isinstance(report, EpochReport):
            self._log(report.epoch)
            self._fail(report.epoch)
            if self._planned("nan", report.epoch):
                return {0: TrialDiverged(f"reconstruction is nan in epoch {report.epoch}")}
        return reports

    def take_out(self, slot: int) -> None:
        self._stack.take_out(slot)

    def save(self, slot: int) -> Any:
        return self._stack.save(slot)

    def weights(self, slot: int) -> Any:
        return self._stack.weights(slot)

    def _log(self, epoch: int) -> None:
        with Path(os.environ["FAULTY_LOG"]).open("a") as log:
            log.write(f"{self._trial} {epoch}\n")

    def _fail(self, epoch: int) -> None:
        if self._planned("raise", epoch):
            raise RuntimeError("the sensor caught fire")
        if self._planned("memory", epoch):
            raise MemoryError("tried to allocate 64 GiB")
        if self._planned("exit", epoch):
            os._exit(7)
        if self._planned("kill", epoch):
            os.kill(os.getpid(), signal.SIGKILL)

    def _planned(self, kind: str, epoch: int) -> bool:
        plan = json.loads(os.environ.get("FAULTY_PLAN", "{}")).get(str(self._trial))
        if plan is None or plan[0] != kind or plan[1] != epoch:
            return False
        marks = Path(os.environ["FAULTY_LOG"] + f".{self._trial}")
        done = len(marks.read_text()) if marks.exists() else 0
        if done >= plan[2]:
            return False
        marks.write_text("x" * (done + 1))
        return True


class FaultyBeatGan(BeatGan):
    """The built-in method with a log and with faults."""

    def teacher_stack(self, *args: Any, **options: Any) -> Any:
        return FaultyStack(super().teacher_stack(*args, **options), teacher=True)

    def student_stack(self, *args: Any, **options: Any) -> Any:
        return FaultyStack(super().student_stack(*args, **options), teacher=False)
