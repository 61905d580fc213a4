"""Measure how many students per process train fastest."""

from __future__ import annotations

import timeit
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import BaseModel

from kdsearch.data.beats import LabelledBeats
from kdsearch.tuning.workers.trial import TrialInputs, student_stack

# Mini-batches of a measured epoch: enough to fill the device's queue, few enough to be quick.
BATCHES = 8
VALIDATED = 256
# A larger stack has to be worth its longer epochs: every student waits for all.
WORTH_WHILE = 1.1
LARGEST = 256


@dataclass(frozen=True)
class Rate:
    """What a stack of so many students gets done.

    Attributes:
        per_second: Mini-batches a second, of all students together.
    """

    students: int
    per_second: float


def sample(inputs: TrialInputs) -> TrialInputs:
    """Return the inputs with as few beats as a measurement needs."""
    beats = BATCHES * int(getattr(_settings(inputs), "batch_size", 1))
    # There may be several rows per training beat.
    task, data = inputs.task, inputs.task.data
    targets = {
        name: rows[: beats * (len(rows) // len(data.train))]
        for name, rows in task.targets.items()
    }
    # Both kinds of beat, as far as there are any, or the AUC could not be calculated.
    every = data.validation
    kinds = np.unique(every.abnormal)
    of_each = [np.flatnonzero(every.abnormal == kind)[: VALIDATED // 2] for kind in kinds]
    at = np.sort(np.concatenate(of_each))
    few = LabelledBeats(every.x[at], every.abnormal[at], every.classes[at], record=None)
    data = replace(data, train=data.train[:beats], validation=few)
    return replace(inputs, task=replace(task, data=data, targets=targets))


def rates(inputs: TrialInputs, most: int) -> list[Rate]:
    """Measure stacks of 1, 2, 4, ... students until one is not faster, or does not fit.

    Args:
        inputs: From `sample`.
        most: No stack is larger.
    """
    settings = _settings(inputs)
    measured = [_rate(settings, 1, inputs)]
    students = 2
    while students <= min(most, LARGEST):
        try:
            measured.append(_rate(settings, students, inputs))
        except torch.OutOfMemoryError:
            break
        if measured[-1].per_second < WORTH_WHILE * measured[-2].per_second:
            break
        students *= 2
    return measured


def best_size(measured: Sequence[Rate]) -> int:
    """The smallest stack that none of twice its size beats by a tenth."""
    best = measured[0]
    for larger in measured[1:]:
        if larger.per_second < WORTH_WHILE * best.per_second:
            break
        best = larger
    return best.students


def describe_sizes(measured: Sequence[Rate], students: int) -> str:
    """One line on what was measured and chosen."""
    speeds = ", ".join(f"{rate.students}: {rate.per_second:.0f}" for rate in measured)
    return f"{students} students train side by side (mini-batches a second by number: {speeds})"


def _rate(settings: BaseModel, students: int, inputs: TrialInputs) -> Rate:
    stack = student_stack(settings, students, inputs)
    for slot in range(students):
        stack.put_in(slot, settings, seed=slot)
    # The first epoch chooses kernels and reserves memory; the better of two others is less
    # disturbed by whatever else the machine does.
    stack.advance()
    seconds = min(timeit.repeat(stack.advance, number=1, repeat=2))
    return Rate(students, students * BATCHES / seconds)


def _settings(inputs: TrialInputs) -> BaseModel:
    """Settings of one student; those that differ within a stack do not change its speed."""
    return inputs.config.student_settings(inputs.config.corners()[0])
