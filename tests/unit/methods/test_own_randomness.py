"""Dropout and noise that follow one student's seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdsearch.methods.own_randomness import OwnRandomness

X = torch.arange(1.0, 6001).reshape(30, 20, 10)


def drawn(seed: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    with OwnRandomness(seed):
        return (
            nn.Dropout(0.3)(x),
            nn.Dropout1d(0.5)(x),
            nn.Dropout(0.3, inplace=True)(x * 1),
            torch.rand_like(x),
            torch.randn_like(x),
        )


def test_a_seed_gives_the_same_numbers_in_any_company():
    seeds = torch.tensor([5, 2**62 + 1, 6])
    before = torch.get_rng_state()
    together = torch.vmap(drawn)(seeds, X.repeat(3, 1, 1, 1))
    for row, seed in enumerate(seeds):
        for one, rows in zip(drawn(seed, X), together, strict=True):
            assert torch.equal(one, rows[row])
    assert not torch.equal(together[0][0], together[0][2])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_are_those_of_the_functions_replaced():
    dropped, channels, inplace, uniform, normal = drawn(torch.tensor(1), X)
    for values in (dropped, inplace):
        kept = values != 0
        assert kept.float().mean() == pytest.approx(0.7, abs=0.02)
        torch.testing.assert_close(values[kept], X[kept] / 0.7)
    assert not torch.equal(dropped, inplace)
    whole = (channels != 0).float().mean(dim=2)
    assert set(whole.unique().tolist()) == {0, 1}
    with OwnRandomness(torch.tensor(1)):
        planes = nn.Dropout2d(0.5)(torch.ones(10, 20, 3, 4)).mean(dim=(2, 3))
        volumes = nn.Dropout3d(0.5)(torch.ones(10, 20, 2, 3, 4)).mean(dim=(2, 3, 4))
    for means in (planes, volumes):
        assert set(means.unique().tolist()) == {0, 2}
        assert means.mean() == pytest.approx(1, abs=0.2)
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert 0 < uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1
    assert normal.mean() == pytest.approx(0, abs=0.05)
    assert normal.std() == pytest.approx(1, abs=0.05)


def test_neighbouring_seeds_and_positions_are_independent():
    numbers = torch.stack([drawn(seed, X)[3].flatten() for seed in torch.arange(20)])
    limit = 5 / 6000**0.5
    assert (torch.corrcoef(numbers) - torch.eye(20)).abs().max() < limit
    neighbours = torch.stack([numbers[0, :-1], numbers[0, 1:]])
    assert torch.corrcoef(neighbours)[0, 1].abs() < limit


def test_evaluation_draws_nothing():
    with OwnRandomness(torch.tensor(1)):
        assert torch.equal(nn.Dropout(0.3).eval()(X), X)
        assert torch.equal(nn.Dropout(0.0)(X), X)
        assert not nn.Dropout(1.0)(X).any()
