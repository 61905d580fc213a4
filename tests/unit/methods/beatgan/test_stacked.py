from __future__ import annotations

import pytest
import torch
from beatgan_cases import CPU, TINY
from torch import Tensor, nn

from kdsearch.methods.beatgan.layers import fold, unfold
from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    NetworkState,
    build,
    expected_shapes,
    initial_state,
)
from kdsearch.methods.beatgan.stacked import StackedDiscriminator, StackedGenerator
from kdsearch.methods.protocol import Compute

ODD = Architecture(width=3, latent=5, leads=2, length=64)
DOUBLE = torch.float64


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(network: type, architecture: Architecture, students: int = 3) -> list[NetworkState]:
    """Initial values whose running statistics are not those of a new network."""
    found = [initial_state(network, architecture, rng(seed)) for seed in range(students)]
    for seed, state in enumerate(found):
        for name, value in state.items():
            if "running" in name:
                value.add_(torch.rand(value.shape, generator=rng(seed)))
    return found


def generators(architecture: Architecture, compute: Compute = CPU) -> StackedGenerator:
    stack = StackedGenerator(architecture, 3, compute, DOUBLE)
    for k, state in enumerate(states(Generator, architecture)):
        stack.put(k, state)
    return stack


def discriminators(architecture: Architecture) -> StackedDiscriminator:
    stack = StackedDiscriminator(architecture, 3, CPU, DOUBLE)
    for k, state in enumerate(states(Discriminator, architecture)):
        stack.put(k, state)
    return stack


def module(network: type, architecture: Architecture, k: int) -> nn.Module:
    single = build(network, architecture)
    single.load_state_dict(states(network, architecture)[k])
    return single.double()


def beats(architecture: Architecture, n: int = 6, students: int = 3) -> Tensor:
    """Other ones for each student: (B, L, K, leads)."""
    shape = n, architecture.length, students, architecture.leads
    return torch.rand(shape, generator=rng(9), dtype=DOUBLE)


def of_student(x: Tensor, k: int) -> Tensor:
    """(B, L, K, C) to one student's (B, C, L)."""
    return x[:, :, k].transpose(1, 2)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad for name, value in network.named_parameters()}


def test_fold_is_the_adjoint_of_unfold() -> None:
    x, y = torch.rand(2, 8, 3, 5, dtype=DOUBLE), torch.rand(2, 4, 3, 20, dtype=DOUBLE)
    torch.testing.assert_close((unfold(x) * y).sum(), (x * fold(y)).sum())


@pytest.mark.parametrize("architecture", [TINY, ODD])
def test_generators_calculate_what_the_published_modules_do(architecture: Architecture) -> None:
    stack, x = generators(architecture), beats(architecture)
    found = stack.forward(x, stack.norms())
    stack.backward(2 * found.beats, stack.norms(), found)
    stack.track_pass(found)
    for k in range(3):
        single = module(Generator, architecture, k)
        fake = single(of_student(x, k))
        fake.square().sum().backward()
        torch.testing.assert_close(of_student(found.beats, k), fake.detach())
        torch.testing.assert_close(stack.named(stack.gradients[k]), gradients(single))
        torch.testing.assert_close(stack.take(k), single.state_dict(), check_dtype=False)


@pytest.mark.parametrize("architecture", [TINY, ODD])
def test_discriminators_calculate_what_the_published_modules_do(
    architecture: Architecture,
) -> None:
    stack, x = discriminators(architecture), beats(architecture, 12)
    features, passes = stack.features(x, stack.norms(), parts=2)
    logits = stack.logits(features)
    stack.backward(2 * logits, features, stack.norms(), passes)
    stack.track_pass(passes)
    for k in range(3):
        single = module(Discriminator, architecture, k)
        judged = torch.cat([single(half) for half in of_student(x, k).chunk(2)])
        judged.square().sum().backward()
        torch.testing.assert_close(logits[:, k], judged.detach()[:, 0])
        torch.testing.assert_close(stack.named(stack.gradients[k]), gradients(single))
        torch.testing.assert_close(stack.take(k), single.state_dict(), check_dtype=False)


@pytest.mark.parametrize("architecture", [TINY, ODD])
def test_gradients_of_features_reach_the_beats(architecture: Architecture) -> None:
    stack, x = discriminators(architecture), beats(architecture)
    features, passes = stack.features(x, stack.norms())
    found = stack.features_backward(2 * features, stack.norms(), passes)
    for k in range(3):
        single = module(Discriminator, architecture, k)
        own = of_student(x, k).clone().requires_grad_()
        single.features(own).square().sum().backward()
        torch.testing.assert_close(of_student(found, k), own.grad)


def test_evaluation_reads_the_running_statistics() -> None:
    stack, x = generators(ODD), beats(ODD)
    found = stack.forward(x, stack.evaluation_norms()).beats
    for k in range(3):
        single = module(Generator, ODD, k).eval()
        with torch.no_grad():
            torch.testing.assert_close(of_student(found, k), single(of_student(x, k)))


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_putting_in_and_taking_out_keep_every_value(network: type) -> None:
    kind = StackedGenerator if network is Generator else StackedDiscriminator
    stack, expected = kind(ODD, 3, CPU), states(network, ODD)
    for k, state in enumerate(expected):
        stack.put(k, state)
    for k, state in enumerate(expected):
        taken = stack.take(k)
        assert taken.keys() == expected_shapes(network, ODD).keys()
        torch.testing.assert_close(taken, dict(state), rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", [TINY, ODD])
def test_a_broken_student_changes_no_bit_of_its_neighbours(
    architecture: Architecture, precision: str
) -> None:
    compute = Compute("cpu", precision)
    sound, broken = (StackedGenerator(architecture, 3, compute) for _ in range(2))
    for k, state in enumerate(states(Generator, architecture)):
        sound.put(k, state)
        broken.put(k, {n: v.fill_(torch.nan) for n, v in state.items()} if k == 1 else state)
    x = beats(architecture).to(sound.matrices[0].dtype)
    for stack in (sound, broken):
        found = stack.forward(x, stack.norms())
        stack.backward(found.beats, stack.norms(), found)
        stack.track_pass(found)
    for k in (0, 2):
        assert torch.equal(sound.gradients[k], broken.gradients[k])
        assert torch.equal(sound.running[k], broken.running[k])
    assert broken.gradients[1].isnan().any()
