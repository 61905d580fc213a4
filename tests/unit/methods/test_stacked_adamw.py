"""AdamW on rows of their own age, rate and weight decay."""

from __future__ import annotations

import torch

from kdsearch.methods.stacked_adamw import StackedAdamW


def test_each_row_is_what_adamw_makes_of_it():
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(3, 7, generator=rng)
    rates, decays = [1e-3, 1e-1, 0.0], [0.0, 0.3, 0.3]
    alone = [torch.nn.Parameter(row.clone()) for row in values]
    optimisers = [
        torch.optim.AdamW([value], lr=lr, weight_decay=decay)
        for value, lr, decay in zip(alone, rates, decays, strict=True)
    ]
    stacked = StackedAdamW(values)
    lr, weight_decay = torch.tensor(rates).unsqueeze(1), torch.tensor(decays).unsqueeze(1)
    # The third enters three steps after the others.
    for n in [2, 2, 2, 3, 3, 3]:
        gradients = torch.randn(n, 7, generator=rng)
        stacked.step(gradients, lr=lr[:n], weight_decay=weight_decay[:n])
        for row in range(n):
            alone[row].grad = gradients[row].clone()
            optimisers[row].step()
    assert stacked.ages.flatten().tolist() == [6, 6, 3]
    torch.testing.assert_close(values, torch.stack([v.detach() for v in alone]))


def test_a_row_is_taken_and_put_elsewhere():
    stacked = StackedAdamW(torch.zeros(3, 4))
    lr, decay = torch.full((3, 1), 0.1), torch.zeros(3, 1)
    stacked.step(
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), lr=lr, weight_decay=decay
    )
    taken = stacked.take(1)
    stacked.put(0, taken)
    stacked.move(2, 1)
    stacked.put(2, None)
    for name, value in taken.items():
        rows = getattr(stacked, name)
        assert torch.equal(rows[0], value)
        assert not rows[2].any()
    assert not torch.equal(stacked.means[1], taken["means"])
