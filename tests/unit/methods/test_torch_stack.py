"""Students as rows of the same tensors: their numbers, and what a step takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from beatgan_cases import finite
from part_cases import check_parts
from search_cases import CPU, tiny_dataset
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from kdsearch.data.beats import BeatShape
from kdsearch.methods import torch_stack
from kdsearch.methods.memory import Memory
from kdsearch.methods.memory.settings import StudentSettings as MemoryStudent
from kdsearch.methods.memory.settings import TeacherSettings as MemoryTeacher
from kdsearch.methods.protocol import State, Task
from kdsearch.methods.stacked_adamw import StackedAdamW
from kdsearch.methods.torch_method import StudentSettings, TorchMethod
from kdsearch.methods.torch_stack import TorchStack

DATA = tiny_dataset().training
# Each of them brings a value to the host.
WAITING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select"}


class Settings(StudentSettings):
    batch_size: int = 8
    alpha: float = 0.5
    dropout: float = 0.2
    power: int = 2


class Layers(nn.Module):
    """Dropout, batch normalisation, tied weights, a constant, and a buffer that is replaced."""

    def __init__(self, settings: Settings, length: int) -> None:
        super().__init__()
        # A bias before a normalisation has no gradient but rounding, which Adam makes large.
        self.enter = nn.Linear(length, 6, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(settings.dropout)
        self.leave = nn.Linear(6, length, bias=False)
        self.again = nn.Linear(6, length, bias=False)
        self.again.weight = self.leave.weight
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + len(x)
        hidden = self.dropout(self.norm(self.enter(x.flatten(1))).relu())
        return ((self.leave(hidden) + self.again(hidden)) * self.scale).view_as(x)


class Own(TorchMethod):
    name = "own"
    student_settings = Settings
    teacher_settings = Settings
    per_student = frozenset({"alpha", "lr", "weight_decay"})

    def network(self, settings: Any, shape: BeatShape) -> nn.Module:
        return Layers(settings, shape.length)

    def scores(self, network: nn.Module, x: Tensor) -> Tensor:
        return (network(x) - x).square().mean(dim=(1, 2))

    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        made = network(x)
        return {"mse": functional.mse_loss(made, x), "size": made.square().mean()}

    def term_weights(self, settings: Any) -> Mapping[str, Any]:
        return {"size": settings.alpha}


class Refusing(Own):
    """Losses that vmap cannot follow: a value decides, and a number is drawn."""

    name = "refusing"

    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        made = network(x + 0.01 * torch.normal(torch.zeros_like(x)))
        loss = functional.mse_loss(made, x)
        return {"mse": loss if loss > 0 else loss * 2}


class Looking(Own):
    """The same losses, which look at a value."""

    name = "looking"

    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        terms = super().losses(network, x, settings, taught)
        assert terms["mse"].detach().item() >= 0
        return terms


def stack_of(method: TorchMethod, slots: int, **fixed: Any) -> TorchStack:
    return TorchStack(method, Settings(**fixed), slots, Task(DATA, CPU))


def memory_stack(slots: int) -> TorchStack:
    method, settings = Memory(), MemoryStudent(width=8, components=5, batch_size=8, epochs=3)
    teacher = MemoryTeacher(components=5)
    stack = method.teacher_stack(teacher, Task(DATA, CPU))
    stack.put_in(0, teacher, seed=0)
    stack.advance()
    task = Task(DATA, CPU, stack.weights(0))
    task = replace(task, targets=method.targets([settings], task))
    return method.student_stack(settings, slots, task)


def fill(stack: TorchStack, students: int) -> TorchStack:
    for slot in range(students):
        settings = stack._settings.model_copy(update={"lr": 0.01 / (slot + 1)})
        stack.put_in(slot, settings, seed=slot)
    return stack


def close(one: State, other: State) -> None:
    for name, value in one["network"].items():
        torch.testing.assert_close(value, other["network"][name], rtol=1e-4, atol=1e-5)


def equal(one: State, other: State) -> bool:
    return all(torch.equal(v, other["network"][name]) for name, v in one["network"].items())


class Operators(TorchDispatchMode):
    """Names of all operators, and where a step of the optimiser ends."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operators_of_a_step(stack: TorchStack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    stack.advance()
    counted = Operators()
    step = StackedAdamW.step

    def marked(*args: Any, **options: Any) -> None:
        step(*args, **options)
        counted.names.append("end of a step")

    monkeypatch.setattr(StackedAdamW, "step", marked)
    with counted:
        stack.advance()
    monkeypatch.undo()
    ends = [i for i, name in enumerate(counted.names) if name == "end of a step"]
    return counted.names[ends[-2] + 1 : ends[-1]]


@pytest.mark.parametrize(
    "make", [lambda k: stack_of(Own(), k), memory_stack], ids=["own", "memory"]
)
def test_a_step_takes_as_many_operators_for_many_as_for_one(make: Any, monkeypatch: Any):
    one, few, many = (operators_of_a_step(fill(make(k), k), monkeypatch) for k in (1, 4, 16))
    assert few == many
    assert len(one) <= len(few)
    assert "bmm" in many
    for names in (one, few, many):
        assert not WAITING & set(names)


@pytest.mark.parametrize(
    "make", [lambda k: stack_of(Own(), k), memory_stack], ids=["own", "memory"]
)
def test_entering_and_leaving_copy_and_rebuild_nothing(make: Any):
    stack = fill(make(4), 3)
    stack.advance()
    rows, places = stack._rows, [t.data_ptr() for t in stack._rows.first(4)[0].values()]
    kept = {slot: stack.weights(slot) for slot in (1, 2)}
    stack.take_out(0)
    stack.put_in(3, stack._settings, seed=9)
    assert stack._rows is rows
    assert [t.data_ptr() for t in stack._rows.first(4)[0].values()] == places
    assert all(equal(kept[slot], stack.weights(slot)) for slot in (1, 2))
    assert stack.advance().keys() == {1, 2, 3}
    with pytest.raises(ValueError, match="slot 0 is empty"):
        stack.take_out(0)


