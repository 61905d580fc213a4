from __future__ import annotations

import torch
from beatgan_cases import TINY
from torch import Tensor, nn

from kdsearch.methods.beatgan.networks import Discriminator, build, initial_state, put_student
from kdsearch.methods.beatgan.optimiser import StackedAdam, new_adam_state


def stack_of(seeds: list[int]) -> Discriminator:
    stack = build(Discriminator, TINY, len(seeds), "cpu")
    for k, seed in enumerate(seeds):
        state = initial_state(Discriminator, TINY, torch.Generator().manual_seed(seed))
        put_student(stack, k, len(seeds), state)
    return stack


def gradients(network: nn.Module, seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=rng) for p in network.parameters()]


def joined(*parts: list[Tensor]) -> list[Tensor]:
    return [torch.cat(rows) for rows in zip(*parts, strict=True)]


def reference(network: nn.Module, lr: float, steps: list[list[Tensor]]) -> list[Tensor]:
    adam = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), eps=1e-8)
    for step in steps:
        for parameter, gradient in zip(network.parameters(), step, strict=True):
            parameter.grad = gradient
        adam.step()
    return [p.detach() for p in network.parameters()]


def test_one_student_moves_as_torch_moves_it() -> None:
    network = stack_of([1])
    adam = StackedAdam(network, [1e-2], 0.5)
    steps = [gradients(network, seed) for seed in range(3)]
    for step in steps:
        adam.step(step)
    torch.testing.assert_close(
        [p.detach() for p in network.parameters()], reference(stack_of([1]), 1e-2, steps)
    )


def test_students_of_different_age_and_rate_move_as_if_alone() -> None:
    old = [gradients(stack_of([1]), seed) for seed in range(4)]
    young = [gradients(stack_of([2]), seed) for seed in range(10, 12)]
    alone = StackedAdam(first := stack_of([1]), [1e-2], 0.5)
    for step in old[:2]:
        alone.step(step)
    both = stack_of([1, 2])
    put_student(both, 0, 2, first.state_dict())
    adam = StackedAdam(both, [1e-2, 3e-3], 0.5)
    adam.put(0, alone.take(0))
    adam.put(1, new_adam_state())
    for step in map(joined, old[2:], young):
        adam.step(step)
    expected = joined(
        reference(stack_of([1]), 1e-2, old), reference(stack_of([2]), 3e-3, young)
    )
    torch.testing.assert_close([p.detach() for p in both.parameters()], expected)
    assert [adam.take(k)["step"] for k in (0, 1)] == [4, 2]


def test_taken_moments_are_copies_with_single_shapes() -> None:
    both = stack_of([1, 2])
    adam = StackedAdam(both, [1e-2, 1e-2], 0.5)
    adam.step(gradients(both, 0))
    taken = adam.take(1)
    shapes = {name: value.shape for name, value in stack_of([2]).named_parameters()}
    assert {name: value.shape for name, value in taken["exp_avg"].items()} == shapes
    before = taken["exp_avg"]["classifier.0.weight"].clone()
    adam.step(gradients(both, 1))
    assert torch.equal(before, taken["exp_avg"]["classifier.0.weight"])


def test_putting_in_a_new_student_forgets_the_old_moments() -> None:
    network = stack_of([1])
    adam = StackedAdam(network, [1e-2], 0.5)
    adam.step(gradients(network, 0))
    adam.put(0, new_adam_state())
    assert adam.take(0)["step"] == 0
    assert not any(value.any() for value in adam.take(0)["exp_avg_sq"].values())
