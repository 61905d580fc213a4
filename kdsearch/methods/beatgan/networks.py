"""The generator and the discriminator of BeatGAN, for K students side by side.

Layers and shapes are those of Zhou et al., BeatGAN (IJCAI 2019), as published with
"Self-Improving BeatGAN via Knowledge Distillation". A stack holds K independent networks in
one: all convolutions have ``groups=K``, and student k owns the k-th of K equal parts of dim 0
of every parameter and buffer. For K = 1 the state dict has the published names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdsearch.data.beats import LENGTH_MULTIPLE

HALVINGS = 4
"""Stride-2 convolutions after the first; each doubles the channels."""
SLOPE = 0.2
"""Of the leaky ReLUs."""

NetworkState = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What fixes the shapes of one student's networks.

    Attributes:
        width: Channels of the first convolution.
        latent: Size of the latent vector.
        leads: Channels of a beat.
        length: Samples of a beat, a multiple of 32.
    """

    width: int
    latent: int
    leads: int
    length: int

    def __post_init__(self) -> None:
        if self.length < LENGTH_MULTIPLE or self.length % LENGTH_MULTIPLE:
            raise ValueError(
                f"a beat's length must be a multiple of {LENGTH_MULTIPLE}, not {self.length}"
            )

    @property
    def bottleneck(self) -> int:
        """Positions that five halvings leave of a beat."""
        return self.length // LENGTH_MULTIPLE

    def as_dict(self) -> dict[str, int]:
        """Plain numbers, for a saved state."""
        return asdict(self)


def require_same_architecture(teacher: Architecture, student: Architecture) -> None:
    """Refuse to start a student from the weights of a teacher of another shape.

    Raises:
        ValueError: Names what differs, and both values.
    """
    theirs, ours = teacher.as_dict(), student.as_dict()
    unequal = [name for name in theirs if theirs[name] != ours[name]]
    if unequal:
        found = ", ".join(
            f"{name} is {theirs[name]} in the teacher and {ours[name]} in the student"
            for name in unequal
        )
        raise ValueError(
            f"student.init: 'teacher' needs the teacher's width and latent, but {found}"
        )


class Convolution(nn.Conv1d):
    """A Conv1d that also takes rows, see `_as_rows`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, L) as Conv1d does, or (B, C, 1, L) to the same with a row."""
        if x.dim() == 3:
            return super().forward(x)
        if self.groups == 1 and x.shape[3] == self.kernel_size[0] and self.padding == (0,):
            # Over all that is left it is a matrix product, three times as fast as one.
            product = x.permute(0, 2, 3, 1).flatten(1) @ self.weight.permute(2, 1, 0).flatten(
                0, 1
            )
            return product[:, :, None, None]
        stride, padding = (1, self.stride[0]), (0, int(self.padding[0]))
        weight = self.weight.unsqueeze(2)
        return nn.functional.conv2d(x, weight, None, stride, padding, 1, self.groups)


class TransposedConvolution(nn.ConvTranspose1d):
    """A ConvTranspose1d that also takes rows, see `_as_rows`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, C, L) as ConvTranspose1d does, or (B, C, 1, L) to the same with a row."""
        if x.dim() == 3:
            return super().forward(x, output_size)
        if self.groups == 1 and x.shape[3] == 1 and self.padding == (0,):
            product = x.flatten(1) @ self.weight.permute(0, 2, 1).flatten(1)
            shape = (-1, 1, self.kernel_size[0], self.out_channels)
            return product.reshape(shape).permute(0, 3, 1, 2)
        stride, padding = (1, self.stride[0]), (0, int(self.padding[0]))
        weight = self.weight.unsqueeze(2)
        return nn.functional.conv_transpose2d(x, weight, None, stride, padding, 0, self.groups)


class Normalisation(nn.BatchNorm1d):
    """A BatchNorm1d that also takes rows, see `_as_rows`."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.dim() != 4:
            super()._check_input_dim(input)


def _as_rows(x: Tensor) -> Tensor:
    """On a CPU, (B, C, L) as (B, C, 1, L) with the channels innermost in memory.

    Convolutions need no reordering then, and BatchNorm is several times faster: where 512
    channels have 10 samples each, 0.2 ms instead of 1.7 for both of its passes.
    """
    if x.device.type != "cpu":
        return x
    return x.unsqueeze(2).to(memory_format=torch.channels_last)


def _from_rows(x: Tensor) -> Tensor:
    """(B, C, L), whatever went in."""
    return x.squeeze(2) if x.dim() == 4 else x


class Encoder(nn.Module):
    """Five strided convolutions and one over all that is left."""

    def __init__(self, architecture: Architecture, outputs: int, students: int = 1) -> None:
        super().__init__()
        self.main = nn.Sequential(*_encoder_layers(architecture, outputs, students))

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (B, K * leads, length) to codes (B, K * outputs, 1)."""
        code: Tensor = self.main(_as_rows(x))
        return _from_rows(code)


class Decoder(nn.Module):
    """The encoder's mirror image, ending in tanh."""

    def __init__(self, architecture: Architecture, students: int = 1) -> None:
        super().__init__()
        self.main = nn.Sequential(*_decoder_layers(architecture, students))

    def forward(self, code: Tensor) -> Tensor:
        """Map codes (B, K * latent, 1) to beats (B, K * leads, length) in [-1, 1]."""
        beats: Tensor = self.main(_as_rows(code))
        return _from_rows(beats)


