from __future__ import annotations

import pytest
import torch
from beatgan_cases import TINY

from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    build,
    expected_shapes,
    initial_state,
    put_student,
    take_student,
)

PUBLISHED = Architecture(width=32, latent=50, leads=1, length=320)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stacked(network: type, states: list) -> torch.nn.Module:
    stack = build(network, TINY, len(states), "cpu")
    for k, state in enumerate(states):
        put_student(stack, k, len(states), state)
    return stack


def test_published_names_and_shapes_of_the_generator() -> None:
    shapes = expected_shapes(Generator, PUBLISHED)
    assert shapes["encoder1.main.0.weight"] == (32, 1, 4)
    assert shapes["encoder1.main.2.weight"] == (64, 32, 4)
    assert shapes["encoder1.main.3.running_var"] == (64,)
    assert shapes["encoder1.main.14.weight"] == (50, 512, 10)
    assert shapes["decoder.main.0.weight"] == (50, 512, 10)
    assert shapes["decoder.main.3.weight"] == (512, 256, 4)
    assert shapes["decoder.main.15.weight"] == (32, 1, 4)
    assert len(shapes) == 12 + 4 * 9


def test_published_names_and_shapes_of_the_discriminator() -> None:
    shapes = expected_shapes(Discriminator, PUBLISHED)
    assert shapes["features.0.weight"] == (32, 1, 4)
    assert shapes["features.11.weight"] == (512, 256, 4)
    assert shapes["classifier.0.weight"] == (1, 512, 10)


@pytest.mark.parametrize(("network", "millions"), [(Generator, 1.9), (Discriminator, 0.7)])
def test_size_at_the_published_width(network: type, millions: float) -> None:
    with torch.device("meta"):
        parameters = network(PUBLISHED).parameters()
    assert sum(p.numel() for p in parameters) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("length", [32, 96, 320])
def test_output_shapes(length: int) -> None:
    shape = Architecture(width=2, latent=3, leads=2, length=length)
    x = torch.zeros(4, 3 * 2, length)
    with torch.no_grad():
        assert Generator(shape, 3)(x).shape == x.shape
        discriminator = Discriminator(shape, 3)
        assert discriminator(x).shape == (4, 3)
        assert discriminator.features(x).shape == (4, 3 * 32, length // 32)


@pytest.mark.parametrize("length", [0, 31, 321])
def test_length_must_be_a_multiple_of_32(length: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 32, not {length}"):
        Architecture(width=4, latent=5, leads=1, length=length)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_a_stack_computes_what_its_students_compute(network: type) -> None:
    states = [initial_state(network, TINY, rng(seed)) for seed in range(3)]
    x = torch.randn(6, 3, 32, generator=rng(9))
    together = stacked(network, states)(x)
    for k, state in enumerate(states):
        alone = stacked(network, [state])(x[:, k : k + 1])
        torch.testing.assert_close(together[:, k : k + 1], alone)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_putting_in_and_taking_out_keep_every_value(network: type) -> None:
    states = [initial_state(network, TINY, rng(seed)) for seed in range(3)]
    stack = stacked(network, states)
    for k, state in enumerate(states):
        taken = take_student(stack, k, 3)
        assert taken.keys() == expected_shapes(network, TINY).keys()
        torch.testing.assert_close(taken, dict(state), rtol=0, atol=0)


def test_initial_values_follow_the_published_distributions() -> None:
    state = initial_state(Generator, PUBLISHED, rng(0))
    weight = state["encoder1.main.8.weight"]
    fan_in, fan_out = 128 * 4, 256 * 4
    assert weight.std() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.02)
    assert state["encoder1.main.12.weight"].mean() == pytest.approx(1, abs=0.01)
    assert state["encoder1.main.12.weight"].std() == pytest.approx(0.02, rel=0.2)
    assert not state["encoder1.main.12.bias"].any()
    assert not state["encoder1.main.12.running_mean"].any()
    assert (state["encoder1.main.12.running_var"] == 1).all()


def test_initial_values_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = initial_state(Generator, TINY, rng(3))
    before = torch.get_rng_state()
    again = initial_state(Generator, TINY, rng(3))
    other = initial_state(Generator, TINY, rng(4))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["encoder1.main.0.weight"], other["encoder1.main.0.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_a_broken_student_leaves_its_neighbours_gradients_alone() -> None:
    states = [initial_state(Generator, TINY, rng(seed)) for seed in range(3)]
    x = torch.randn(6, 3, 32, generator=rng(9))
    whole = stacked(Generator, states)
    whole(x).square().sum().backward()
    states[1] = {name: torch.full_like(value, torch.nan) for name, value in states[1].items()}
    broken = stacked(Generator, states)
    broken(x).square().sum().backward()
    for sound, other in zip(whole.parameters(), broken.parameters(), strict=True):
        for k in (0, 2):
            torch.testing.assert_close(sound.grad.chunk(3)[k], other.grad.chunk(3)[k])
