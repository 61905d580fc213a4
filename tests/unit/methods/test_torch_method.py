"""Two torch modules as a method: the shipped example, in every call of the protocol."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beatgan_cases import finite
from search_cases import CPU, tiny_dataset

from kdsearch.config.space_file import load_space
from kdsearch.files.atomic import load_state, save_state
from kdsearch.methods.protocol import Stack, State, Task
from kdsearch.methods.torch_method import TorchMethod
from kdsearch.tuning.teacher import fingerprint

EXAMPLE = Path(__file__).parents[3] / "examples" / "autoencoder.yaml"
DATA = tiny_dataset()
DROPOUT = """
from torch import nn
from autoencoder import Autoencoder

class Dropping(Autoencoder):
    def network(self, settings, shape):
        return nn.Sequential(nn.Dropout(0.3), super().network(settings, shape))
"""


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchMethod]:
    """The example's, with dropout before it: chance has to go on as well."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("own")
        (folder / "dropping.py").write_text(DROPOUT)
        patch.syspath_prepend(EXAMPLE.parent)
        patch.syspath_prepend(folder)
        import dropping  # noqa: PLC0415

        yield dropping.Dropping()


@pytest.fixture(scope="module")
def task(method: TorchMethod) -> Task:
    teacher = method.teacher_settings(width=2, batch_size=8)
    stack = method.teacher_stack(teacher, Task(DATA.training, CPU))
    stack.put_in(0, teacher, seed=0)
    assert finite(stack.advance()[0])
    task = Task(DATA.training, CPU, stack.weights(0))
    return replace(task, targets=method.targets([method.student_settings()], task))


def settings(method: TorchMethod, **changes: Any) -> Any:
    return method.student_settings(**{"latent": 2, "batch_size": 8, "lr": 0.01, **changes})


def students(method: TorchMethod, task: Task, slots: int = 1) -> Stack:
    return method.student_stack(settings(method), slots, task)


def trained(method: TorchMethod, task: Task, epochs: int = 2, **changes: Any) -> State:
    stack = students(method, task)
    stack.put_in(0, settings(method, **changes), seed=3)
    for _ in range(epochs):
        assert finite(stack.advance()[0])
    return stack.weights(0)["network"]


def same(one: State, other: State) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_going_on_from_a_file_is_bit_for_bit_the_same(
    method: TorchMethod, task: Task, tmp_path: Path
):
    stack = students(method, task)
    stack.put_in(0, settings(method), seed=3)
    stack.advance()
    save_state(tmp_path / "last.pt", stack.save(0))
    stack.advance()  # What was saved is not touched by what follows.
    torch.manual_seed(77)
    again = students(method, task, slots=2)
    again.put_in(1, settings(method), seed=3, state=load_state(tmp_path / "last.pt"))
    report = again.advance()[1]
    assert report.epoch == 2
    assert same(again.weights(1)["network"], trained(method, task))
    assert same(stack.weights(0)["network"], trained(method, task))


def test_neighbours_do_not_matter_and_chance_is_left_alone(method: TorchMethod, task: Task):
    stack = students(method, task, slots=3)
    stack.put_in(0, settings(method, alpha=2.0), seed=1)
    stack.put_in(2, settings(method), seed=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for _ in range(2):
        assert set(stack.advance()) == {0, 2}
    assert torch.equal(torch.get_rng_state(), before)
    assert same(stack.weights(2)["network"], trained(method, task))
    with pytest.raises(ValueError, match="slot 2 of 3 is occupied"):
        stack.put_in(2, settings(method), seed=0)


def test_the_teacher_moves_its_students(method: TorchMethod, task: Task):
    alone = trained(method, task, alpha=0.0)
    assert same(alone, trained(method, task, alpha=0.0, temperature=9.0))
    one, other = (trained(method, task, alpha=1.0, temperature=t) for t in (0.01, 9.0))
    assert not same(alone, one)
    assert not same(one, other)


def test_who_diverges_is_out_and_nobody_else(method: TorchMethod, task: Task):
    stack = students(method, task, slots=2)
    stack.put_in(0, settings(method, lr=1e30), seed=1)
    stack.put_in(1, settings(method), seed=3)
    outcome = stack.advance()
    assert not finite(outcome[0])
    assert finite(outcome[1])
    stack.take_out(0)
    assert set(stack.advance()) == {1}
    assert same(stack.weights(1)["network"], trained(method, task))


def test_weights_score_by_themselves(method: TorchMethod, task: Task, tmp_path: Path):
    teacher, targets = task.teacher, task.targets
    x = DATA.test.x
    save_state(tmp_path / "model.pt", teacher)
    scores = method.score(load_state(tmp_path / "model.pt"), x, CPU)
    assert scores.shape == (len(x),)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, method.score(teacher, x, CPU))
    made = torch.from_numpy(targets["reconstruction"])
    errors = (made - torch.from_numpy(DATA.training.train)).square().flatten(1)
    worst = errors.topk(3).values.mean(dim=1).numpy()
    expected = method.score(teacher, DATA.training.train, CPU)
    np.testing.assert_allclose(worst, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"beats of shape \(1, 32\), not \(1, 16\)"):
        method.score(teacher, x[..., :16], CPU)


def test_another_text_of_a_method_is_another_teacher(tmp_path: Path, method: TorchMethod):
    teacher = method.teacher_settings()
    before = fingerprint(method, teacher, DATA, CPU)
    assert fingerprint(method, teacher, DATA, CPU) == before
    file = Path(__import__(type(method).__module__).__file__)
    file.write_text(DROPOUT.replace("0.3", "0.4"))
    assert fingerprint(method, teacher, DATA, CPU) != before
    file.write_text(DROPOUT)


def test_the_example_is_a_space_of_its_own_method(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = load_space(EXAMPLE)
    assert config.method_name == "autoencoder:Autoencoder"
    assert list(config.searched()) == ["temperature", "alpha", "lr"]
