"""BeatGAN that keeps a log of every epoch it computes, and fails on demand.

Loaded by the searches under test as ``method: faulty:FaultyBeatGan``. What it does is set by
the environment, which Ray's workers inherit:

    FAULTY_LOG      a file that gets a line ``<trial> <epoch> <students> <process>`` for each
                    epoch computed, by how many students together and by which process
    FAULTY_PAUSE_S  how long an epoch lasts at least
    FAULTY_AFTER    a file for which epochs wait, ten minutes at most
    FAULTY_HOLD     how many epochs are computed in all before one waits for that file
    FAULTY_HOLD_EACH  the same for each student alone; each is 0 where neither is set
    FAULTY_NODE     the name of a node of a cluster
    FAULTY_LEASE_S  how long a stack waits for a student that does not come back
    FAULTY_PLAN     JSON: {"<trial>": [kind, epoch, times]}, kind one of raise, nan,
                    exit, kill, memory, gpu memory
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.protocol import Compute, Stack, Task, TrainedEpoch
from kdsearch.tuning.workers import slots

slots.LEASE_S = float(os.environ.get("FAULTY_LEASE_S", slots.LEASE_S))
TEACHER = -1


class FaultyStack:
    """A stack that logs and fails around the real one."""

    def __init__(self, stack: Stack, *, teacher: bool) -> None:
        self._stack = stack
        self._teacher = teacher
        self._trials: dict[int, int] = {}
        self.slots, self.steps = stack.slots, stack.steps

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        self._trials[slot] = TEACHER if self._teacher else seed % 1_000_003
        self._stack.put_in(slot, settings, seed=seed, state=state)

    def advance(self, steps: int | None = None) -> Mapping[int, TrainedEpoch]:
        time.sleep(float(os.environ.get("FAULTY_PAUSE_S", "0")))
        _wait_for(os.environ.get("FAULTY_AFTER"), [*self._trials.values()])
        epochs = dict(self._stack.advance(steps))
        for slot, trained in epochs.items():
            self._log(self._trials[slot], trained.epoch, len(epochs))
        for slot, trained in epochs.items():
            self._fail(self._trials[slot], trained.epoch)
            if _planned(self._trials[slot], "nan", trained.epoch):
                epochs[slot] = replace(trained, losses={"reconstruction": math.nan})
        return epochs

    def take_out(self, slot: int) -> None:
        self._stack.take_out(slot)

    def save(self, slot: int) -> Any:
        return self._stack.save(slot)

    def weights(self, slot: int) -> Any:
        return self._stack.weights(slot)

    def _log(self, trial: int, epoch: int, together: int) -> None:
        with Path(os.environ["FAULTY_LOG"]).open("a") as log:
            log.write(f"{trial} {epoch} {together} {os.getpid()}\n")

    def _fail(self, trial: int, epoch: int) -> None:
        if _planned(trial, "raise", epoch):
            raise RuntimeError("the sensor caught fire")
        if _planned(trial, "memory", epoch):
            raise MemoryError("tried to allocate 64 GiB")
        if _planned(trial, "gpu memory", epoch):
            raise torch.OutOfMemoryError("tried to allocate 64 GiB")
        if _planned(trial, "exit", epoch):
            os._exit(7)
        if _planned(trial, "kill", epoch):
            os.kill(os.getpid(), signal.SIGKILL)


def _wait_for(file: str | None, trials: list[int]) -> None:
    end = time.monotonic() + 600
    if file and _held(trials):
        _note("held", str(trials))
    while file and _held(trials) and not Path(file).exists() and time.monotonic() < end:
        time.sleep(0.1)


def _held(trials: list[int]) -> bool:
    log = Path(os.environ["FAULTY_LOG"])
    computed = (
        [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []
    )
    if each := os.environ.get("FAULTY_HOLD_EACH"):
        return any(computed.count(trial) >= int(each) for trial in trials if trial != TEACHER)
    return len(computed) >= int(os.environ.get("FAULTY_HOLD", "0"))


def _planned(trial: int, kind: str, epoch: int) -> bool:
    plan = json.loads(os.environ.get("FAULTY_PLAN", "{}")).get(str(trial))
    if plan is None or plan[0] != kind or plan[1] != epoch:
        return False
    marks = Path(os.environ["FAULTY_LOG"] + f".{trial}")
    done = len(marks.read_text()) if marks.exists() else 0
    if done >= plan[2]:
        return False
    marks.write_text("x" * (done + 1))
    return True


def _note(log: str, line: str) -> None:
    with Path(f"{os.environ['FAULTY_LOG']}.{log}").open("a") as file:
        file.write(f"{line}\n")


class FaultyBeatGan(BeatGan):
    """The built-in method with a log and with faults; notes which processes train what."""

    def teacher_stack(self, *args: Any, **options: Any) -> Any:
        _note("teachers", f"{os.environ.get('FAULTY_NODE')} {os.getpid()}")
        return FaultyStack(super().teacher_stack(*args, **options), teacher=True)

    def student_stack(self, *args: Any, **options: Any) -> Any:
        _note("students", str(os.getpid()))
        return FaultyStack(super().student_stack(*args, **options), teacher=False)


class AnywhereBeatGan(FaultyBeatGan):
    """Logs ``<device> <slots>`` per stack of students and ``teacher <device>`` of teachers.

    It calculates on the CPU wherever it is, so that nodes which only say that they have a GPU
    can take part.
    """

    def teacher_stack(self, settings: Any, task: Task) -> Any:
        _note("devices", f"teacher {task.compute.device}")
        return super().teacher_stack(settings, replace(task, compute=Compute("cpu", "fp32")))

    def student_stack(self, settings: Any, slots: int, task: Task) -> Any:
        _note("devices", f"{task.compute.device} {slots}")
        task = replace(task, compute=Compute("cpu", "fp32"))
        return super().student_stack(settings, slots, task)

    def score(self, weights: Any, x: Any, compute: Compute) -> Any:
        return super().score(weights, x, Compute("cpu", "fp32"))
