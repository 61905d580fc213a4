"""Fused kernels for GPUs: what takes several passes over memory with torch alone.

Optional: torch brings Triton along with CUDA on Linux. Where it is missing or cannot compile,
`layers` and `optimiser` do the same with torch's own operators.
"""

# Kernels are compiled by Triton, which takes no annotations but its own.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0913, PLR0917

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    triton: Any
    tl: Any
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = tl = None

log = logging.getLogger(__name__)

# For looking into a GPU's trouble.
NO_TRITON = "KDSEARCH_NO_TRITON"
BLOCK = 1024

if triton is not None:

    @triton.jit
    def _windows(
        before,
        weight,
        bias,
        mean,
        inverse,
        found,
        slope,
        numel,
        beats: tl.constexpr,
        length: tl.constexpr,
        students: tl.constexpr,
        channels: tl.constexpr,
        normal: tl.constexpr,
        block: tl.constexpr,
    ):
        index = tl.program_id(0) * block + tl.arange(0, block)
        inside = index < numel
        channel = index % channels
        tap = index // channels % 4
        student = index // (4 * channels) % students
        place = index // (4 * channels * students)
        sample = place % (length // 2) * 2 + tap - 1
        beat = place // (length // 2)
        column = student * channels + channel
        real = inside & (sample >= 0) & (sample < length)
        source = (beat * length + sample) * (students * channels) + column
        x = tl.load(before + source, real, 0).to(tl.float32)
        if normal:
            own = beat // beats * (students * channels) + column
            scale = tl.load(inverse + own, real, 0) * tl.load(weight + column, real, 0)
            x = (x - tl.load(mean + own, real, 0)) * scale + tl.load(bias + column, real, 0)
        x = tl.where(x > 0, x, x * slope)
        tl.store(found + index, tl.where(real, x, 0).to(found.dtype.element_ty), inside)

    @triton.jit
    def _fold(
        gradient,
        activated,
        found,
        slope,
        numel,
        length: tl.constexpr,
        students: tl.constexpr,
        channels: tl.constexpr,
        mask: tl.constexpr,
        block: tl.constexpr,
    ):
        index = tl.program_id(0) * block + tl.arange(0, block)
        inside = index < numel
        channel = index % channels
        student = index // channels % students
        sample = index // (channels * students) % length
        beat = index // (channels * students * length)
        window = (sample + 1) // 2
        tap = (sample + 1) % 2
        row = beat * (length // 2) + window
        first = ((row * students + student) * 4 + tap) * channels + channel
        # One window earlier, two taps later.
        second = first - 4 * students * channels + 2 * channels
        x = tl.load(gradient + first, inside & (window < length // 2), 0).to(tl.float32)
        x += tl.load(gradient + second, inside & (window > 0), 0).to(tl.float32)
        if mask:
            # An activation is tap 1 or 2 of the window that begins at or before its sample.
            row = beat * (length // 2) + sample // 2
            own = ((row * students + student) * 4 + sample % 2 + 1) * channels + channel
            y = tl.load(activated + own, inside, 0).to(tl.float32)
            x = tl.where(y > 0, x, x * slope)
        tl.store(found + index, x.to(found.dtype.element_ty), inside)

    @triton.jit
    def _adam(
        values,
        low,
        gradient,
        means,
        squares,
        pace,
        epsilon,
        beta1,
        beta2,
        columns,
        block: tl.constexpr,
    ):
        # K rows of millions may be more than 32 bits can count.
        row = tl.program_id(1).to(tl.int64)
        column = tl.program_id(0) * block + tl.arange(0, block)
        inside = column < columns
        index = row * columns + column
        g = tl.load(gradient + index, inside, 0).to(tl.float32)
        m = tl.load(means + index, inside, 0)
        v = tl.load(squares + index, inside, 0)
        m += (g - m) * (1 - beta1)
        v = v * beta2 + g * g * (1 - beta2)
        change = m / (tl.sqrt(v) + tl.load(epsilon + row)) * tl.load(pace + row)
        p = tl.load(values + index, inside, 0) - change
        tl.store(means + index, m, inside)
        tl.store(squares + index, v, inside)
        tl.store(values + index, p, inside)
        tl.store(low + index, p.to(low.dtype.element_ty), inside)

    @triton.jit
    def _replace(values, low, fresh, chosen, columns, block: tl.constexpr):
        row = tl.program_id(1).to(tl.int64)
        if tl.load(chosen + row) != 0:
            column = tl.program_id(0) * block + tl.arange(0, block)
            inside = column < columns
            x = tl.load(fresh + row * columns + column, inside, 0)
            tl.store(values + row * columns + column, x, inside)
            tl.store(low + row * columns + column, x.to(low.dtype.element_ty), inside)


@cache
def available() -> bool:
    """Whether kernels can be compiled and run here; Triton needs a C compiler for that."""
    if triton is None or os.environ.get(NO_TRITON):
        return False
    try:
        value = torch.zeros(1, 1, device="cuda")
        replace(value, value, value, torch.ones(1, dtype=torch.bool, device="cuda"))
    except Exception as error:  # noqa: BLE001 (its compiler raises errors of many kinds)
        log.warning("no fused kernels, training will be slower: %s", error)
        return False
    return True


def fits(x: Tensor) -> bool:
    """Whether these kernels can take a tensor: on a GPU, and counted by 32 bits."""
    return x.is_cuda and 2 * x.numel() < 2**31 and available()


def activated_windows(
    before: Tensor,
    norm: tuple[Tensor, Tensor] | None,
    statistics: tuple[Tensor, Tensor] | None,
    slope: float,
    parts: int,
) -> Tensor:
    """Windows of a leaky ReLU of a BatchNorm of (B, L, K, C), see `layers.windows`.

    Args:
        before: Contiguous.
        norm: Weight and bias, shape (K * C,); None without a norm.
        statistics: Means and inverse standard deviations of each part of the beats, of shape
            (parts * K * C,).
        slope: Of the leaky ReLU.
        parts: Of the beats.
    """
    b, length, k, c = before.shape
    found = before.new_empty(b, length // 2, k, 4 * c)
    # What a kernel does not read has to be a tensor nevertheless.
    unread = before, before
    _windows[_grid(found)](
        before,
        *(norm or unread),
        *(statistics or unread),
        found,
        slope,
        found.numel(),
        beats=b // parts,
        length=length,
        students=k,
        channels=c,
        normal=norm is not None,
        block=BLOCK,
    )
    return found


def fold(gradient: Tensor, activated: Tensor | None = None, slope: float = 1.0) -> Tensor:
    """`layers.fold`, times the slope of the activation whose windows are given."""
    b, half, k, c = *gradient.shape[:3], gradient.shape[3] // 4
    found = gradient.new_empty(b, 2 * half, k, c)
    _fold[_grid(found)](
        gradient,
        gradient if activated is None else activated,
        found,
        slope,
        found.numel(),
        length=2 * half,
        students=k,
        channels=c,
        mask=activated is not None,
        block=BLOCK,
    )
    return found


def adam(
    values: Tensor,
    low: Tensor,
    gradient: Tensor,
    means: Tensor,
    squares: Tensor,
    pace: Tensor,
    epsilon: Tensor,
    *,
    betas: tuple[float, float],
) -> None:
    """Move rows of ``values`` and write them to ``low``; pace and epsilon by row."""
    rows, columns = values.shape
    grid = triton.cdiv(columns, BLOCK), rows
    arguments = values, low, gradient, means, squares, pace, epsilon, *betas, columns
    _adam[grid](*arguments, block=BLOCK)


def replace(values: Tensor, low: Tensor, fresh: Tensor, chosen: Tensor) -> None:
    """Overwrite the chosen rows of ``values`` and ``low``."""
    rows, columns = values.shape
    _replace[triton.cdiv(columns, BLOCK), rows](
        values, low, fresh, chosen, columns, block=BLOCK
    )


def _grid(found: Tensor) -> tuple[int]:
    return (triton.cdiv(found.numel(), BLOCK),)