class Generator(nn.Module):
    """An autoencoder of beats; what it cannot reconstruct is abnormal."""

    def __init__(self, architecture: Architecture, students: int = 1) -> None:
        super().__init__()
        self.encoder1 = Encoder(architecture, architecture.latent, students)
        self.decoder = Decoder(architecture, students)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct beats; input and output have shape (B, K * leads, length)."""
        reconstruction: Tensor = self.decoder(self.encoder1(x))
        return reconstruction


class Features(nn.Sequential):
    """The layers of a discriminator before its last."""

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (B, K * leads, length) to features (B, K * C, L)."""
        x = _as_rows(x)
        for layer in self:
            x = layer(x)
        return _from_rows(x)


class Discriminator(nn.Module):
    """Tells beats from reconstructions; its features are all but the last layer."""

    def __init__(self, architecture: Architecture, students: int = 1) -> None:
        super().__init__()
        layers = list(_encoder_layers(architecture, 1, students))
        self.features = Features(*layers[:-1])
        self.classifier = nn.Sequential(layers[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (B, K * leads, length) to logits (B, K), positive where real."""
        logits: Tensor = self.classifier(_as_rows(self.features(x)))
        return logits.flatten(1)


Network = TypeVar("Network", Generator, Discriminator)


def build(
    network: type[Network], architecture: Architecture, students: int, device: str
) -> Network:
    """A network without values: every parameter and buffer has to be put in afterwards.

    Layers are made on the meta device, so that torch's own initialisation costs no time and
    draws nothing from the global random numbers.
    """
    with torch.device("meta"):
        empty = network(architecture, students)
    return empty.to_empty(device=device)


def initialise(network: nn.Module, rng: torch.Generator) -> None:
    """Draw the published initial values of one student's network, in place.

    Xavier-normal convolutions (Glorot & Bengio 2010), normalisation weights from N(1, 0.02)
    with bias 0. Running statistics are not touched.

    Args:
        network: Of one student (K = 1), on the CPU, so that neither the neighbours nor the
            device change what is drawn.
        rng: The student's own, on the CPU.
    """
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
                nn.init.xavier_normal_(layer.weight, generator=rng)
            elif isinstance(layer, nn.BatchNorm1d):
                layer.weight.normal_(1.0, 0.02, generator=rng)
                layer.bias.zero_()


def initial_state(
    network: type[Network], architecture: Architecture, rng: torch.Generator
) -> NetworkState:
    """A new student's values, with the published names and shapes, on the CPU."""
    single = build(network, architecture, 1, "cpu")
    initialise(single, rng)
    for layer in single.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.get_buffer("running_mean").zero_()
            layer.get_buffer("running_var").fill_(1)
    return single.state_dict()


def expected_shapes(
    network: type[Generator] | type[Discriminator], architecture: Architecture
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one student's values; calculates nothing."""
    with torch.device("meta"):
        empty = network(architecture)
    return {name: tuple(value.shape) for name, value in empty.state_dict().items()}


def put_student(network: nn.Module, k: int, students: int, state: Mapping[str, Tensor]) -> None:
    """Copy one student's values into its rows of a stack of ``students``."""
    with torch.no_grad():
        for name, rows in _rows(network, k, students):
            if name in state:
                rows.copy_(state[name])


def take_student(network: nn.Module, k: int, students: int) -> NetworkState:
    """Copy one student's values out of a stack, with the published names and shapes."""
    return {name: rows.clone() for name, rows in _rows(network, k, students)}


def _rows(network: nn.Module, k: int, students: int) -> Iterator[tuple[str, Tensor]]:
    for name, value in network.state_dict().items():
        each = value.shape[0] // students
        yield name, value[k * each : (k + 1) * each]


def _encoder_layers(a: Architecture, outputs: int, students: int) -> Iterator[nn.Module]:
    channels = students * a.width
    yield _convolution(Convolution, students * a.leads, channels, students)
    yield nn.LeakyReLU(SLOPE, inplace=True)
    for _ in range(HALVINGS):
        yield _convolution(Convolution, channels, 2 * channels, students)
        channels *= 2
        yield _normalisation(channels)
        yield nn.LeakyReLU(SLOPE, inplace=True)
    yield Convolution(
        channels, students * outputs, a.bottleneck, 1, 0, bias=False, groups=students
    )


def _decoder_layers(a: Architecture, students: int) -> Iterator[nn.Module]:
    channels = students * a.width * 2**HALVINGS
    yield TransposedConvolution(
        students * a.latent, channels, a.bottleneck, 1, 0, bias=False, groups=students
    )
    for _ in range(HALVINGS):
        yield _normalisation(channels)
        yield nn.ReLU(inplace=True)
        yield _convolution(TransposedConvolution, channels, channels // 2, students)
        channels //= 2
    yield _normalisation(channels)
    yield nn.ReLU(inplace=True)
    yield _convolution(TransposedConvolution, channels, students * a.leads, students)
    yield nn.Tanh()


def _convolution(
    kind: type[Convolution] | type[TransposedConvolution],
    inputs: int,
    outputs: int,
    students: int,
) -> nn.Module:
    return kind(inputs, outputs, 4, 2, 1, bias=False, groups=students)


def _normalisation(channels: int) -> Normalisation:
    layer = Normalisation(channels)
    # The counter of batches has no row per student and, with a fixed momentum, no use;
    # plain BatchNorm layers load states without it.
    layer.num_batches_tracked = None
    return layer
