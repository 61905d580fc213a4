"""What a GPU needs of the engine, as far as a CPU can tell."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from beatgan_cases import (
    CPU,
    DIFFERENT,
    break_generator,
    finite,
    identical,
    student,
    student_stack,
    training_data,
)
from torch.utils._python_dispatch import TorchDispatchMode

from kdsearch.methods.beatgan import engine, kernels
from kdsearch.methods.beatgan.settings import TAUGHT
from kdsearch.methods.beatgan.stack import BeatGanStack
from kdsearch.methods.protocol import Compute

ALL = "+".join(TAUGHT)
BF16 = Compute("cpu", "bf16")
TO_THE_HOST = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"}


class Recorder(TorchDispatchMode):
    """Counts the operators that calculate or copy something."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.overloadpacket.__name__
        if not (func.is_view or "empty" in name):
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def full_stack(slots: int, compute: Compute = CPU, **changes: object) -> BeatGanStack:
    stack = student_stack(slots, compute=compute, **changes)
    for slot in range(slots):
        scalars = DIFFERENT[slot % len(DIFFERENT)]
        stack.put_in(slot, student(**{**scalars, **changes}), seed=slot)
    return stack


def operators_of_a_step(slots: int, compute: Compute, **changes: object) -> Counter[str]:
    stack = full_stack(slots, compute, **changes)
    stack._engine._step()
    with Recorder() as recorder:
        stack._engine._step()
    return recorder.calls


@pytest.mark.parametrize("target", ["none", "published", "published_scores", ALL])
def test_a_step_has_as_many_operators_for_one_student_as_for_many(target: str) -> None:
    one, few, more, many = (
        operators_of_a_step(slots, BF16, target=target) for slots in (1, 2, 4, 16)
    )
    assert few == more == many
    # One student needs some copies less, because its values have no others between them.
    assert one.total() <= few.total() < 700


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_a_step_brings_nothing_to_the_host(slots: int) -> None:
    calls = operators_of_a_step(slots, CPU, target=ALL)
    assert not calls.keys() & TO_THE_HOST


def test_validation_waits_for_the_host_once() -> None:
    stack = full_stack(4)
    with Recorder() as recorder:
        stack._engine.scores(torch.from_numpy(training_data().validation.x))
    assert not recorder.calls.keys() & TO_THE_HOST


def buffers(stack: BeatGanStack) -> list[int]:
    """Where everything lies that a captured step reads and writes."""
    engine = stack._engine
    players = engine._players
    tensors = [engine._fresh, engine._redrawn, engine.rows, engine._temperature]
    tensors += [engine._weights.w_adv, engine._weights.alpha, *engine._sums.values()]
    for network in (players.generator, players.discriminator):
        tensors += [network.values, network.gradients, network.running, network._norms]
        tensors += network.matrices
    for adam in (players.generator_adam, players.discriminator_adam):
        tensors += [adam.lr, adam._age, adam._means, adam._squares]
    return [tensor.data_ptr() for tensor in tensors]


def test_entering_and_leaving_rebuild_nothing() -> None:
    stack = full_stack(3)
    stack.advance()
    before = buffers(stack)
    stack.take_out(1)
    stack.advance()
    stack.put_in(1, student(), seed=9)
    stack.advance()
    break_generator(stack, 0)
    stack.advance()
    stack.take_out(0)
    assert buffers(stack) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("width", [3, 4])
def test_no_neighbour_changes_a_bit_of_a_student(width: int, precision: str) -> None:
    """Neither another one, nor one that diverged, nor an empty slot."""
    compute = Compute("cpu", precision)
    crowded, other, broken, empty = (
        student_stack(4, compute=compute, width=width) for _ in range(4)
    )
    for stack in (crowded, other, broken, empty):
        stack.put_in(2, student(width=width, **DIFFERENT[1]), seed=2)
    for slot in (0, 1, 3):
        crowded.put_in(slot, student(width=width), seed=slot)
        other.put_in(slot, student(width=width, **DIFFERENT[2]), seed=10 + slot)
        broken.put_in(slot, student(width=width), seed=slot)
        break_generator(broken, slot, width=width)
    reports = [stack.advance() for stack in (crowded, other, broken, empty)]
    assert not any(finite(reports[2][slot]) for slot in (0, 1, 3))
    assert sorted(reports[3]) == [2]
    for stack, outcomes in zip((other, broken, empty), reports[1:], strict=True):
        assert identical(stack.save(2), crowded.save(2))
        assert outcomes[2].losses == reports[0][2].losses


def test_whoever_diverged_leaves_nothing_behind() -> None:
    stack = full_stack(2)
    break_generator(stack, 0)
    assert not finite(stack.advance()[0])
    stack.take_out(0)
    for network in (stack._engine._players.generator, stack._engine._players.discriminator):
        assert not network.values[0].any()
        assert not network.running[0].any()
    stack.advance()
    assert stack._engine._players.generator.values.isfinite().all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("score", ["plain", "relative", "mahalanobis"])
@pytest.mark.parametrize("target", [*TAUGHT, ALL, "published", "published_scores", "none"])
def test_every_target_and_score_in_a_stack_of_four(
    target: str, score: str, precision: str
) -> None:
    compute = Compute("cpu", precision)
    stack = full_stack(4, compute, target=target, score=score)
    for slot, outcome in stack.advance().items():
        distilled = "distillation" in outcome.losses
        assert distilled == (target != "none" and DIFFERENT[slot % 3]["alpha"] > 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("variable", [engine.NO_GRAPH, kernels.NO_TRITON])
def test_graphs_and_fused_kernels_train_as_single_operators_do(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses() -> list[dict[str, float]]:
        kernels.available.cache_clear()
        stack = full_stack(4, Compute("cuda", "fp32"), target=ALL)
        # 3 mini-batches an epoch: the second epoch is replayed.
        outcomes = [stack.advance() for _ in range(2)]
        return [outcome[slot].losses for outcome in outcomes for slot in range(4)]

    fast = losses()
    monkeypatch.setenv(variable, "1")
    for found, expected in zip(fast, losses(), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    kernels.available.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_is_captured_as_a_graph() -> None:
    stack = full_stack(2, Compute("cuda", "bf16"), target=ALL)
    stack.advance()
    step = stack._engine.step
    assert isinstance(step, engine.GraphedStep)
    assert step._graph is not None
