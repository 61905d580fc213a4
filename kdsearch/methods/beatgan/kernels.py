"""Fused GPU kernels for operations that need several passes over memory in torch.

Optional: on Linux, torch with CUDA includes Triton. If Triton is missing or cannot compile,
`layers` and `optimiser` use torch's operators instead.
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

# Environment variable for debugging: uses torch's operators instead.
NO_TRITON = "KDSEARCH_NO_TRITON"
# Elements per program: of a row, of a tile, and where sums of tiles are combined.
BLOCK = 1024
HEIGHT, WIDTH = 64, 64
JOINED_TILES, JOINED = 64, 16

Vectors = tuple[Tensor, Tensor]

if triton is not None:
    # Compiled once for all numbers of beats and students.

    @triton.jit(do_not_specialize=["beats", "length", "students"])
    def _windows(
        before,
        weight,
        bias,
        mean,
        inverse,
        found,
        slope,
        beats,
        length,
        students,
        channels: tl.constexpr,
        normal: tl.constexpr,
        block: tl.constexpr,
    ):
        place = tl.program_id(0)
        beat = place // (length // 2)
        first = place % (length // 2) * 2 - 1
        columns = students * channels
        index = tl.program_id(1) * block + tl.arange(0, block)
        inside = index < 4 * columns
        column = index // (4 * channels) * channels + index % channels
        sample = first + index // channels % 4
        real = inside & (sample >= 0) & (sample < length)
        x = tl.load(before + (beat * length + sample) * columns + column, real, 0)
        x = x.to(tl.float32)
        if normal:
            own = beat // beats * columns + column
            scale = tl.load(inverse + own, real, 0) * tl.load(weight + column, real, 0)
            x = (x - tl.load(mean + own, real, 0)) * scale + tl.load(bias + column, real, 0)
        x = tl.where(x > 0, x, x * slope)
        x = tl.where(real, x, 0).to(found.dtype.element_ty)
        tl.store(found + place * 4 * columns + index, x, inside)

    @triton.jit(do_not_specialize=["length", "students"])
    def _fold(
        gradient,
        activated,
        found,
        slope,
        length,
        students,
        channels: tl.constexpr,
        mask: tl.constexpr,
        block: tl.constexpr,
    ):
        place = tl.program_id(0)
        beat = place // length
        sample = place % length
        columns = students * channels
        index = tl.program_id(1) * block + tl.arange(0, block)
        inside = index < columns
        # The 4 taps of a student are contiguous.
        column = index // channels * 4 * channels + index % channels
        window = (sample + 1) // 2
        first = tl.where(window < length // 2, columns, 0)
        second = tl.where(window > 0, columns, 0)
        row = beat * (length // 2) + window
        source = gradient + row * 4 * columns + (sample + 1) % 2 * channels + column
        x = tl.load(source, index < first, 0).to(tl.float32)
        # One window earlier, two taps later.
        source += 2 * channels - 4 * columns
        x += tl.load(source, index < second, 0).to(tl.float32)
        if mask:
            # An activation is tap 1 or 2 of the window that begins at or before its sample.
            row = beat * (length // 2) + sample // 2
            own = row * 4 * columns + (sample % 2 + 1) * channels + column
            y = tl.load(activated + own, inside, 0).to(tl.float32)
            x = tl.where(y > 0, x, x * slope)
        tl.store(found + place * columns + index, x.to(found.dtype.element_ty), inside)

    # Matrices of beats and samples by students and channels, in tiles. All parts have the same
    # number of rows. Sums are computed tile by tile, so that they are reproducible.

    @triton.jit
    def _tile(rows, columns, height: tl.constexpr, width: tl.constexpr):
        row = tl.program_id(1) * height + tl.arange(0, height)
        column = tl.program_id(0) * width + tl.arange(0, width)
        part = tl.program_id(2)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        index = (part * rows + row)[:, None] * columns + column[None, :]
        return part, column, inside, index

    @triton.jit
    def _store_sums(x, y, sums, columns, part, column):
        own = (part * tl.num_programs(1) + tl.program_id(1)) * columns + column
        size = tl.num_programs(2) * tl.num_programs(1) * columns
        tl.store(sums + own, x, column < columns)
        tl.store(sums + size + own, y, column < columns)

    @triton.jit(do_not_specialize=["rows"])
    def _tile_statistics(x, sums, rows, columns, height: tl.constexpr, width: tl.constexpr):
        part, column, inside, index = _tile(rows, columns, height, width)
        value = tl.load(x + index, inside, 0).to(tl.float32)
        count = tl.minimum(rows - tl.program_id(1) * height, height)
        mean = tl.sum(value, 0) / count
        distance = tl.where(inside, value - mean[None, :], 0)
        _store_sums(mean, tl.sum(distance * distance, 0), sums, columns, part, column)

    @triton.jit(do_not_specialize=["rows"])
    def _join_statistics(
        sums,
        found,
        rows,
        columns,
        epsilon,
        tiles: tl.constexpr,
        height: tl.constexpr,
        width: tl.constexpr,
        block: tl.constexpr,
    ):
        column = tl.program_id(0) * width + tl.arange(0, width)
        part = tl.program_id(1)
        size = tl.num_programs(1) * tiles * columns
        mean = tl.zeros([width], tl.float32)
        for start in range(0, tiles, block):
            tile = start + tl.arange(0, block)
            inside = (tile < tiles)[:, None] & (column < columns)[None, :]
            own = (part * tiles + tile)[:, None] * columns + column[None, :]
            count = tl.minimum(rows - tile * height, height)[:, None]
            mean += tl.sum(tl.load(sums + own, inside, 0) * count, 0)
        mean = mean / rows
        squares = tl.zeros([width], tl.float32)
        for start in range(0, tiles, block):
            tile = start + tl.arange(0, block)
            inside = (tile < tiles)[:, None] & (column < columns)[None, :]
            own = (part * tiles + tile)[:, None] * columns + column[None, :]
            count = tl.minimum(rows - tile * height, height)[:, None]
            distance = tl.load(sums + own, inside, 0) - mean[None, :]
            spread = tl.load(sums + size + own, inside, 0) + count * distance * distance
            squares += tl.sum(tl.where(inside, spread, 0), 0)
        own = part * columns + column
        tl.store(found + own, mean, column < columns)
        inverse = 1 / tl.sqrt(squares / rows + epsilon)
        tl.store(found + tl.num_programs(1) * columns + own, inverse, column < columns)

    @triton.jit(do_not_specialize=["rows"])
    def _activate(
        x,
        weight,
        bias,
        mean,
        inverse,
        found,
        slope,
        rows,
        columns,
        height: tl.constexpr,
        width: tl.constexpr,
    ):
        part, column, inside, index = _tile(rows, columns, height, width)
        real = column < columns
        own = part * columns + column
        scale = tl.load(inverse + own, real, 0) * tl.load(weight + column, real, 0)
        centre, shift = tl.load(mean + own, real, 0), tl.load(bias + column, real, 0)
        y = tl.load(x + index, inside, 0).to(tl.float32)
        y = (y - centre[None, :]) * scale[None, :] + shift[None, :]
        y = tl.where(y > 0, y, y * slope)
        tl.store(found + index, y.to(found.dtype.element_ty), inside)

    @triton.jit
    def _load_backward(
        gradient,
        x,
        weight,
        bias,
        mean,
        inverse,
        slope,
        columns,
        part,
        column,
        inside,
        index,
        mask: tl.constexpr,
    ):
        # Returns the gradient of the norm's output, and its normalised input.
        real = column < columns
        own = part * columns + column
        g = tl.load(gradient + index, inside, 0).to(tl.float32)
        centre, pace = tl.load(mean + own, real, 0), tl.load(inverse + own, real, 0)
        normal = (tl.load(x + index, inside, 0).to(tl.float32) - centre[None, :]) * pace[
            None, :
        ]
        if mask:
            scale, shift = tl.load(weight + column, real, 0), tl.load(bias + column, real, 0)
            g = tl.where(normal * scale[None, :] + shift[None, :] > 0, g, g * slope)
        return g, tl.where(inside, normal, 0)

    @triton.jit(do_not_specialize=["rows"])
    def _tile_gradients(
        gradient,
        x,
        weight,
        bias,
        mean,
        inverse,
        sums,
        slope,
        rows,
        columns,
        mask: tl.constexpr,
        height: tl.constexpr,
        width: tl.constexpr,
    ):
        part, column, inside, index = _tile(rows, columns, height, width)
        g, normal = _load_backward(
            gradient,
            x,
            weight,
            bias,
            mean,
            inverse,
            slope,
            columns,
            part,
            column,
            inside,
            index,
            mask,
        )
        _store_sums(tl.sum(g * normal, 0), tl.sum(g, 0), sums, columns, part, column)

    @triton.jit
    def _join_sums(
        sums, found, columns, tiles: tl.constexpr, width: tl.constexpr, block: tl.constexpr
    ):
        column = tl.program_id(0) * width + tl.arange(0, width)
        part = tl.program_id(1)
        total = tl.zeros([width], tl.float32)
        for start in range(0, tiles, block):
            tile = start + tl.arange(0, block)
            inside = (tile < tiles)[:, None] & (column < columns)[None, :]
            own = (part * tiles + tile)[:, None] * columns + column[None, :]
            total += tl.sum(tl.load(sums + own, inside, 0), 0)
        tl.store(found + part * columns + column, total, column < columns)

    @triton.jit(do_not_specialize=["rows"])
    def _tile_distances(
        real, fake, sums, rows, columns, height: tl.constexpr, width: tl.constexpr
    ):
        _, column, inside, index = _tile(rows, columns, height, width)
        x = tl.load(real + index, inside, 0).to(tl.float32)
        x -= tl.load(fake + index, inside, 0).to(tl.float32)
        own = tl.program_id(1) * columns + column
        tl.store(sums + own, tl.sum(x * x, 0), column < columns)

    @triton.jit(do_not_specialize=["rows"])
    def _difference(
        real,
        fake,
        pace,
        found,
        rows,
        columns,
        channels: tl.constexpr,
        height: tl.constexpr,
        width: tl.constexpr,
    ):
        _, column, inside, index = _tile(rows, columns, height, width)
        scale = tl.load(pace + column // channels, column < columns, 0)
        x = tl.load(fake + index, inside, 0).to(tl.float32)
        x -= tl.load(real + index, inside, 0).to(tl.float32)
        x *= scale[None, :]
        tl.store(found + index, x.to(found.dtype.element_ty), inside)

    @triton.jit(do_not_specialize=["rows"])
    def _normalise_backward(
        gradient,
        x,
        weight,
        bias,
        mean,
        inverse,
        of_weight,
        of_bias,
        found,
        slope,
        rows,
        columns,
        mask: tl.constexpr,
        height: tl.constexpr,
        width: tl.constexpr,
    ):
        part, column, inside, index = _tile(rows, columns, height, width)
        g, normal = _load_backward(
            gradient,
            x,
            weight,
            bias,
            mean,
            inverse,
            slope,
            columns,
            part,
            column,
            inside,
            index,
            mask,
        )
        real = column < columns
        own = part * columns + column
        scale = tl.load(weight + column, real, 0) * tl.load(inverse + own, real, 0)
        along = tl.load(of_weight + own, real, 0) / rows
        level = tl.load(of_bias + own, real, 0) / rows
        g = (g - level[None, :] - normal * along[None, :]) * scale[None, :]
        tl.store(found + index, g.to(found.dtype.element_ty), inside)

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
        # The index may exceed 32 bits.
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
        # The first caller may be scoring, without gradients.
        with torch.inference_mode(False), torch.enable_grad():
            _try_all()
    except Exception as error:  # noqa: BLE001 (its compiler raises errors of many kinds)
        log.warning("no fused kernels, training will be slower: %s", error)
        return False
    return True


def _try_all() -> None:
    x = torch.ones(2, 4, 1, 16, dtype=torch.bfloat16, device="cuda")
    value = torch.ones(1, 16, device="cuda")
    norm, own = (value[0], value[0]), statistics(x, 1, 1e-5)
    found = activated_windows(x, norm, own, 0.2)
    fold(found, found, 0.2)
    normalise_backward(activated(x, norm, own, 0.2), x, norm, own, 0.2)
    features = x.clone().requires_grad_()
    torch.autograd.grad(feature_matching(x, features).sum(), features)
    rows = value[:, :1].contiguous()
    adam(value, value, value, value, value, rows, rows, betas=(0.5, 0.5))
    replace(value, value, value, rows > 0)
    torch.cuda.synchronize()


def fits(x: Tensor) -> bool:
    """Whether these kernels support a tensor: on a GPU, with fewer than 2**30 elements."""
    return x.is_cuda and 2 * x.numel() < 2**31 and available()


def activated_windows(
    before: Tensor,
    norm: Vectors | None,
    statistics: Vectors | None,
    slope: float,
) -> Tensor:
    """Apply BatchNorm and leaky ReLU to (B, L, K, C); return windows, see `layers.windows`.

    Args:
        before: Contiguous.
        norm: Weight and bias, shape (K * C,); None without a norm.
        statistics: Means and inverse standard deviations, shape (parts, K * C).
        slope: Of the leaky ReLU.
    """
    b, length, k, c = before.shape
    found = before.new_empty(b, length // 2, k, 4 * c)
    # Unused arguments of a kernel must be tensors, too.
    unread = before, before
    _windows[b * length // 2, triton.cdiv(4 * k * c, BLOCK)](
        before,
        *(norm or unread),
        *(statistics or unread),
        found,
        slope,
        b // len(statistics[0]) if statistics else b,
        length,
        k,
        channels=c,
        normal=norm is not None,
        block=BLOCK,
    )
    return found


def fold(gradient: Tensor, activated: Tensor | None = None, slope: float = 1.0) -> Tensor:
    """`layers.fold`, then the backward pass of the leaky ReLU with these windows."""
    b, half, k, c = *gradient.shape[:3], gradient.shape[3] // 4
    found = gradient.new_empty(b, 2 * half, k, c)
    _fold[b * 2 * half, triton.cdiv(k * c, BLOCK)](
        gradient,
        gradient if activated is None else activated,
        found,
        slope,
        2 * half,
        k,
        channels=c,
        mask=activated is not None,
        block=BLOCK,
    )
    return found


def statistics(x: Tensor, parts: int, epsilon: float) -> Vectors:
    """Compute means and inverse standard deviations over beats and samples, (parts, K * C)."""
    rows, columns, tiles, grid = _tiles(x, parts)
    sums = x.new_empty(2, parts, tiles, columns, dtype=torch.float32)
    _tile_statistics[grid](x, sums, rows, columns, height=HEIGHT, width=WIDTH)
    found = x.new_empty(2, parts, columns, dtype=torch.float32)
    _join_statistics[triton.cdiv(columns, JOINED), parts](
        sums,
        found,
        rows,
        columns,
        epsilon,
        tiles=tiles,
        height=HEIGHT,
        width=JOINED,
        block=JOINED_TILES,
    )
    return found[0], found[1]


def activated(x: Tensor, norm: Vectors, statistics: Vectors, slope: float) -> Tensor:
    """Apply a BatchNorm and a leaky ReLU."""
    rows, columns, _, grid = _tiles(x, len(statistics[0]))
    found = torch.empty_like(x)
    _activate[grid](
        x, *norm, *statistics, found, slope, rows, columns, height=HEIGHT, width=WIDTH
    )
    return found


def normalise_backward(
    gradient: Tensor, x: Tensor, norm: Vectors, statistics: Vectors, slope: float | None
) -> tuple[Tensor, Vectors]:
    """Compute gradients of a BatchNorm, followed by a leaky ReLU unless ``slope`` is None.

    Returns:
        That of the input, and those of weight and bias in each part, shape (parts, K * C).
    """
    parts = len(statistics[0])
    rows, columns, tiles, grid = _tiles(x, parts)
    sums = x.new_empty(2, parts, tiles, columns, dtype=torch.float32)
    inputs = gradient, x, *norm, *statistics
    mask, steepness = slope is not None, slope or 0.0
    _tile_gradients[grid](
        *inputs, sums, steepness, rows, columns, mask=mask, height=HEIGHT, width=WIDTH
    )
    vectors = x.new_empty(2, parts, columns, dtype=torch.float32)
    _join_sums[triton.cdiv(columns, JOINED), 2 * parts](
        sums, vectors, columns, tiles=tiles, width=JOINED, block=JOINED_TILES
    )
    found = torch.empty_like(x)
    _normalise_backward[grid](
        *inputs,
        vectors[0],
        vectors[1],
        found,
        steepness,
        rows,
        columns,
        mask=mask,
        height=HEIGHT,
        width=WIDTH,
    )
    return found, (vectors[0], vectors[1])


class _FeatureMatching(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, fake: Tensor) -> Tensor:
        """Compute one value per student; only ``fake`` can have a gradient."""
        ctx.save_for_backward(real, fake)
        rows, columns, tiles, grid = _tiles(real, 1)
        sums = real.new_empty(tiles, columns, dtype=torch.float32)
        _tile_distances[grid](real, fake, sums, rows, columns, height=HEIGHT, width=WIDTH)
        totals = real.new_empty(columns, dtype=torch.float32)
        _join_sums[triton.cdiv(columns, JOINED), 1](
            sums, totals, columns, tiles=tiles, width=JOINED, block=JOINED_TILES
        )
        return totals.view(real.shape[2], -1).mean(dim=1) / rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        """Shape and precision of ``fake``."""
        real, fake = ctx.saved_tensors
        rows, columns, _, grid = _tiles(real, 1)
        channels = real.shape[3]
        pace = gradients[0] * (2 / (rows * channels))
        found = torch.empty_like(fake)
        _difference[grid](
            real,
            fake,
            pace,
            found,
            rows,
            columns,
            channels=channels,
            height=HEIGHT,
            width=WIDTH,
        )
        return None, found


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """`losses.feature_matching` of contiguous features (B, L, K, C); gradient for ``fake``."""
    found: Tensor = _FeatureMatching.apply(real, fake)  # type: ignore[no-untyped-call]
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
    """Update rows of ``values`` and copy them to ``low``; pace and epsilon per row."""
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


def _tiles(x: Tensor, parts: int) -> tuple[int, int, int, tuple[int, int, int]]:
    """Return rows of a part, columns, tiles of a part, and the grid of all tiles."""
    columns = x.shape[-2] * x.shape[-1]
    rows = x.numel() // columns // parts
    tiles = triton.cdiv(rows, HEIGHT)
    return rows, columns, tiles, (triton.cdiv(columns, WIDTH), tiles, parts)
