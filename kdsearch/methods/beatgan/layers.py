"""Layers of K students, forward and backward, with few large operations.

Activations have shape (B, L, K, C): beats, samples, students, channels. A convolution of width
4, stride 2 and padding 1 is one batched matrix product over windows of 4 samples; a transposed
convolution is its adjoint. Every operation has one batch per student or works on each channel
separately, so that no value of a student, not even NaN, affects another.
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
# Channels up to which oneDNN's convolution is faster than a product over windows.
NARROW = 64


class Norm(NamedTuple):
    """A BatchNorm of K students, each vector of shape (K * C,).

    Running statistics are given only for evaluation.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None


class Statistics(NamedTuple):
    """Statistics of a mini-batch, or of each of its parts: shape (parts, K * C)."""

    mean: Tensor
    inverse: Tensor
    """Inverse standard deviation."""


NormGradients = tuple[Tensor, Tensor]
"""Gradients of weight and bias, shape (parts, K * C) each."""


def product(x: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each student's rows by its own matrix: (..., K, I) by (K, I, O).

    ``x`` may be activations instead of their windows, see `unfold`.
    """
    students, inputs, outputs = matrices.shape
    if inputs == TAPS * x.shape[-1]:
        return _convolve(x, matrices[0].T)
    if students == 1 and x.device.type == "cpu":
        rows, matrix = x.reshape(-1, inputs), matrices[0]
        found = _linear(rows, matrix.T) if _onednn_is_faster(x) else rows @ matrix
    else:
        rows = x.reshape(-1, students, inputs)
        found = x.new_empty(rows.shape[0], students, outputs)
        torch.bmm(rows.transpose(0, 1), matrices, out=found.transpose(0, 1))
    return found.view(*x.shape[:-1], outputs)


def outer_product(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Sum x_i * y_j over all rows for each student, into ``out`` of shape (K, I, J).

    ``y`` may be activations instead of their windows, see `unfold`.
    """
    students, left_size, right_size = out.shape
    if right_size == TAPS * y.shape[-1]:
        out[0].copy_(_convolution_weights(x, y))
        return
    if students > 1 or x.device.type != "cpu":
        left, right = (v.reshape(-1, *v.shape[-2:]) for v in (x, y))
        torch.bmm(left.permute(1, 2, 0), right.transpose(0, 1), out=out)
        return
    # One student on a CPU; measured at widths 8, 16 and 32.
    left, right = x.reshape(-1, left_size), y.reshape(-1, right_size)
    if not _onednn_is_faster(x):
        torch.mm(left.T, right, out=out[0])
    else:
        out[0].copy_(_linear(left.T, right.T))


def padded(like: Tensor) -> Tensor:
    """Allocate activations (B, L, K, C) between two samples of zeros: (B, L + 2, K, C)."""
    b, length, k, c = like.shape
    room = like.new_empty(b, length + 2, k, c)
    room[:, :: length + 1] = 0
    return room


def windows(room: Tensor) -> Tensor:
    """Copy all windows of 4 samples, 2 apart: (B, L + 2, K, C) to (B, L / 2, K, 4 * C)."""
    b, samples, k, c = room.shape
    # Copied in words of 8 bytes if possible: the time of a strided copy is per element.
    word = torch.int64 if c * room.element_size() % 8 == 0 else room.dtype
    wide = room.view(word)
    width = wide.shape[-1]
    shape = (b, samples // 2 - 1, k, TAPS, width)
    stride = (samples * k * width, 2 * k * width, width, k * width, 1)
    copied = wide.as_strided(shape, stride).contiguous()
    return copied.view(*shape[:3], TAPS * width).view(room.dtype)


def unfold(x: Tensor) -> Tensor:
    """Return windows of activations (B, L, K, C), or these if a convolution is faster."""
    if _convolves(x):
        return x
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
) -> tuple[Tensor, Statistics | None]:
    """Windows of `activated`; without a norm, those of the leaky ReLU alone."""
    if _convolves(before):
        if norm is None:
            return aten.leaky_relu(before, slope), None
        return activated(before, norm, slope, parts)
    if kernels.fits(before):
        own = None if norm is None else _statistics(before, norm, parts)
        pair = None if norm is None else (norm.weight, norm.bias)
        return kernels.activated_windows(before, pair, own, slope), own
    normal, statistics = before, None
    if norm is not None:
        normal, statistics = _normalise(before, norm, parts)
    room = padded(before)
    aten.leaky_relu.out(normal, slope, out=room[:, 1:-1])
    return windows(room), statistics


def fold_activated(x: Tensor, activated: Tensor, slope: float) -> Tensor:
    """`fold`, then the backward pass of the leaky ReLU that returned ``activated``."""
    if kernels.fits(x):
        return kernels.fold(x, activated, slope)
    gradient = fold(x)
    if gradient.shape == activated.shape:
        aten.leaky_relu_backward.grad_input(
            gradient, activated, slope, True, grad_input=gradient
        )
        return gradient
    b, half, k, c = *activated.shape[:3], activated.shape[3] // TAPS
    # The two middle taps contain every sample once.
    middle = activated.view(b, half, k, TAPS, c)[:, :, :, 1:3].transpose(2, 3)
    pairs = gradient.view(b, half, 2, k, c)
    aten.leaky_relu_backward.grad_input(pairs, middle, slope, True, grad_input=pairs)
    return gradient


def unfold_whole(x: Tensor) -> Tensor:
    """Return one window over all samples: (B, L, K, C) to (B, K, L * C)."""
    return x.transpose(1, 2).flatten(2)


def fold_whole(x: Tensor, length: int) -> Tensor:
    """The adjoint of `unfold_whole`."""
    b, k, _ = x.shape
    return x.view(b, k, length, -1).transpose(1, 2).contiguous()


def activated(
    x: Tensor, norm: Norm, slope: float, parts: int = 1
) -> tuple[Tensor, Statistics | None]:
    """Apply a BatchNorm and a leaky ReLU; each of the ``parts`` has its own statistics.

    The running statistics are used if the norm has them; then none are returned.
    """
    if kernels.fits(x):
        own = _statistics(x, norm, parts)
        return kernels.activated(x, (norm.weight, norm.bias), own, slope), own
    normal, statistics = _normalise(x, norm, parts)
    return aten.leaky_relu_(normal, slope), statistics


def activated_backward(
    gradient: Tensor, after: Tensor, x: Tensor, norm: Norm, statistics: Statistics, slope: float
) -> tuple[Tensor, NormGradients]:
    """Compute gradients of `activated`, which returned ``after``; see `normalise_backward`."""
    if kernels.fits(x):
        pair = norm.weight, norm.bias
        return kernels.normalise_backward(gradient, x, pair, statistics, slope)
    inner = aten.leaky_relu_backward(gradient, after, slope, True)
    return normalise_backward(inner, x, norm, statistics)


def normalise_backward(
    gradient: Tensor, x: Tensor, norm: Norm, statistics: Statistics
) -> tuple[Tensor, NormGradients]:
    """Compute gradients of a BatchNorm: of its input, and of weight and bias per part."""
    if kernels.fits(x):
        pair = norm.weight, norm.bias
        return kernels.normalise_backward(gradient, x, pair, statistics, None)
    parts = statistics.mean.shape[0]
    found = [
        aten.native_batch_norm_backward(
            _rows(upper),
            _rows(source),
            norm.weight,
            None,
            None,
            mean,
            inverse,
            True,
            EPSILON,
            [True, True, True],
        )
        for upper, source, mean, inverse in zip(
            *(v.chunk(parts) for v in (gradient, x)),
            *(v.unbind() for v in statistics),
            strict=True,
        )
    ]
    inputs, weights, biases = (
        some[0].unsqueeze(0) if parts == 1 else torch.stack(some)
        for some in zip(*found, strict=True)
    )
    return inputs.view(x.shape), (weights, biases)


def _normalise(x: Tensor, norm: Norm, parts: int) -> tuple[Tensor, Statistics | None]:
    if norm.mean is not None:
        evaluated, *_ = aten.native_batch_norm(_rows(x), *norm, False, MOMENTUM, EPSILON)
        return evaluated.view(x.shape), None
    found = torch.empty_like(x)
    statistics = Statistics(*norm.weight.new_empty(2, parts, norm.weight.shape[0]).unbind())
    for source, target, mean, inverse in zip(
        *(v.chunk(parts) for v in (x, found)), *(v.unbind() for v in statistics), strict=True
    ):
        aten.native_batch_norm.out(
            _rows(source),
            *norm,
            True,
            MOMENTUM,
            EPSILON,
            out=_rows(target),
            save_mean=mean,
            save_invstd=inverse,
        )
    return found, statistics


def _statistics(x: Tensor, norm: Norm, parts: int) -> Statistics:
    """Compute statistics on a GPU, or return the running ones if there are any."""
    if norm.mean is not None and norm.variance is not None:
        inverse = (norm.variance + EPSILON).rsqrt()
        return Statistics(norm.mean.unsqueeze(0), inverse.unsqueeze(0))
    return Statistics(*kernels.statistics(x, parts, EPSILON))


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[2] * x.shape[3])


