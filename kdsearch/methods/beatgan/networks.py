"""The generator and the discriminator of BeatGAN as torch modules, one network each.

Layers and shapes are those of Zhou et al., BeatGAN (IJCAI 2019), as published with
"Self-Improving BeatGAN via Knowledge Distillation". They define the names, shapes and initial
values of saved weights, and they are exported. Training and scoring compute the same with
`kdsearch.methods.beatgan.stacked`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdsearch.data.beats import LENGTH_MULTIPLE

HALVINGS = 4
"""Stride-2 convolutions after the first; each doubles the channels."""
SLOPE = 0.2
"""Slope of the leaky ReLUs."""

NetworkState = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """Numbers that fix the shapes of one student's networks.

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
        """Number of positions after five halvings of a beat."""
        return self.length // LENGTH_MULTIPLE

    def as_dict(self) -> dict[str, int]:
        """Return plain numbers, for a saved state."""
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


class Encoder(nn.Module):
    """Five strided convolutions, and one over all remaining positions."""

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*_encoder_layers(architecture, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (B, leads, length) to codes (B, outputs, 1)."""
        code: Tensor = self.main(x)
        return code


class Decoder(nn.Module):
    """The encoder's mirror image, ending in tanh."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.main = nn.Sequential(*_decoder_layers(architecture))

    def forward(self, code: Tensor) -> Tensor:
        """Map codes (B, latent, 1) to beats (B, leads, length) in [-1, 1]."""
        beats: Tensor = self.main(code)
        return beats


class Generator(nn.Module):
    """An autoencoder of beats; those it reconstructs badly are abnormal."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.encoder1 = Encoder(architecture, architecture.latent)
        self.decoder = Decoder(architecture)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct beats; input and output have shape (B, leads, length)."""
        reconstruction: Tensor = self.decoder(self.encoder1(x))
        return reconstruction


class Discriminator(nn.Module):
    """Tells beats from reconstructions; its features are all but the last layer."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        layers = list(_encoder_layers(architecture, 1))
        self.features = nn.Sequential(*layers[:-1])
        self.classifier = nn.Sequential(layers[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (B, leads, length) to logits (B, 1), positive where real."""
        logits: Tensor = self.classifier(self.features(x))
        return logits.flatten(1)


Network = TypeVar("Network", Generator, Discriminator)


def build(network: type[Network], architecture: Architecture) -> Network:
    """Return a network on the CPU without values; load all parameters and buffers.

    Layers are created on the meta device, so that torch's own initialisation takes no time and
    uses no global random numbers.
    """
    with torch.device("meta"):
        built = network(architecture)
    # `to_empty` would import sympy for tensors of the meta device.
    values = built.state_dict()
    values.update({name: torch.empty(value.shape) for name, value in values.items()})
    built.load_state_dict(values, assign=True)
    return built


def initialise(network: nn.Module, rng: torch.Generator) -> None:
    """Draw the published initial values, in place.

    Xavier-normal convolutions (Glorot & Bengio 2010), normalisation weights from N(1, 0.02)
    with bias 0. Running statistics are not touched.

    Args:
        network: On the CPU, so that the numbers do not depend on the device.
        rng: The student's generator, on the CPU.
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
    """Draw a new student's values, with the published names and shapes, on the CPU."""
    single = build(network, architecture)
    initialise(single, rng)
    for layer in single.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.get_buffer("running_mean").zero_()
            layer.get_buffer("running_var").fill_(1)
    return single.state_dict()


def expected_shapes(
    network: type[Generator] | type[Discriminator], architecture: Architecture
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of one student's values; computes nothing."""
    with torch.device("meta"):
        empty = network(architecture)
    return {name: tuple(value.shape) for name, value in empty.state_dict().items()}


def _encoder_layers(a: Architecture, outputs: int) -> Iterator[nn.Module]:
    channels = a.width
    yield nn.Conv1d(a.leads, channels, 4, 2, 1, bias=False)
    yield nn.LeakyReLU(SLOPE, inplace=True)
    for _ in range(HALVINGS):
        yield nn.Conv1d(channels, 2 * channels, 4, 2, 1, bias=False)
        channels *= 2
        yield _normalisation(channels)
        yield nn.LeakyReLU(SLOPE, inplace=True)
    yield nn.Conv1d(channels, outputs, a.bottleneck, 1, 0, bias=False)


def _decoder_layers(a: Architecture) -> Iterator[nn.Module]:
    channels = a.width * 2**HALVINGS
    yield nn.ConvTranspose1d(a.latent, channels, a.bottleneck, 1, 0, bias=False)
    for _ in range(HALVINGS):
        yield _normalisation(channels)
        yield nn.ReLU(inplace=True)
        yield nn.ConvTranspose1d(channels, channels // 2, 4, 2, 1, bias=False)
        channels //= 2
    yield _normalisation(channels)
    yield nn.ReLU(inplace=True)
    yield nn.ConvTranspose1d(channels, a.leads, 4, 2, 1, bias=False)
    yield nn.Tanh()


def _normalisation(channels: int) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(channels)
    # With a fixed momentum the counter of batches is not needed; states do not contain it.
    layer.num_batches_tracked = None
    return layer
