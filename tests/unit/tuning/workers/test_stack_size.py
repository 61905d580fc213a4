"""How large a stack is chosen, and that it is measured with the real thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdsearch.config.space_file import parse_config
from kdsearch.data import load_dataset
from kdsearch.methods.protocol import Task
from kdsearch.tuning.workers.stack_size import Rate, best_size, describe_sizes, rates, sample
from kdsearch.tuning.workers.trial import TrialInputs


@pytest.mark.parametrize(
    ("per_second", "best"),
    [
        ([10.0], 1),
        ([10.0, 9.0], 1),
        ([10.0, 10.5], 1),
        ([10.0, 19.0, 36.0, 38.0], 4),
        ([10.0, 12.0, 12.5, 40.0], 2),
    ],
)
def test_a_larger_stack_has_to_be_worth_while(per_second: list[float], best: int) -> None:
    measured = [Rate(2**n, rate) for n, rate in enumerate(per_second)]
    assert best_size(measured) == best
    assert describe_sizes(measured, best).startswith(f"{best} students train side by side")


def test_stacks_are_measured_up_to_the_limit(inputs: TrialInputs) -> None:
    small = sample(inputs)
    beats = len(small.task.data.train)
    assert beats == len(small.task.targets["score"]) <= len(inputs.task.data.train)
    assert set(small.task.data.validation.abnormal) == {True, False}
    measured = rates(small, most=2)
    assert [rate.students for rate in measured] == [1, 2][: len(measured)]
    assert all(rate.per_second > 0 for rate in measured)


@pytest.mark.parametrize("context", [None, "patient"])
def test_stacks_of_memory_are_measured_too(
    inputs: TrialInputs, context: str | None, tmp_path: Path
) -> None:
    """Its targets have several rows per training beat, and its beats may have a context."""
    simulated = {"patients": 4, "beats": 400}
    space = {"alpha": [0.1, 1], "lr": [0.001, 0.002]}
    student = {"width": 4, "components": 3, "batch_size": 8, "epochs": 1}
    raw = {
        "method": "memory",
        "data": {"simulated": simulated, "split": "inter_patient"},
        "teacher": {},
        "search": {"num_samples": 2},
        "student": student,
        "space": {name: {"choice": values} for name, values in space.items()},
    }
    if context is not None:
        raw["data"]["context"] = context
    config = parse_config(raw, "memory.yaml")
    data = load_dataset(config.data, tmp_path).training
    settings = config.teacher
    stack = config.method.teacher_stack(settings, Task(data, inputs.task.compute))
    stack.put_in(0, settings, seed=0)
    stack.advance()
    students = [config.student_settings(config.corners()[0])]
    task = Task(data, inputs.task.compute, stack.weights(0))
    task = replace(task, targets=config.method.targets(students, task))
    small = sample(replace(inputs, config=config, task=task))
    assert small.task.data.context == data.context
    assert [rate.students for rate in rates(small, most=1)] == [1]