def _onednn_is_faster(x: Tensor) -> bool:
    # torch multiplies float32 with MKL, which is half as fast on processors not from Intel.
    return x.dtype == torch.float32 and x.device.type == "cpu" and _HAS_ONEDNN


_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _convolves(x: Tensor) -> bool:
    """Whether oneDNN's convolution of activations (B, L, K, C) is faster than windows."""
    return x.shape[2] == 1 and x.shape[3] <= NARROW and _onednn_is_faster(x)


def _image(x: Tensor) -> Tensor:
    """(B, L, C) as (B, C, 1, L), channels innermost in memory."""
    # The strides tell oneDNN so only if the dimension of size 1 comes from outside of L.
    return x.unsqueeze(1).permute(0, 3, 1, 2)


def _convolve(x: Tensor, matrix: Tensor) -> Tensor:
    weight = _image(matrix.view(-1, TAPS, x.shape[3]))
    found = aten.convolution(
        _image(x[:, :, 0]), weight, None, [1, 2], [0, 1], [1, 1], False, [0, 0], 1
    )
    rows: Tensor = found.permute(0, 3, 2, 1)
    return rows


def _convolution_weights(gradient: Tensor, x: Tensor) -> Tensor:
    """Shape (outputs, TAPS * channels)."""
    outputs, channels = gradient.shape[3], x.shape[3]
    _, found, _ = aten.convolution_backward(
        _image(gradient[:, :, 0]),
        _image(x[:, :, 0]),
        _image(x.new_empty(outputs, TAPS, channels)),
        None,
        [1, 2],
        [0, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        [False, True, False],
    )
    rows: Tensor = found.permute(0, 2, 3, 1).reshape(outputs, TAPS * channels)
    return rows


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return found
