"""A method whose students cost nothing: what is left of the time is the harness's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kdsearch.methods.protocol import Compute, State, Targets, Task, TrainedEpoch


class Settings(BaseModel):
    """Four numbers to search, as a real student has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = 1.0
    alpha: float = 0.1
    w_adv: float = 1.0
    lr: float = 1e-3
    epochs: int = 3
    seed: int = 0


class TrivialStack:
    """Its students' AUC is a smooth function of their settings and their epoch."""

    steps = 1

    def __init__(self, slots: int, task: Task) -> None:
        self.slots = slots
        self._abnormal = task.data.validation.abnormal
        self._students: dict[int, tuple[Settings, int]] = {}

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        self._students[slot] = (settings, 0 if state is None else state["epoch"])

    def take_out(self, slot: int) -> None:
        del self._students[slot]

    def advance(self, steps: int | None = None) -> Mapping[int, TrainedEpoch]:
        trained = {}
        for slot, (settings, epoch) in self._students.items():
            self._students[slot] = (settings, epoch + 1)
            distance = abs(np.log(settings.temperature)) + abs(np.log(settings.lr / 1e-3))
            auc = 0.5 + 0.4 / (1 + distance) + 0.01 * epoch
            trained[slot] = TrainedEpoch(epoch + 1, {"loss": 1.0}, 1e-3, self._scores(auc))
        return trained

    def _scores(self, auc: float) -> NDArray[np.float32]:
        """Scores of the validation beats whose AUC is about the given one."""
        scores = self._abnormal.astype(np.float32)
        normal = np.flatnonzero(~self._abnormal)
        scores[normal[round(auc * len(normal)) :]] = 2
        return scores

    def save(self, slot: int) -> State:
        return {"epoch": self._students[slot][1]}

    def weights(self, slot: int) -> State:
        return {"epoch": self._students[slot][1]}


class Trivial:
    """The protocol, with nothing behind it."""

    name = "trivial"
    teacher_settings: type[BaseModel] = Settings
    student_settings: type[BaseModel] = Settings

    def structure(self, settings: BaseModel) -> str:
        return settings.model_dump_json(exclude={"temperature", "alpha", "w_adv", "lr"})

    def check(self, teacher: BaseModel, student: BaseModel) -> None:
        """Any pair will do."""

    def teacher_stack(self, settings: Any, task: Task) -> TrivialStack:
        return TrivialStack(1, task)

    def targets(self, students: Sequence[Any], task: Task) -> Targets:
        return {}

    def student_stack(self, settings: Any, slots: int, task: Task) -> TrivialStack:
        return TrivialStack(slots, task)

    def score(self, weights: State, x: NDArray[Any], compute: Compute) -> NDArray[np.float32]:
        return np.abs(x).mean(axis=(1, 2), dtype=np.float32)
