from __future__ import annotations

import pytest
import torch
from beatgan_cases import TINY

from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    expected_shapes,
    initial_state,
)

PUBLISHED = Architecture(width=32, latent=50, leads=1, length=320)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    x = torch.zeros(4, 2, length)
    with torch.no_grad():
        assert Generator(shape)(x).shape == x.shape
        discriminator = Discriminator(shape)
        assert discriminator(x).shape == (4, 1)
        assert discriminator.features(x).shape == (4, 32, length // 32)


@pytest.mark.parametrize("length", [0, 31, 321])
def test_length_must_be_a_multiple_of_32(length: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 32, not {length}"):
        Architecture(width=4, latent=5, leads=1, length=length)


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
