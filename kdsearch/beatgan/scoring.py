"""Anomaly scores: how badly a trained generator reconstructs each beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdsearch.beatgan.losses import beat_errors
from kdsearch.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    Network,
    NetworkState,
    build,
    expected_shapes,
    put_student,
)
from kdsearch.compute import autocast
from kdsearch.data.beats import FloatArray
from kdsearch.method import Compute, State
from kdsearch.tensors import from_numpy

FORMAT = 1
METHOD = "beatgan"
BATCH = 512
# Training beats from which the usual error at each sample is taken, and the least that it is.
USUAL_BEATS = 2048
SMALLEST_ERROR = 1e-8


def weights_state(
    architecture: Architecture,
    generator: NetworkState,
    discriminator: NetworkState | None = None,
    *,
    sample_weights: Tensor | None = None,
) -> State:
    """What `load_generator` reads, for `torch.save`: it describes its own architecture.

    ``sample_weights``, shape (leads, length), are those of a relative score, on the CPU.
    """
    state: State = {
        "format": FORMAT,
        "method": METHOD,
        "architecture": architecture.as_dict(),
        "generator": generator,
    }
    if discriminator is not None:
        state["discriminator"] = discriminator
    if sample_weights is not None:
        state["sample_weights"] = sample_weights
    return state


def architecture_of(weights: Mapping[str, Any]) -> Architecture:
    """The architecture that weights say they have.

    Raises:
        ValueError: These are not weights of a BeatGAN, or of another format.
    """
    found = weights.get("method"), weights.get("format")
    if found != (METHOD, FORMAT):
        raise ValueError(
            f"weights of method {METHOD!r} in format {FORMAT} expected, "
            f"found method {found[0]!r} in format {found[1]!r}"
        )
    described = weights.get("architecture")
    names = Architecture.__dataclass_fields__.keys()
    if not isinstance(described, Mapping) or described.keys() != names:
        raise ValueError(f"weights must describe an architecture of {', '.join(names)}")
    return Architecture(**described)


def require_shape(weights: Mapping[str, Any], x: FloatArray) -> None:
    """Refuse beats of another length, which the convolutions would take without a word.

    Raises:
        ValueError: Names both shapes.
    """
    architecture = architecture_of(weights)
    expected = architecture.leads, architecture.length
    if x.shape[1:] != expected:
        raise ValueError(
            f"the weights were trained on beats of shape {expected}, not {x.shape[1:]}"
        )


def load_generator(weights: Mapping[str, Any], compute: Compute) -> Generator:
    """The generator of `weights_state`, ready to score.

    Raises:
        ValueError: Other names or shapes than the architecture's, or not a BeatGAN's weights.
    """
    return _load(Generator, "generator", weights, compute)


def load_sample_weights(weights: Mapping[str, Any], device: str) -> Tensor | None:
    """Weights of a relative score, shape (1, leads, length); None for a plain one.

    Raises:
        ValueError: They are of another shape than the beats.
    """
    found = weights.get("sample_weights")
    if found is None:
        return None
    architecture = architecture_of(weights)
    expected = architecture.leads, architecture.length
    if not isinstance(found, Tensor) or tuple(found.shape) != expected:
        raise ValueError(f"sample_weights should be {expected}, as the beats are")
    return found.to(device).unsqueeze(0)


def load_discriminator(weights: Mapping[str, Any], compute: Compute) -> Discriminator:
    """The discriminator, which only teachers' weights have, in evaluation mode.

    Raises:
        ValueError: As `load_generator`, or a student's weights.
    """
    return _load(Discriminator, "discriminator", weights, compute)


def check_values(
    network: type[Generator] | type[Discriminator],
    architecture: Architecture,
    values: object,
    *,
    part: str,
) -> None:
    """Refuse values that are not those of one student's network.

    Raises:
        ValueError: Names the first value that is missing, superfluous or of another shape.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"weights have no {part}")
    expected = expected_shapes(network, architecture)
    found = {name: tuple(value.shape) for name, value in values.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{part}: {name} should be {_shape(expected.get(name))}, "
                f"but is {_shape(found.get(name))}"
            )


