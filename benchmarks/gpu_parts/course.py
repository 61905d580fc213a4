"""Students on made-up beats, in epochs of a given number of steps."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_parts.part import sizes
from kdsearch.data import LabelledBeats, TrainingData
from kdsearch.data.beats import normalise
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.memory import Memory
from kdsearch.methods.protocol import Compute, Method, Stack, Task

LENGTH = 320
METHODS: dict[str, Callable[[], Method]] = {"beatgan": BeatGan, "memory": Memory}
# The plain script's term of distillation is a constant.
UNDISTILLED: dict[str, dict[str, Any]] = {"beatgan": {"target": "none"}, "memory": {}}
# Losses of an epoch by term, and validation scores after it.
Outcome = tuple[dict[str, float], np.ndarray]


@dataclass(frozen=True)
class Course:
    """Students of one method on made-up beats, in epochs of a given number of steps."""

    method: Method
    steps: int
    network: dict[str, Any]
    task: Task

    @classmethod
    def new(cls, name: str, steps: int, options: argparse.Namespace, **extra: Any) -> Course:
        method, network = METHODS[name](), sizes(options).network[name] | extra
        student: Any = method.student_settings(**network)
        # A mini-batch of `memory` is half of normal beats.
        per_step = student.batch_size // (2 if name == "memory" else 1)
        data = made_up(per_step * steps)
        shared = network.keys() & method.teacher_settings.model_fields.keys()
        settings = method.teacher_settings(**{key: network[key] for key in shared})
        task = Task(data, Compute("cpu", "fp32"))
        stack = method.teacher_stack(settings, task)
        stack.put_in(0, settings, seed=0)
        if name == "memory":
            stack.advance()
        task = replace(task, teacher=stack.weights(0))
        task = replace(task, targets=method.targets([student], task))
        return cls(method, steps, network, task)

    def stack(self, students: Sequence[int], compute: Compute) -> Stack:
        """A full stack of these students."""
        settings = [self.settings(k) for k in students]
        task = replace(self.task, compute=compute)
        stack = self.method.student_stack(settings[0], len(settings), task)
        for slot, k in enumerate(students):
            stack.put_in(slot, settings[slot], seed=k)
        return stack

    def settings(self, k: int) -> Any:
        """Each student's are a little different, as in a search."""
        settings: Any = self.method.student_settings(**self.network)
        return settings.model_copy(
            update={"lr": settings.lr * 1.01**k, "alpha": settings.alpha * 0.99**k}
        )

    def trained(self, students: Sequence[int], compute: Compute) -> list[Outcome]:
        """What each student has after its first epoch."""
        stack = self.stack(students, compute)
        trained = stack.advance()
        x = self.task.data.validation.x
        return [
            (trained[slot].losses, self.method.score(stack.weights(slot), x, compute))
            for slot in range(len(students))
        ]

    def of_nearly_the_same_beats(self) -> Course:
        data = self.task.data
        noise = np.random.default_rng(0).standard_normal(data.train.shape)
        train = (data.train * (1 + 1e-6 * noise)).astype(np.float32)
        return replace(self, task=replace(self.task, data=replace(data, train=train)))


def made_up(beats: int, validation: int = 128) -> TrainingData:
    """Waves with noise; every fourth validation beat is abnormal and has more of it."""
    rng = np.random.default_rng(0)
    abnormal = np.arange(validation) % 4 == 0
    x = wave(rng, beats, np.full(beats, 0.1))
    val_x = wave(rng, validation, np.where(abnormal, 0.5, 0.1))
    classes = np.where(abnormal, "V", "N")
    return TrainingData(x, LabelledBeats(val_x, abnormal, classes, None))


def wave(rng: np.random.Generator, beats: int, noise: np.ndarray) -> np.ndarray:
    phase = rng.uniform(0, 0.5, (beats, 1, 1))
    x = np.sin(np.linspace(0, 30, LENGTH) + phase)
    x = x + noise[:, None, None] * rng.standard_normal((beats, 1, LENGTH))
    return normalise(x.astype(np.float32))
