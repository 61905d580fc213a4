"""A method that only counts, so that thousands of searches can be run.

A mini-batch's loss is a chain: `chain` of the seed and the mini-batch, continued from the state
before. A student that goes on from a state which it never had has another chain from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from kdsearch.methods.protocol import TrainedEpoch

MODULUS = 2**31 - 1
# Mini-batches of an epoch.
STEPS = 4


class Teacher(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: int = 2
    seed: int = 0


class Student(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: int = 4
    width: int = 1
    rate: float = 0.5


def step(value: int, batch: int) -> int:
    return (value * 48271 + batch) % MODULUS


def chain(seed: int, last: int) -> list[int]:
    """What the losses of the mini-batches up to this one have to be, the first one after 0."""
    values = [seed % MODULUS]
    for batch in range(1, last + 1):
        values.append(step(values[-1], batch))
    return values


class CountingStack:
    steps = STEPS

    def __init__(self, slots: int, beats: int) -> None:
        self.slots = slots
        self._beats = beats
        self._values: dict[int, tuple[float, int, int]] = {}

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        assert slot not in self._values
        rate = float(getattr(settings, "rate", 0.5))
        values = (seed % MODULUS, 0) if state is None else (state["value"], state["done"])
        self._values[slot] = (rate, *values)

    def take_out(self, slot: int) -> None:
        self._values.pop(slot, None)

    def advance(self, steps: int | None = None) -> Mapping[int, TrainedEpoch]:
        outcomes = {}
        steps = STEPS if steps is None else steps
        for slot, (rate, before, done) in self._values.items():
            epoch = done // STEPS + 1
            if 0.85 < rate <= 0.95 and epoch == 3:
                raise RuntimeError("the sensor caught fire")
            assert done % STEPS + steps <= STEPS, "over the end of an epoch"
            losses = [before]
            for batch in range(done + 1, done + steps + 1):
                losses.append(step(losses[-1], batch))
            value = losses[-1]
            self._values[slot] = (rate, value, done + steps)
            loss = float("nan") if rate > 0.95 and epoch == 2 else float(np.mean(losses[1:]))
            scores = np.random.default_rng(value).random(self._beats, np.float32)
            outcomes[slot] = TrainedEpoch(epoch, {"chain": loss}, 0.25, scores)
        return outcomes

    def save(self, slot: int) -> Any:
        _, value, done = self._values[slot]
        return {"value": value, "done": done}

    def weights(self, slot: int) -> Any:
        _, value, done = self._values[slot]
        return {"method": "counting", "chain": torch.tensor([value]), "epoch": done / STEPS}


class Counting:
    name = "counting"
    teacher_settings = Teacher
    student_settings = Student

    def structure(self, settings: Any) -> str:
        return str(getattr(settings, "width", 0))

    def check(self, teacher: Any, student: Any) -> None:
        pass

    def teacher_stack(self, settings: Any, task: Any) -> Any:
        return CountingStack(1, len(task.data.validation.x))

    def targets(self, students: Any, task: Any) -> Any:
        return {"one": np.ones(len(task.data.train), np.float32)}

    def student_stack(self, settings: Any, slots: int, task: Any) -> Any:
        return CountingStack(slots, len(task.data.validation.x))

    def score(self, weights: Any, x: Any, compute: Any) -> Any:
        return np.asarray(x[:, 0, 0], np.float32) + np.float32(weights["epoch"])
