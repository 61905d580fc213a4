"""K generators or discriminators in flat buffers, with forward and backward passes.

Saved weights have the published names and shapes (`networks`). Internally, each student is one
row of a matrix with all its parameters, so that one optimiser updates all students at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdsearch.methods.beatgan import kernels
from kdsearch.methods.beatgan.layers import (
    EPSILON,
    MOMENTUM,
    Norm,
    NormGradients,
    Statistics,
    activated,
    activated_backward,
    activated_windows,
    fold,
    fold_activated,
    fold_whole,
    normalise_backward,
    outer_product,
    product,
    unfold,
    unfold_whole,
)
from kdsearch.methods.beatgan.networks import (
    HALVINGS,
    SLOPE,
    Architecture,
    Discriminator,
    Generator,
    NetworkState,
)
from kdsearch.methods.protocol import Compute

aten = torch.ops.aten

# In elements; matrix products are fastest if each matrix starts at a multiple of 16 bytes.
ALIGNMENT = 64

# Parts of a discriminator's training pass: real beats and reconstructions.
PARTS = 2
# Number of strided convolutions of an encoder.
DEPTH = HALVINGS + 1

# Weights of the layers that read or write beats.
OUTER = ("encoder1.main.0.weight", "decoder.main.15.weight", "features.0.weight")

Shapes = Mapping[str, tuple[int, ...]]


class Parameters:
    """Values, gradients and running statistics of K networks, one row per student.

    Args:
        architecture: Of each student.
        students: K.
        compute: Its precision is that of the products.
        dtype: Type of the values that the optimiser updates.

    Attributes:
        values: Shape (K, P); call `refresh` after a change.
        low: The same in the precision of the products; in float32 it is ``values``.
        gradients: Same shape and precision as ``low``.
        matrices: Of the convolutions in order, (K, outputs, taps * inputs) each; those of
            transposed convolutions are (K, inputs, taps * outputs).
    """

    network: type[Generator] | type[Discriminator]
    """Defines names and shapes of the values."""

    def __init__(
        self,
        architecture: Architecture,
        students: int,
        compute: Compute,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        with torch.device("meta"):
            layers = dict(self.network(architecture).named_modules())
        norms = {n: layer for n, layer in layers.items() if isinstance(layer, nn.BatchNorm1d)}
        matrices = {
            f"{n}.weight": tuple(layer.weight.shape)
            for n, layer in layers.items()
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d)
        }
        self.students = students
        self._architecture = architecture
        channels = [layer.num_features for layer in norms.values() for _ in range(2)]
        self._vectors = list(_names(norms, "weight", "bias"))
        self._shapes = matrices | {
            name: (c,) for name, c in zip(self._vectors, channels, strict=True)
        }
        self._running = dict(
            zip(
                _names(norms, "running_mean", "running_var"),
                ((c,) for c in channels),
                strict=True,
            )
        )
        self._channels = channels
        counts = torch.tensor(channels)
        self._is_variance = (
            (torch.arange(len(channels)) % 2 == 1).repeat_interleave(counts).to(compute.device)
        )
        # A layer with twice the channels has half the samples.
        samples = architecture.length * architecture.width // 2 // counts
        self._samples = samples.repeat_interleave(counts).to(compute.device)
        outer = [name for name in matrices if name in OUTER]
        order, starts, size = _stored(self._shapes, outer)
        self._order = order.to(compute.device)
        tail = starts[self._vectors[0]]
        self._tail = slice(tail, tail + sum(channels))
        by_layer, by_student = _vector_orders(channels, students)
        self._by_layer, self._by_student = (
            index.to(compute.device) for index in (by_layer, by_student)
        )

        def zeros(columns: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(students, columns, dtype=dtype, device=compute.device)

        low = torch.bfloat16 if compute.precision == "bf16" else dtype
        self.values, self.gradients = zeros(size), zeros(size, low)
        self.running = zeros(sum(channels))
        self.low = self.values if low == dtype else zeros(size, low)
        self._norms = zeros(sum(channels)).flatten()
        self.matrices, self.matrix_gradients = (
            [
                rows[:, starts[name] :][:, : prod(shape)].view(students, shape[0], -1)
                for name, shape in _even(matrices, outer).items()
            ]
            for rows in (self.low, self.gradients)
        )

    def refresh(self) -> None:
        """Update what the passes read after a change of ``values``."""
        self.low.copy_(self.values)
        self.refresh_norms()

    def refresh_norms(self) -> None:
        """Do what `refresh` does, if ``low`` is up to date."""
        tail = self.values[:, self._tail].flatten()
        torch.index_select(tail, 0, self._by_layer, out=self._norms)

    def replace(self, chosen: Tensor, fresh: Tensor) -> None:
        """Set the values of the students in ``chosen``, shape (K,), to those of ``fresh``."""
        if chosen.is_cuda and kernels.available():
            kernels.replace(self.values, self.low, fresh, chosen)
            self.refresh_norms()
        else:
            torch.where(chosen.unsqueeze(1), fresh, self.values, out=self.values)
            self.refresh()

    def norms(self) -> list[Norm]:
        """Return the norms for training, in the order of the layers."""
        vectors = self._per_layer(self._norms)
        return [Norm(*pair) for pair in zip(vectors[::2], vectors[1::2], strict=True)]

    def evaluation_norms(self) -> list[Norm]:
        """Return the norms for evaluation, with copies of the running statistics."""
        running = self._per_layer(self.running.flatten().index_select(0, self._by_layer))
        return [
            Norm(norm.weight, norm.bias, *pair)
            for norm, *pair in zip(self.norms(), running[::2], running[1::2], strict=True)
        ]

    def set_norm_gradients(self, layers: Sequence[NormGradients]) -> None:
        """Write the gradients of the norms, summed over the parts, into ``gradients``."""
        parts = self._per_part(layers)
        self.gradients[:, self._tail] = parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def track(self, layers: Sequence[Statistics | None], beats: int) -> None:
        """Update the running statistics by those of a mini-batch, part after part.

        Args:
            layers: Statistics of every layer; None for a layer without a norm.
            beats: Number of beats in a part.
        """
        values = beats * self._samples
        unbiased = values / (values - 1).clamp(min=1)
        for rows in self._per_part([layer for layer in layers if layer is not None]):
            variances = (rows.pow(-2) - EPSILON) * unbiased
            self.running.lerp_(torch.where(self._is_variance, variances, rows), MOMENTUM)

    def put(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Set one student's values; running statistics only if the state has them."""
        self.values[k] = self.row(state)
        if self._running.keys() <= state.keys():
            self.running[k] = torch.cat([state[name] for name in self._running])
        self.refresh()

    def take(self, k: int) -> NetworkState:
        """Return copies of one student's values on the CPU, with published names and shapes."""
        return {**self.named(self.values[k]), **_split(self.running[k].cpu(), self._running)}

    def row(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return a student's values as a row of ``values``; missing ones are zero."""
        parts = [
            state[name].flatten() if name in state else torch.zeros(prod(shape))
            for name, shape in self._shapes.items()
        ]
        row = torch.zeros_like(self.values[0])
        return row.index_copy_(0, self._order, torch.cat(parts).to(row))

    def named(self, row: Tensor) -> NetworkState:
        """Return a copy of a row of ``values``, on the CPU, by published names."""
        return _split(row.index_select(0, self._order).cpu(), self._shapes)

    def _per_layer(self, flat: Tensor) -> list[Tensor]:
        return list(torch.split(flat, [self.students * c for c in self._channels]))

    def _per_part(self, layers: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Rearrange two vectors per layer, (parts, K * C), to rows (K, V) per part."""
        joined = torch.cat([vectors for pair in layers for vectors in pair], dim=1)
        rows = joined.index_select(1, self._by_student)
        return list(rows.view(joined.shape[0], self.students, -1).unbind())


class Pass(NamedTuple):
    """What the backward pass of a layer needs; the first dimension is the beats.

    Attributes:
        inputs: Input of the product: windows in an encoder, codes or activations in a decoder.
        before: The layer's activations before its norm.
        after: Activations after its activation function; in an encoder, windows except for the
            last layer.
        statistics: Those of the norm, if there is one.
    """

    inputs: Tensor
    before: Tensor
    after: Tensor
    statistics: Statistics | None


Passes = list[Pass]


def encode(
    x: Tensor, matrices: Sequence[Tensor], norms: Sequence[Norm], *, parts: int = 1
) -> tuple[Tensor, Passes]:
    """Apply the strided convolutions of an encoder: (B, L, K, leads) to (B, L / 32, K, C).

    Args:
        x: Beats; each of the ``parts`` is normalised separately.
        matrices: Of the strided convolutions.
        norms: Norms of all layers but the first.
        parts: Number of equal parts of the beats.
    """
    passes: Passes = []
    inputs = unfold(even_leads(x))
    for norm, matrix in zip((None, *norms[:-1]), matrices[:-1], strict=True):
        before = product(inputs, matrix.mT)
        after, statistics = activated_windows(before, norm, SLOPE, parts)
        passes.append(Pass(inputs, before, after, statistics))
        inputs = after
    before = product(inputs, matrices[-1].mT)
    features, statistics = activated(before, norms[-1], SLOPE, parts)
    passes.append(Pass(inputs, before, features, statistics))
    return features, passes


def encode_backward(
    gradient: Tensor,
    matrices: Sequence[Tensor],
    norms: Sequence[Norm],
    passes: Passes,
    into: Sequence[Tensor] | None = None,
) -> tuple[Tensor, list[NormGradients]]:
    """Compute the gradient of the beats, with an even number of leads, or of parameters.

    Args:
        gradient: Of the features.
        matrices: As in the forward pass.
        norms: Likewise.
        passes: From the forward pass.
        into: Receives the gradients of the matrices; that of the beats is not computed then.
            None: only that of the beats is computed.
    """
    of_norms: list[NormGradients] = []
    for depth in reversed(range(len(matrices))):
        inputs, before, after, statistics = passes[depth]
        if statistics is not None:
            norm = norms[depth - 1]
            gradient, found = (
                normalise_backward(gradient, before, norm, statistics)
                if depth < len(matrices) - 1
                else activated_backward(gradient, after, before, norm, statistics, SLOPE)
            )
            of_norms.insert(0, found)
        if into is not None:
            outer_product(gradient, inputs, out=into[depth])
        if depth:
            upper = product(gradient, matrices[depth])
            gradient = fold_activated(upper, passes[depth - 1].after, SLOPE)
    if into is None:
        gradient = fold(product(gradient, matrices[0]))
    return gradient, of_norms


def decode(
    code: Tensor, matrices: Sequence[Tensor], norms: Sequence[Norm], length: int, leads: int
) -> tuple[Tensor, Passes]:
    """Apply a decoder: codes (B, K, latent) to beats (B, 32 * length, K, leads) in float32."""
    passes: Passes = []
    before = fold_whole(product(code, matrices[0]), length)
    for norm, matrix in zip(norms, matrices[1:], strict=True):
        after, statistics = activated(before, norm, 0.0)
        passes.append(Pass(code, before, after, statistics))
        before = fold(product(after, matrix))
    return full_precision(before[..., :leads]).tanh(), passes


def decode_backward(
    gradient: Tensor,
    beats: Tensor,
    matrices: Sequence[Tensor],
    norms: Sequence[Norm],
    passes: Passes,
    into: Sequence[Tensor],
) -> tuple[Tensor, list[NormGradients]]:
    """Compute the gradient of the codes; those of matrices are written to ``into``."""
    of_norms: list[NormGradients] = []
    gradient = even_leads(aten.tanh_backward(gradient, beats).to(matrices[0].dtype))
    for depth in reversed(range(len(norms))):
        code, before, after, statistics = passes[depth]
        upper = unfold(gradient)
        outer_product(after, upper, out=into[depth + 1])
        gradient = product(upper, matrices[depth + 1].mT)
        assert statistics is not None
        gradient, found = activated_backward(
            gradient, after, before, norms[depth], statistics, 0.0
        )
        of_norms.insert(0, found)
    upper = unfold_whole(gradient)
    outer_product(code, upper, out=into[0])
    return product(upper, matrices[0].mT), of_norms


def even_leads(x: Tensor) -> Tensor:
    """Add a lead of zeros if their number is odd.

    Fast matrix products of GPUs need rows of at least 16 bytes.
    """
    return nn.functional.pad(x, (0, 1)) if x.shape[-1] % 2 else x


def full_precision(x: Tensor) -> Tensor:
    """Return bfloat16 as float32, and other types unchanged."""
    return x.float() if x.dtype == torch.bfloat16 else x


@dataclass
class GeneratorPass:
    """A forward pass of K generators, with what the backward pass needs."""

    beats: Tensor
    encoded: Passes
    whole: Tensor
    decoded: Passes


class StackedGenerator(Parameters):
    """K generators."""

    network = Generator

    def forward(self, x: Tensor, norms: Sequence[Norm]) -> GeneratorPass:
        """Reconstruct beats (B, L, K, leads), in the precision of the products."""
        features, encoded = encode(x, self.matrices[:DEPTH], norms[:HALVINGS])
        whole = unfold_whole(features)
        code = product(whole, self.matrices[DEPTH].mT)
        beats, decoded = decode(
            code,
            self.matrices[DEPTH + 1 :],
            norms[HALVINGS:],
            length=features.shape[1],
            leads=x.shape[3],
        )
        return GeneratorPass(beats, encoded, whole, decoded)

    def backward(self, gradient: Tensor, norms: Sequence[Norm], found: GeneratorPass) -> None:
        """Compute ``gradients`` from the gradient of the reconstructions."""
        into = self.matrix_gradients
        gradient, of_decoder = decode_backward(
            gradient,
            found.beats,
            self.matrices[DEPTH + 1 :],
            norms[HALVINGS:],
            found.decoded,
            into[DEPTH + 1 :],
        )
        outer_product(gradient, found.whole, out=into[DEPTH])
        features = product(gradient, self.matrices[DEPTH])
        _, of_encoder = encode_backward(
            fold_whole(features, found.encoded[-1].after.shape[1]),
            self.matrices[:DEPTH],
            norms[:HALVINGS],
            found.encoded,
            into[:DEPTH],
        )
        self.set_norm_gradients(of_encoder + of_decoder)

    def track_pass(self, found: GeneratorPass) -> None:
        """Update the running statistics by those of a mini-batch."""
        layers = [some.statistics for some in (*found.encoded, *found.decoded)]
        self.track(layers, len(found.beats))


class StackedDiscriminator(Parameters):
    """K discriminators."""

    network = Discriminator

    def features(
        self, x: Tensor, norms: Sequence[Norm], *, parts: int = 1
    ) -> tuple[Tensor, Passes]:
        """Compute features (B, L / 32, K, C) of beats (B, L, K, leads), see `encode`."""
        return encode(x, self.matrices[:DEPTH], norms, parts=parts)

    def features_backward(
        self, gradient: Tensor, norms: Sequence[Norm], passes: Passes
    ) -> Tensor:
        """Compute the gradient of the beats from that of their features."""
        beats, _ = encode_backward(gradient, self.matrices[:DEPTH], norms, passes)
        return beats[..., : self._architecture.leads]

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits, shape (B, K), float32; positive: classified as real."""
        matrix = self.matrices[DEPTH].mT
        return full_precision(product(unfold_whole(features), matrix).squeeze(2))

    def backward(
        self, gradient: Tensor, features: Tensor, norms: Sequence[Norm], passes: Passes
    ) -> None:
        """Set ``gradients`` from the gradient of the logits."""
        upper = gradient.to(features.dtype).unsqueeze(2)
        outer_product(upper, unfold_whole(features), out=self.matrix_gradients[DEPTH])
        _, of_norms = encode_backward(
            fold_whole(product(upper, self.matrices[DEPTH]), features.shape[1]),
            self.matrices[:DEPTH],
            norms,
            passes,
            self.matrix_gradients[:DEPTH],
        )
        self.set_norm_gradients(of_norms)

    def track_pass(self, passes: Passes) -> None:
        """Update the running statistics by those of a mini-batch, part after part."""
        self.track([some.statistics for some in passes], len(passes[0].before) // PARTS)


def _names(norms: Iterable[str], *parts: str) -> list[str]:
    return [f"{name}.{part}" for name in norms for part in parts]


def _even(shapes: Shapes, outer: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the stored shapes, with an even number of leads."""
    return {
        name: (shape[0], shape[1] + shape[1] % 2, shape[2]) if name in outer else shape
        for name, shape in shapes.items()
    }


def _stored(shapes: Shapes, outer: Collection[str]) -> tuple[Tensor, dict[str, int], int]:
    """Lay out the values in a row: taps before channels, matrices at aligned columns.

    Args:
        shapes: The published ones, by name.
        outer: Matrices whose leads are stored as an even number.

    Returns:
        The column of every published value, tensor after tensor; the first column of each
        tensor; the number of columns.
    """
    columns, starts, end = [], {}, 0
    for name, shape in _even(shapes, outer).items():
        starts[name] = end
        stored = torch.arange(end, end + prod(shape))
        if len(shape) == 3:
            outputs, inputs, taps = shape
            stored = stored.view(outputs, taps, inputs).transpose(1, 2)
            stored = stored[:, : shapes[name][1]]
        columns.append(stored.flatten())
        end += prod(shape)
        if len(shape) == 3:
            end = -(-end // ALIGNMENT) * ALIGNMENT
    return torch.cat(columns), starts, -(-end // ALIGNMENT) * ALIGNMENT


def _vector_orders(channels: Sequence[int], students: int) -> tuple[Tensor, Tensor]:
    """Return the index from rows per student to layers of all students, and the inverse."""
    rows = torch.arange(students * sum(channels)).view(students, -1)
    by_layer = torch.cat([part.flatten() for part in torch.split(rows, list(channels), dim=1)])
    return by_layer, by_layer.argsort()


def _split(flat: Tensor, shapes: Shapes) -> NetworkState:
    parts = torch.split(flat, [prod(shape) for shape in shapes.values()])
    return {
        name: part.view(shape).clone()
        for part, (name, shape) in zip(parts, shapes.items(), strict=True)
    }