@pytest.mark.parametrize(
    "make",
    [lambda k: stack_of(Own(), k), lambda k: stack_of(Refusing(), k), memory_stack],
    ids=["own", "refusing", "memory"],
)
def test_a_students_numbers_are_its_own(make: Any):
    alone, few, others, broken = (make(4) for _ in range(4))
    base = alone._settings
    for stack in (few, others, broken):
        stack.put_in(0, base.model_copy(update={"lr": 0.02}), seed=1)
    few.put_in(1, base.model_copy(update={"alpha": 0.9}), seed=2)
    others.put_in(1, base.model_copy(update={"lr": 0.5}), seed=5)
    broken.put_in(1, base.model_copy(update={"lr": float("nan")}), seed=5)
    for stack in (alone, few, others, broken):
        stack.put_in(3, base, seed=3)
    reports = [stack.advance() for stack in (alone, few, others, broken)]
    assert not finite(reports[3][1])
    assert reports[1][3].losses == reports[2][3].losses == reports[3][3].losses
    assert reports[0][3].losses == pytest.approx(reports[1][3].losses, rel=1e-4)
    # Of equal size, equal to the last bit.
    assert equal(few.weights(3), others.weights(3))
    assert equal(few.weights(3), broken.weights(3))
    close(alone.weights(3), few.weights(3))


def test_one_by_one_gives_the_same_numbers(caplog: pytest.LogCaptureFixture):
    torch_stack._say.cache_clear()
    together, one_by_one = stack_of(Own(), 3), stack_of(Looking(), 3)
    with caplog.at_level(logging.WARNING):
        for stack in (together, one_by_one):
            fill(stack, 3)
            for _ in range(2):
                assert all(finite(trained) for trained in stack.advance().values())
    for slot in range(3):
        close(together.weights(slot), one_by_one.weights(slot))
    (record,) = caplog.records
    assert "losses of students are computed one by one: torch.vmap" in record.message


def test_buffers_tied_weights_and_constants_are_saved(tmp_path: Any):
    stack = fill(stack_of(Own(), 2), 2)
    stack.advance()
    values = stack.weights(1)["network"]
    assert values.keys() == Layers(Settings(), 32).state_dict().keys()
    assert torch.equal(values["leave.weight"], values["again.weight"])
    assert values["scale"] == 2
    steps = len(DATA.train) // 8
    assert values["seen"] == 8 * steps
    assert values["norm.num_batches_tracked"] == steps
    assert not torch.equal(values["norm.running_mean"], torch.zeros(6))
    again = stack_of(Own(), 3)
    again.put_in(2, stack._settings, seed=0, state=stack.save(1))
    assert equal(again.weights(2), stack.weights(1))


@pytest.mark.parametrize(
    ("per_student", "change", "reason"),
    [
        ("dropout", {"dropout": 0.4}, "dropout.p of their networks differs"),
        ("power", {"power": 3}, "power differs and is not a float"),
    ],
)
def test_what_no_tensor_can_hold_is_calculated_one_by_one(
    per_student: str, change: Any, reason: str, caplog: pytest.LogCaptureFixture
):
    torch_stack._say.cache_clear()
    method = Own()
    method.per_student = method.per_student | {per_student}
    stack, alone = stack_of(method, 2), stack_of(method, 2)
    stack.put_in(0, Settings(), seed=0)
    with caplog.at_level(logging.WARNING):
        stack.advance()
        assert not caplog.records
        stack.put_in(1, Settings(**change), seed=3)
        stack.advance()
    assert reason in caplog.text
    alone.put_in(0, Settings(**change), seed=3)
    alone.advance()
    close(stack.weights(1), alone.weights(0))


def test_a_step_on_a_cpu_seeds_no_other_device(monkeypatch: pytest.MonkeyPatch):
    """torch would keep a traceback of each call, which takes a tenth of a small step."""
    stack = fill(stack_of(Refusing(), 1), 1)
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("seeds all devices"))
    assert finite(stack.advance()[0])


def test_an_error_of_the_users_own_is_raised():
    class Wrong(Own):
        def losses(self, *_: Any) -> dict[str, Tensor]:
            raise KeyError("no such target")

    with pytest.raises(KeyError, match="no such target"):
        fill(stack_of(Wrong(), 2), 2).advance()


def test_other_structures_and_types_are_refused():
    stack = stack_of(Own(), 1)
    with pytest.raises(ValueError, match=r"dropout is 0\.2 in this stack, not 0\.3"):
        stack.put_in(0, Settings(dropout=0.3), seed=0)
    with pytest.raises(ValueError, match="settings of type Settings expected, not StudentS"):
        stack.put_in(0, StudentSettings(), seed=0)

    class Double(Own):
        def network(self, settings: Any, shape: BeatShape) -> nn.Module:
            return super().network(settings, shape).double()

    with pytest.raises(ValueError, match=r"parameter enter\.weight is torch\.float64"):
        fill(stack_of(Double(), 1), 1)


@pytest.mark.parametrize("new_stack", [lambda: stack_of(Own(), 2), lambda: memory_stack(2)])
def test_an_epoch_in_parts_ends_as_a_whole_one(new_stack: Callable[[], TorchStack]) -> None:
    settings = new_stack()._settings
    check_parts(new_stack, [settings.model_copy(update={"lr": lr}) for lr in (0.01, 0.005)])
