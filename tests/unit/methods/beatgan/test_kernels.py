"""The fused kernels against torch's own operators; runs where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdsearch.methods.beatgan import kernels, layers, losses
from kdsearch.methods.beatgan.layers import Norm

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and kernels.available()), reason="needs a GPU and Triton"
)
SHAPES = [(4, 8, 3, 5, 2), (2, 2, 2, 8, 1), (6, 10, 4, 64, 2), (64, 20, 2, 32, 2)]
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_calculate_what_torchs_operators_do(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    *sizes, parts = shape
    _, _, k, c = sizes
    rng = torch.Generator("cuda").manual_seed(0)

    def randn(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=rng, device="cuda")

    x, norm = (randn(*sizes) + 3).to(dtype), Norm(randn(k * c), randn(k * c))
    half = (sizes[0], sizes[1] // 2, k, 4 * c)
    of_windows, of_rows = randn(*half).to(dtype), randn(*sizes).to(dtype)

    def everything() -> list[Tensor]:
        windows, statistics = layers.activated_windows(x, norm, 0.2, parts)
        after, own = layers.activated(x, norm, 0.0, parts)
        assert statistics is not None
        assert own is not None
        back = layers.activated_backward(of_rows, after, x, norm, own, 0.0)
        inner = layers.normalise_backward(of_rows, x, norm, statistics)
        raw, _ = layers.activated_windows(x, None, 0.2)
        found = [windows, *statistics, after, back[0], *back[1], inner[0], *inner[1], raw]
        folded = layers.fold_activated(of_windows, raw, 0.2)
        return [*found, layers.fold(of_windows), folded]

    fast = everything()
    monkeypatch.setattr(kernels, "fits", lambda _: False)
    for found, expected in zip(fast, everything(), strict=True):
        # Sums over many rows have larger values than those of a row.
        scale = max(1.0, float(expected.abs().max()))
        error = float((found - expected).abs().max()) / scale
        assert error < CLOSE[dtype]


@pytest.mark.parametrize("dtype", list(CLOSE))
def test_feature_matching(dtype: torch.dtype) -> None:
    real, fake = torch.randn(2, 6, 10, 3, 20, device="cuda").to(dtype)
    weights = torch.tensor([0.5, 2.0, 0.0], device="cuda")
    full = [x.float().requires_grad_() for x in (real, fake)]
    expected = losses.feature_matching(*full)
    (gradient,) = torch.autograd.grad((weights * expected).sum(), full[1])
    found = kernels.feature_matching(real, fake.requires_grad_())
    (own,) = torch.autograd.grad((weights * found).sum(), fake)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own, gradient.to(dtype), rtol=0.02, atol=1e-5)


def test_rows_are_replaced_where_chosen() -> None:
    values, fresh = torch.rand(2, 3, 2100, device="cuda")
    before, low = values.clone(), torch.zeros(3, 2100, dtype=torch.bfloat16, device="cuda")
    kernels.replace(values, low, fresh, torch.tensor([False, True, False], device="cuda"))
    assert torch.equal(values[1], fresh[1])
    assert torch.equal(low[1], fresh[1].bfloat16())
    assert torch.equal(values[[0, 2]], before[[0, 2]])
    assert not low[[0, 2]].any()
