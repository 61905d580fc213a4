from __future__ import annotations

import torch
from beatgan_cases import CPU, TINY
from torch import Tensor, nn

from kdsearch.methods.beatgan.networks import Discriminator, NetworkState, build, initial_state
from kdsearch.methods.beatgan.optimiser import StackedAdam, new_adam_state
from kdsearch.methods.beatgan.stacked import Parameters, StackedDiscriminator

Gradients = dict[str, Tensor]


def state(seed: int) -> NetworkState:
    return initial_state(Discriminator, TINY, torch.Generator().manual_seed(seed))


def stack_of(seeds: list[int], lr: list[float]) -> tuple[Parameters, StackedAdam]:
    network = StackedDiscriminator(TINY, len(seeds), CPU)
    adam = StackedAdam(network, 0.5)
    for k, seed in enumerate(seeds):
        network.put(k, state(seed))
        adam.lr[k] = lr[k]
    return network, adam


def single(seed: int) -> nn.Module:
    network = build(Discriminator, TINY)
    network.load_state_dict(state(seed))
    return network


def gradients(seed: int) -> Gradients:
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=rng) for n, p in single(0).named_parameters()}


def step(network: Parameters, adam: StackedAdam, *of_students: Gradients) -> None:
    for k, given in enumerate(of_students):
        network.gradients[k] = network.row(given)
    adam.step()


def values(network: Parameters, k: int) -> Gradients:
    return network.named(network.values[k])


def reference(seed: int, lr: float, steps: list[Gradients]) -> Gradients:
    network = single(seed)
    adam = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), eps=1e-8)
    for given in steps:
        for name, parameter in network.named_parameters():
            parameter.grad = given[name]
        adam.step()
    return {name: p.detach() for name, p in network.named_parameters()}


def test_one_student_moves_as_torch_moves_it() -> None:
    network, adam = stack_of([1], [1e-2])
    steps = [gradients(seed) for seed in range(3)]
    for given in steps:
        step(network, adam, given)
    torch.testing.assert_close(values(network, 0), reference(1, 1e-2, steps))


def test_students_of_different_age_and_rate_move_as_if_alone() -> None:
    old = [gradients(seed) for seed in range(4)]
    young = [gradients(seed) for seed in range(10, 12)]
    first, alone = stack_of([1], [1e-2])
    for given in old[:2]:
        step(first, alone, given)
    both, adam = stack_of([1, 2], [1e-2, 3e-3])
    both.put(0, first.take(0))
    adam.put(0, alone.take(0))
    for one, other in zip(old[2:], young, strict=True):
        step(both, adam, one, other)
    torch.testing.assert_close(values(both, 0), reference(1, 1e-2, old))
    torch.testing.assert_close(values(both, 1), reference(2, 3e-3, young))
    assert [adam.take(k)["step"] for k in (0, 1)] == [4, 2]


def test_taken_moments_are_copies_with_single_shapes() -> None:
    both, adam = stack_of([1, 2], [1e-2, 1e-2])
    step(both, adam, gradients(0), gradients(0))
    taken = adam.take(1)
    shapes = {name: value.shape for name, value in single(2).named_parameters()}
    assert {name: value.shape for name, value in taken["exp_avg"].items()} == shapes
    before = taken["exp_avg"]["classifier.0.weight"].clone()
    step(both, adam, gradients(1), gradients(1))
    assert torch.equal(before, taken["exp_avg"]["classifier.0.weight"])


def test_a_learning_rate_of_zero_keeps_every_value() -> None:
    both, adam = stack_of([1, 2], [1e-2, 0.0])
    step(both, adam, gradients(0), gradients(1))
    torch.testing.assert_close(
        values(both, 1), reference(2, 0.0, [gradients(1)]), rtol=0, atol=0
    )


def test_putting_in_a_new_student_forgets_the_old_moments() -> None:
    network, adam = stack_of([1], [1e-2])
    step(network, adam, gradients(0))
    adam.put(0, new_adam_state())
    assert adam.take(0)["step"] == 0
    assert not any(value.any() for value in adam.take(0)["exp_avg_sq"].values())
