"""The fused kernels against torch's own operators; runs where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdsearch.methods.beatgan import kernels, layers
from kdsearch.methods.beatgan.layers import Norm

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and kernels.available()), reason="needs a GPU and Triton"
)
SHAPES = [(4, 8, 3, 5, 2), (2, 2, 2, 8, 1), (6, 10, 4, 64, 2)]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.05}


def plain(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Tensor]) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "fits", lambda _: False)
        return action()


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize(("b", "length", "k", "c", "parts"), SHAPES)
def test_windows_and_their_adjoint(
    b: int,
    length: int,
    k: int,
    c: int,
    parts: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = torch.Generator("cuda").manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, device="cuda")

    x, norm = randn(b, length, k, c).to(dtype), Norm(randn(k * c), randn(k * c))
    found = layers.activated_windows(x, norm, 0.2, parts)[0]
    expected = plain(monkeypatch, lambda: layers.activated_windows(x, norm, 0.2, parts)[0])
    torch.testing.assert_close(found, expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    raw = layers.activated_windows(x, None, 0.2)[0]
    assert torch.equal(
        raw, plain(monkeypatch, lambda: layers.activated_windows(x, None, 0.2)[0])
    )
    gradient = randn(*expected.shape).to(dtype)
    for action in (
        lambda: layers.fold(gradient),
        lambda: layers.fold_activated(gradient, expected, 0.2),
    ):
        torch.testing.assert_close(
            action(), plain(monkeypatch, action), rtol=CLOSE[dtype], atol=CLOSE[dtype]
        )


def test_rows_are_replaced_where_chosen() -> None:
    values, fresh = torch.rand(2, 3, 2100, device="cuda")
    before, low = values.clone(), torch.zeros(3, 2100, dtype=torch.bfloat16, device="cuda")
    kernels.replace(values, low, fresh, torch.tensor([False, True, False], device="cuda"))
    assert torch.equal(values[1], fresh[1])
    assert torch.equal(low[1], fresh[1].bfloat16())
    assert torch.equal(values[[0, 2]], before[[0, 2]])
    assert not low[[0, 2]].any()
