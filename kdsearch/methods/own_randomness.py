"""Dropout and noise that depend on one student's seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class OwnRandomness(TorchFunctionMode):
    """Context in which dropout, `torch.rand_like` and `torch.randn_like` use a given seed.

    torch's generators draw one sequence for all students of a stack, so that a student's
    numbers would depend on its neighbours. Here each number is a hash of seed, call and
    position: it can be calculated for many seeds at once, inside `torch.vmap` too. Other
    random functions are left as they are.

    Args:
        seed: An int64 scalar; a new one for each step.
    """

    def __init__(self, seed: Tensor) -> None:
        super().__init__()
        self._seed = seed
        self._calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the functions in `_REPLACEMENTS` and call all others."""
        replacement = _REPLACEMENTS.get(func)
        if replacement is None:
            return func(*args, **(kwargs or {}))
        return replacement(self, *args, **(kwargs or {}))

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return float32 numbers between 0 and 1, both excluded."""
        self._calls += 1
        # Murmur3's finaliser (Appleby, 2011), in 32 bits; torch shifts arithmetically, hence
        # the masks.
        seed = (self._seed + self._calls * 0x9E3779B9).bitwise_and(0x7FFFFFFF).to(torch.int32)
        bits = torch.arange(math.prod(shape), dtype=torch.int32, device=device)
        bits = bits * -1640531527 + seed
        bits = (bits ^ (bits >> 16 & 0xFFFF)) * -2048144789
        bits = (bits ^ (bits >> 13 & 0x7FFFF)) * -1028477387
        bits = (bits ^ (bits >> 16 & 0xFFFF)) >> 8 & 0xFFFFFF
        return ((bits.float() + 0.5) / 2**24).reshape(shape)


def _dropout(
    own: OwnRandomness,
    input: Tensor,  # noqa: A002
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    whole_channels: bool = False,
) -> Tensor:
    """Drop values, or whole channels of (B, channels, ...)."""
    if not training or p == 0:
        return input
    shape = tuple(input.shape)
    if whole_channels:
        shape = (*shape[:2], *(1 for _ in shape[2:]))
    kept = (own.uniform(shape, input.device) >= p).to(input.dtype)
    factor = kept / (1 - p) if p < 1 else kept
    return input.mul_(factor) if inplace else input * factor


_feature_dropout = partial(_dropout, whole_channels=True)


def _rand_like(own: OwnRandomness, x: Tensor, **options: Any) -> Tensor:
    return own.uniform(tuple(x.shape), x.device).to(options.get("dtype") or x.dtype)


def _randn_like(own: OwnRandomness, x: Tensor, **options: Any) -> Tensor:
    normal = torch.erfinv(own.uniform(tuple(x.shape), x.device) * 2 - 1) * math.sqrt(2)
    return normal.to(options.get("dtype") or x.dtype)


_REPLACEMENTS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.dropout: _dropout,
    functional.dropout1d: _feature_dropout,
    functional.dropout2d: _feature_dropout,
    functional.dropout3d: _feature_dropout,
    torch.rand_like: _rand_like,
    torch.randn_like: _randn_like,
}
