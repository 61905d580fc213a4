"""Anomaly scores from the reconstruction errors of a trained generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdsearch.data.beats import FloatArray
from kdsearch.methods.beatgan.losses import beat_errors
from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    Network,
    NetworkState,
    build,
    expected_shapes,
)
from kdsearch.methods.beatgan.settings import Score
from kdsearch.methods.beatgan.stacked import StackedDiscriminator, StackedGenerator
from kdsearch.methods.checks import check_weights
from kdsearch.methods.device import from_numpy
from kdsearch.methods.protocol import Compute, State

FORMAT = 1
METHOD = "beatgan"
BATCH = 512
# Number of training beats that give the usual errors, and the minimum of a squared error.
USUAL_BEATS = {"relative": 2048, "mahalanobis": 8192}
SMALLEST_ERROR = 1e-8
# Share of the variance added to the diagonal, so that the covariance can be inverted.
RIDGE = 1e-3


def weights_state(
    architecture: Architecture,
    generator: NetworkState,
    discriminator: NetworkState | None = None,
    *,
    error_weights: Tensor | None = None,
) -> State:
    """Return what `load_generator` reads, including the architecture, for `torch.save`.

    ``error_weights`` are one student's from the function of that name, on the CPU.
    """
    state: State = {
        "format": FORMAT,
        "method": METHOD,
        "architecture": architecture.as_dict(),
        "generator": generator,
    }
    if discriminator is not None:
        state["discriminator"] = discriminator
    if error_weights is not None:
        state["error_weights"] = error_weights
    return state


def architecture_of(weights: Mapping[str, Any]) -> Architecture:
    """Read the architecture from weights.

    Raises:
        ValueError: The weights are of another method or in another format.
    """
    check_weights(weights, method=METHOD, version=FORMAT)
    described = weights.get("architecture")
    names = Architecture.__dataclass_fields__.keys()
    if not isinstance(described, Mapping) or described.keys() != names:
        raise ValueError(f"weights must describe an architecture of {', '.join(names)}")
    return Architecture(**described)


def load_generator(weights: Mapping[str, Any], compute: Compute) -> StackedGenerator:
    """Load the generator of `weights_state` as a stack of one.

    Raises:
        ValueError: Names or shapes do not match the architecture, or as `architecture_of`.
    """
    values = _checked_values(weights, Generator, "generator")
    loaded = StackedGenerator(architecture_of(weights), 1, compute)
    loaded.put(0, values)
    return loaded


def load_module(weights: Mapping[str, Any], network: type[Network]) -> Network:
    """Load generator or discriminator as a torch module on the CPU, in evaluation mode.

    Raises:
        ValueError: As `load_generator`; imported weights may have no discriminator.
    """
    values = _checked_values(weights, network, network.__name__.lower())
    loaded = build(network, architecture_of(weights))
    # Not strict: torch would require counters of batches, which these networks lack.
    loaded.load_state_dict(values, strict=False)
    return loaded.eval().requires_grad_(False)


def load_error_weights(weights: Mapping[str, Any], device: str) -> Tensor | None:
    """Load one student's result of `error_weights`, with K = 1; None for a plain score.

    Raises:
        ValueError: The shape is neither that of beats nor of a matrix of their samples.
    """
    found = weights.get("error_weights")
    if found is None:
        return None
    architecture = architecture_of(weights)
    samples = architecture.leads * architecture.length
    shapes = (architecture.leads, architecture.length), (samples, samples)
    if not isinstance(found, Tensor) or tuple(found.shape) not in shapes:
        raise ValueError(
            f"error_weights should be {shapes[0]} or {shapes[1]}, as the beats are"
        )
    return found.to(device).unsqueeze(0)


def load_discriminator(weights: Mapping[str, Any], compute: Compute) -> StackedDiscriminator:
    """Load the discriminator as a stack of one.

    Raises:
        ValueError: As `load_generator`, or there is none.
    """
    values = _checked_values(weights, Discriminator, "discriminator")
    loaded = StackedDiscriminator(architecture_of(weights), 1, compute)
    loaded.put(0, values)
    return loaded


def check_values(
    network: type[Generator] | type[Discriminator],
    architecture: Architecture,
    values: object,
    *,
    part: str,
) -> None:
    """Check names and shapes of one student's values.

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
    """A generator and the mean squared error of its reconstructions in one module."""

    def __init__(self, generator: Generator, error_weights: Tensor | None = None) -> None:
        super().__init__()
        self.generator = generator
        self.error_weights = (
            None if error_weights is None else nn.Parameter(error_weights, False)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map beats (n, leads, length) to scores (n,) and their reconstructions."""
        fake = self.generator(x)
        scores = beat_errors(x.unsqueeze(1), fake.unsqueeze(1), self.error_weights)
        return scores.squeeze(1), fake


def score(
    weights: Mapping[str, Any], x: FloatArray, compute: Compute, *, batch: int = BATCH
) -> NDArray[np.float32]:
    """Compute the error of each beat's reconstruction by the kind of score of the weights.

    Args:
        weights: From a stack's ``weights``.
        x: Normalised and padded beats, shape (n, leads, length).
        compute: Device and precision; errors are computed in float32.
        batch: Number of beats at once.

    Returns:
        Shape (n,), float32; higher is more abnormal.

    Raises:
        ValueError: As `load_generator` and `load_error_weights`.
    """
    generator = load_generator(weights, compute)
    of_samples = load_error_weights(weights, compute.device)
    beats = from_numpy(x, compute.device)
    return stack_scores(generator, beats, error_weights=of_samples, batch=batch)[:, 0]


@torch.inference_mode()
def error_weights(
    kind: Score, generator: StackedGenerator, x: Tensor, *, batch: int = BATCH
) -> Tensor | None:
    """Compute the weights of errors from the usual errors of normal beats.

    A relative score weighs each sample's squared error by the inverse of its mean; the
    Mahalanobis distance (Mahalanobis, Proc. Nat. Inst. Sci. India 2, 1936) multiplies errors by
    a root of the inverse of their covariance. Both keep the plain score's mean over normal
    beats. For a student that diverged they are NaN, and so are its scores.

    Args:
        kind: Kind of score.
        generator: Of K students.
        x: Training beats, shape (n, leads, length), on the generator's device; an evenly
            spread part of them is used.
        batch: Number of beats at once.

    Returns:
        Weights for `beat_errors`, float32, on the same device: None for ``plain``, shape
        (K, leads, length) for ``relative``, (K, leads * length, leads * length) else.
    """
    if kind == "plain":
        return None
    count = min(len(x), USUAL_BEATS[kind])
    rows = torch.linspace(0, len(x) - 1, count, device=x.device).long()
    errors = (
        beats.unsqueeze(1) - fake for beats, fake in _reconstructions(generator, x[rows], batch)
    )
    if kind == "relative":
        sums = torch.stack([some.square().sum(dim=0) for some in errors]).sum(dim=0)
        usual = (sums / count).clamp(min=SMALLEST_ERROR)
        return usual.mean(dim=(1, 2), keepdim=True) / usual
    flat = (some.flatten(2).transpose(0, 1).double() for some in errors)
    covariance = torch.stack([some.mT @ some for some in flat]).sum(dim=0) / count
    variance = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=SMALLEST_ERROR)
    # Does not raise: one student's NaN must not affect the others.
    lower, failed = torch.linalg.cholesky_ex(covariance + RIDGE * torch.diag_embed(variance))
    unit = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device).expand_as(lower)
    root: Tensor = torch.linalg.solve_triangular(lower, unit, upper=False).mT
    root = root * variance.mean(dim=1)[:, None, None].sqrt()
    return root.masked_fill(failed.bool()[:, None, None], torch.nan).float()


@torch.inference_mode()
def stack_scores(
    generator: StackedGenerator,
    x: Tensor,
    *,
    error_weights: Tensor | None = None,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """Compute the scores of every student of a stack.

    Args:
        generator: Of K students.
        x: Beats, shape (n, leads, length), on the generator's device.
        error_weights: From the function of that name.
        batch: Number of beats at once.

    Returns:
        Shape (n, K), float32.
    """
    errors = [
        beat_errors(beats.unsqueeze(1), fake, error_weights)
        for beats, fake in _reconstructions(generator, x, batch)
    ]
    return torch.cat(errors).cpu().numpy()


def reconstruct(
    weights: Mapping[str, Any], x: FloatArray, compute: Compute, *, batch: int = BATCH
) -> NDArray[np.float32]:
    """Reconstruct beats.

    Args:
        weights: From a stack's ``weights``.
        x: Normalised and padded beats, shape (n, leads, length).
        compute: Device and precision.
        batch: Number of beats at once.

    Returns:
        Shape (n, leads, length), float32.

    Raises:
        ValueError: As `load_generator`.
    """
    generator = load_generator(weights, compute)
    beats = from_numpy(x, compute.device)
    return stack_reconstructions(generator, beats, batch=batch)[:, 0].numpy()


@torch.inference_mode()
def stack_reconstructions(
    generator: StackedGenerator, x: Tensor, *, batch: int = BATCH
) -> Tensor:
    """Reconstruct beats by every student of a stack.

    Args:
        generator: Of K students.
        x: Beats, shape (n, leads, length), on the generator's device.
        batch: Number of beats at once.

    Returns:
        Shape (n, K, leads, length), float32, on the CPU.
    """
    return torch.cat([fake.cpu() for _, fake in _reconstructions(generator, x, batch)])


def _reconstructions(
    generator: StackedGenerator, x: Tensor, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield beats (B, C, L) and the students' reconstructions (B, K, C, L) in float32."""
    norms = generator.evaluation_norms()
    for beats in torch.split(x, batch):
        real = beats.transpose(1, 2).unsqueeze(2).expand(-1, -1, generator.students, -1)
        fake = generator.forward(real.to(generator.matrices[0].dtype), norms).beats
        yield beats, fake.permute(0, 2, 3, 1)


def _checked_values(
    weights: Mapping[str, Any], network: type[Generator] | type[Discriminator], part: str
) -> NetworkState:
    values = weights.get(part)
    check_values(network, architecture_of(weights), values, part=part)
    assert isinstance(values, dict)
    return values


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)
