"""Layers of K students side by side, forward and backward, as few large operations.

Activations have shape (B, L, K, C): beats, samples, students, channels. A convolution of width
4, stride 2 and padding 1 is one batched matrix product over windows of 4 samples; a transposed
convolution is its adjoint. Every operation either has one batch per student or works on each
channel alone, so that no value of a student, not even NaN, can reach another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdsearch.methods.beatgan import kernels

aten = torch.ops.aten

TAPS = 4
MOMENTUM = 0.1
EPSILON = 1e-5


class Norm(NamedTuple):
    """A BatchNorm of K students, each vector of shape (K * C,).

    The running statistics are given in evaluation mode alone.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None


class Statistics(NamedTuple):
    """Mean and inverse standard deviation of one mini-batch, shape (K * C,) each."""

    mean: Tensor
    inverse: Tensor


def product(x: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each student's rows by its own matrix: (..., K, I) by (K, I, O)."""
    rows = x.reshape(-1, *x.shape[-2:])
    students, outputs = matrices.shape[0], matrices.shape[2]
    if students == 1 and _onednn_is_faster(x):
        found = _linear(rows[:, 0], matrices[0].mT)
    else:
        found = x.new_empty(len(rows), students, outputs)
        torch.bmm(rows.transpose(0, 1), matrices, out=found.transpose(0, 1))
    return found.view(*x.shape[:-1], outputs)


def outer_product(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Sum over all rows of x_i * y_j for each student, into ``out`` of shape (K, I, J)."""
    left, right = (v.reshape(-1, *v.shape[-2:]) for v in (x, y))
    if left.shape[1] == 1 and _onednn_is_faster(x):
        out[0].copy_(_linear(left[:, 0].mT, right[:, 0].mT))
    else:
        torch.bmm(left.permute(1, 2, 0), right.transpose(0, 1), out=out)


def padded(like: Tensor) -> Tensor:
    """Room for activations (B, L, K, C) between two samples of zeros: (B, L + 2, K, C)."""
    b, length, k, c = like.shape
    room = like.new_empty(b, length + 2, k, c)
    room[:, :: length + 1] = 0
    return room


def windows(room: Tensor) -> Tensor:
    """All windows of 4 samples, 2 apart: (B, L + 2, K, C) to (B, L / 2, K, 4 * C)."""
    b, samples, k, c = room.shape
    # Copied in words of 8 bytes where possible, because a strided copy costs by the element.
    word = torch.int64 if c * room.element_size() % 8 == 0 else room.dtype
    wide = room.view(word)
    width = wide.shape[-1]
    shape = (b, samples // 2 - 1, k, TAPS, width)
    stride = (samples * k * width, 2 * k * width, width, k * width, 1)
    copied = wide.as_strided(shape, stride).contiguous()
    return copied.view(*shape[:3], TAPS * width).view(room.dtype)


def unfold(x: Tensor) -> Tensor:
    """The same windows of activations that are not padded: (B, L, K, C)."""
    room = padded(x)
    room[:, 1:-1] = x
    return windows(room)


def fold(x: Tensor) -> Tensor:
    """The adjoint of `unfold`: (B, L / 2, K, 4 * C) to (B, L, K, C)."""
    if kernels.fits(x):
        return kernels.fold(x)
    b, half, k, c = *x.shape[:3], x.shape[3] // TAPS
    taps = x.view(b, half, k, TAPS, c).permute(0, 1, 3, 2, 4)
    found = x.new_empty(b, 2 * half, k, c)
    inner = found[:, 1:-1].view(b, half - 1, 2, k, c)
    torch.add(taps[:, 1:, :2], taps[:, :-1, 2:], out=inner)
    found[:, 0] = taps[:, 0, 1]
    found[:, -1] = taps[:, -1, 2]
    return found


def activated_windows(
    before: Tensor, norm: Norm | None, slope: float, parts: int = 1
) -> tuple[Tensor, list[Statistics]]:
    """Windows of the leaky ReLU of what `normalise` makes of (B, L, K, C).

    Without a norm the same of ``before`` itself.
    """
    if kernels.fits(before):
        return _fused_windows(before, norm, slope, parts)
    normal, statistics = before, list[Statistics]()
    if norm is not None:
        normal, statistics = normalise(before, norm, parts)
    room = padded(before)
    aten.leaky_relu.out(normal, slope, out=room[:, 1:-1])
    return windows(room), statistics


def fold_activated(x: Tensor, activated: Tensor, slope: float) -> Tensor:
    """`fold`, then the backward pass of the leaky ReLU that ``activated`` has windows of."""
    if kernels.fits(x):
        return kernels.fold(x, activated, slope)
    gradient = fold(x)
    b, half, k, c = *activated.shape[:3], activated.shape[3] // TAPS
    # Between them the two taps in the middle have every sample once.
    middle = activated.view(b, half, k, TAPS, c)[:, :, :, 1:3].transpose(2, 3)
    pairs = gradient.view(b, half, 2, k, c)
    aten.leaky_relu_backward.grad_input(pairs, middle, slope, True, grad_input=pairs)
    return gradient


def unfold_whole(x: Tensor) -> Tensor:
    """One window over all samples: (B, L, K, C) to (B, K, L * C)."""
    return x.transpose(1, 2).flatten(2)


def fold_whole(x: Tensor, length: int) -> Tensor:
    """The adjoint of `unfold_whole`."""
    b, k, _ = x.shape
    return x.view(b, k, length, -1).transpose(1, 2).contiguous()


def normalise(x: Tensor, norm: Norm, parts: int = 1) -> tuple[Tensor, list[Statistics]]:
    """BatchNorm over beats and samples; statistics of each of ``parts`` of the beats."""
    if norm.mean is not None:
        found, *_ = aten.native_batch_norm(_rows(x), *norm, False, MOMENTUM, EPSILON)
        return found.view(x.shape), []
    found, statistics = torch.empty_like(x), []
    for source, target in zip(x.chunk(parts), found.chunk(parts), strict=True):
        own = Statistics(torch.empty_like(norm.weight), torch.empty_like(norm.weight))
        aten.native_batch_norm.out(
            _rows(source),
            *norm,
            True,
            MOMENTUM,
            EPSILON,
            out=_rows(target),
            save_mean=own.mean,
            save_invstd=own.inverse,
        )
        statistics.append(own)
    return found, statistics


def normalise_backward(
    gradient: Tensor, x: Tensor, norm: Norm, statistics: list[Statistics], *, weights: bool
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Gradients of `normalise`: of its input, and of weight and bias for each part."""
    parts = len(statistics)
    found = [
        aten.native_batch_norm_backward(
            _rows(upper),
            _rows(source),
            norm.weight,
            None,
            None,
            *own,
            True,
            EPSILON,
            [True, weights, weights],
        )
        for upper, source, own in zip(
            gradient.chunk(parts), x.chunk(parts), statistics, strict=True
        )
    ]
    inputs = found[0][0] if parts == 1 else torch.cat([some[0] for some in found])
    return inputs.view(x.shape), [(weight, bias) for _, weight, bias in found]


def _fused_windows(
    before: Tensor, norm: Norm | None, slope: float, parts: int
) -> tuple[Tensor, list[Statistics]]:
    if norm is None:
        return kernels.activated_windows(before, None, None, slope, 1), []
    if norm.mean is not None and norm.variance is not None:
        own = Statistics(norm.mean, (norm.variance + EPSILON).rsqrt())
        return kernels.activated_windows(before, norm[:2], own, slope, 1), []
    statistics = [
        Statistics(*torch.batch_norm_stats(_rows(part), EPSILON))
        for part in before.chunk(parts)
    ]
    mean, inverse = (torch.cat(vectors) for vectors in zip(*statistics, strict=True))
    both = mean, inverse
    return kernels.activated_windows(before, norm[:2], both, slope, parts), statistics


def _rows(x: Tensor) -> Tensor:
    return x.flatten(2).flatten(0, 1)


def _onednn_is_faster(x: Tensor) -> bool:
    # torch multiplies float32 with MKL, which on other processors than Intel's is half as fast.
    return x.dtype == torch.float32 and x.device.type == "cpu" and _HAS_ONEDNN


_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return found