class ScoringNetwork(nn.Module):
    """A generator and the mean squared error that it leaves of each beat, in one graph."""

    def __init__(self, generator: Generator, sample_weights: Tensor | None = None) -> None:
        super().__init__()
        self.generator = generator
        self.sample_weights = (
            None if sample_weights is None else nn.Parameter(sample_weights, False)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map beats (n, leads, length) to scores (n,) and their reconstructions."""
        fake = self.generator(x)
        scores = beat_errors(x.unsqueeze(1), fake.unsqueeze(1), self.sample_weights)
        return scores.squeeze(1), fake


def score(
    weights: Mapping[str, Any], x: FloatArray, compute: Compute, *, batch: int = BATCH
) -> NDArray[np.float32]:
    """Mean squared error of each beat's reconstruction, its samples weighted if need be.

    Args:
        weights: From a stack's ``weights``.
        x: Normalised and padded beats, shape (n, leads, length).
        compute: Where and how precisely to calculate; errors are taken in float32.
        batch: Beats at a time.

    Returns:
        Shape (n,), float32; higher is more abnormal.

    Raises:
        ValueError: As `load_generator` and `load_sample_weights`.
    """
    generator = load_generator(weights, compute)
    of_samples = load_sample_weights(weights, compute.device)
    beats = from_numpy(x, compute.device)
    found = stack_scores(
        generator, beats, compute, students=1, sample_weights=of_samples, batch=batch
    )
    return found[:, 0]


@torch.inference_mode()
def sample_weights(
    generator: nn.Module, x: Tensor, compute: Compute, *, students: int, batch: int = BATCH
) -> Tensor:
    """How much the error of each sample counts in a relative score.

    The mean error of normal beats over that at each sample: where reconstructions are usually
    good, a small error says much. Diagonal Mahalanobis distance, up to a factor.

    Args:
        generator: Of K students, in evaluation mode.
        x: Training beats, shape (n, leads, length), on the generator's device; some of them,
            evenly spread, are enough.
        compute: As for `score`.
        students: K.
        batch: Beats at a time.

    Returns:
        Shape (K, leads, length), float32, on the same device.
    """
    rows = torch.linspace(0, len(x) - 1, min(len(x), USUAL_BEATS), device=x.device).long()
    sums = [
        (beats.unsqueeze(1) - fake).square().sum(dim=0)
        for beats, fake in _reconstructions(generator, x[rows], compute, students, batch)
    ]
    usual = (torch.stack(sums).sum(dim=0) / len(rows)).clamp(min=SMALLEST_ERROR)
    return usual.mean(dim=(1, 2), keepdim=True) / usual


@torch.inference_mode()
def stack_scores(
    generator: nn.Module,
    x: Tensor,
    compute: Compute,
    *,
    students: int,
    sample_weights: Tensor | None = None,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """The same for every student of a stack.

    Args:
        generator: Of K students, in evaluation mode.
        x: Beats, shape (n, leads, length), on the generator's device.
        compute: As for `score`.
        students: K.
        sample_weights: From the function of that name; None for a plain score.
        batch: Beats at a time.

    Returns:
        Shape (n, K), float32.
    """
    errors = [
        beat_errors(beats.unsqueeze(1), fake, sample_weights)
        for beats, fake in _reconstructions(generator, x, compute, students, batch)
    ]
    return torch.cat(errors).cpu().numpy()


@torch.inference_mode()
def reconstruct(
    weights: Mapping[str, Any], x: FloatArray, compute: Compute, *, batch: int = BATCH
) -> NDArray[np.float32]:
    """What the generator makes of beats.

    Args:
        weights: From a stack's ``weights``.
        x: Normalised and padded beats, shape (n, leads, length).
        compute: Where and how precisely to calculate.
        batch: Beats at a time.

    Returns:
        Shape (n, leads, length), float32.

    Raises:
        ValueError: As `load_generator`.
    """
    generator = load_generator(weights, compute)
    beats = from_numpy(x, compute.device)
    parts = _reconstructions(generator, beats, compute, 1, batch)
    return torch.cat([fake[:, 0].cpu() for _, fake in parts]).numpy()


def _reconstructions(
    generator: nn.Module, x: Tensor, compute: Compute, students: int, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Beats (B, C, L) and the students' reconstructions (B, K, C, L) in float32."""
    for beats in torch.split(x, batch):
        with autocast(compute):
            fake = generator(beats.repeat(1, students, 1))
        yield beats, fake.float().reshape(len(beats), students, *beats.shape[1:])


def _load(
    network: type[Network], part: str, weights: Mapping[str, Any], compute: Compute
) -> Network:
    architecture = architecture_of(weights)
    values = weights.get(part)
    check_values(network, architecture, values, part=part)
    assert values is not None
    loaded = build(network, architecture, 1, compute.device)
    put_student(loaded, 0, 1, values)
    return loaded.eval().requires_grad_(False)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)
