"""The teacher: distance of a beat to the nearest stored normal beats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdsearch.data.beats import FloatArray
from kdsearch.data.context import signal_leads
from kdsearch.errors import ConfigError, DataError
from kdsearch.methods.device import from_numpy
from kdsearch.methods.memory.settings import TeacherSettings, View
from kdsearch.methods.protocol import State

FORMAT = 2
METHOD = "memory"
KIND = "teacher"

# Number of beats compared at once.
BATCH = 256
# Number of neighbours that give the density around a stored beat.
AROUND = 11
# Added to distances before the logarithm: a stored beat has distance 0 from itself.
SMALLEST_DISTANCE = 1e-2
# Flat beats and constant features keep their scale.
SMALLEST_STD = 1e-6
# The QRS complex of a beat of 320 samples, whose R peak is sample 140.
QRS = (100 / 320, 185 / 320)


@dataclass(frozen=True)
class Components:
    """Principal components.

    Attributes:
        mean: Shape (features,).
        axes: Shape (components, features), of unit length.
        variance: Variance along each axis, shape (components,), the largest first.
    """

    mean: Tensor
    axes: Tensor
    variance: Tensor

    def project(self, rows: Tensor) -> Tensor:
        """Map rows (n, features) to (n, components)."""
        return (rows - self.mean) @ self.axes.T


def principal_components(rows: Tensor, count: int) -> Components:
    """Compute at most ``count`` principal components of rows, shape (n, features)."""
    count = min(count, len(rows) - 1, rows.shape[1])
    mean = rows.mean(dim=0)
    centred = rows - mean
    variance, axes = torch.linalg.eigh((centred.T @ centred / (len(rows) - 1)).double())
    largest = torch.arange(len(variance) - 1, len(variance) - 1 - count, -1)
    return Components(
        mean, axes.T[largest].float().contiguous(), variance[largest].clamp(min=0).float()
    )


def rows_of(x: Tensor, view: View, signal: int) -> Tensor:
    """Return beats (n, leads, length) as rows (n, features) in the leads and scale of a view.

    The first ``signal`` leads are the beat itself, the others its context.
    """
    if view == "patient":
        return x[:, signal:].flatten(1)
    if view == "deviation":
        return standardised(x[:, :signal]).flatten(1)
    return x[:, :signal].flatten(1)


def standardised(x: Tensor) -> Tensor:
    """Scale each beat and lead, shape (n, leads, length), to mean 0 and std 1."""
    # Several times faster on a CPU than torch.std_mean.
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / variance.sqrt().clamp(min=SMALLEST_STD)


def fill(settings: TeacherSettings, train: Tensor, *, context: bool = False) -> State:
    """Store normal beats.

    Args:
        settings: How beats are compared.
        train: The beats, shape (n, leads, length).
        context: Whether they have leads of a context.

    Returns:
        A memory for `recall`: the stored beats, reduced to their components.

    Raises:
        DataError: There are fewer beats than neighbours.
        ConfigError: The view is ``patient``, but there is no context.
    """
    if settings.view == "patient" and not context:
        raise ConfigError("teacher.view: 'patient' needs data.context: patient, found none")
    needed = max(settings.neighbours, AROUND) + 1
    if len(train) < needed:
        raise DataError(
            f"data: a memory needs at least {needed} normal beats to train on, but there are "
            f"{len(train)}"
        )
    views: tuple[View, ...] = ("range", "deviation")
    chosen = views if settings.view == "both" else (settings.view,)
    signal = signal_leads(train.shape[1], context=context)
    return {
        "format": FORMAT,
        "method": METHOD,
        "kind": KIND,
        "shape": list(train.shape[1:]),
        "signal_leads": signal,
        "neighbours": settings.neighbours,
        "density": settings.density,
        "views": [_fill_view(settings, view, train, signal) for view in chosen],
    }


def _fill_view(settings: TeacherSettings, view: View, train: Tensor, signal: int) -> State:
    weights = _sample_weights(settings, signal, train.shape[2], rhythm=view == "patient")
    rows = rows_of(train, view, signal) * weights
    found = principal_components(rows, settings.components)
    points = found.project(rows)
    # The nearest is the beat itself.
    distances, nearest = _nearest(points, points, max(settings.neighbours, AROUND) + 1)
    log_density = _log(distances[:, 1 : AROUND + 1].mean(dim=1))
    memory = {
        "view": view,
        # Weights are part of the axes, so that they cost no time in `recall`.
        "axes": found.axes * weights,
        "offset": found.axes @ found.mean,
        "points": points,
        "log_density": log_density,
    }
    nearest_others = distances[:, 1 : settings.neighbours + 1]
    own = _score(nearest_others, log_density[nearest[:, 1]], settings.density)
    mean, std = float(own.mean()), float(own.std())
    own = (own - mean) / max(std, SMALLEST_STD)
    return {**memory, "own": own, "mean": mean, "std": std}


def _sample_weights(
    settings: TeacherSettings, leads: int, length: int, *, rhythm: bool
) -> Tensor:
    """Return weights of samples, shape (leads * length,), plus length for a rhythm lead."""
    weights = torch.ones(length)
    weights[: round(QRS[0] * length)] = settings.weight_before
    weights[round(QRS[1] * length) :] = settings.weight_after
    if not rhythm:
        return weights.repeat(leads)
    return torch.cat([weights.repeat(leads), torch.full((length,), settings.weight_rhythm)])


def own_scores(memory: State) -> NDArray[np.float32]:
    """Return the scores of the stored beats, each without itself as a neighbour."""
    own: NDArray[np.float32] = (
        torch.stack([view["own"] for view in memory["views"]]).mean(dim=0).numpy()
    )
    return own


class Recall(nn.Module):
    """A memory as a network whose parameters are the stored beats."""

    def __init__(self, memory: State) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            _View(view, memory["neighbours"], memory["density"], memory["signal_leads"])
            for view in memory["views"]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (n, leads, length) to scores (n,)."""
        return torch.stack([view(x) for view in self.views]).mean(dim=0)


class _View(nn.Module):
    def __init__(
        self, view: Mapping[str, Any], neighbours: int, density: float, signal: int
    ) -> None:
        super().__init__()
        self.view: View = view["view"]
        self.signal = signal
        self.neighbours, self.density = neighbours, density
        self.mean, self.std = view["mean"], max(view["std"], SMALLEST_STD)
        self.axes, self.offset, self.points, self.log_density = (
            nn.Parameter(view[name], requires_grad=False)
            for name in ("axes", "offset", "points", "log_density")
        )

    def nearest(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return distances to the nearest stored beats and their rows, both (n, count)."""
        points = rows_of(x, self.view, self.signal) @ self.axes.T - self.offset
        return _nearest(points, self.points, count)

    def forward(self, x: Tensor) -> Tensor:
        distances, nearest = self.nearest(x, self.neighbours)
        scores = _score(distances, self.log_density[nearest[:, 0]], self.density)
        relative: Tensor = (scores - self.mean) / self.std
        return relative


@torch.inference_mode()
def recall(memory: State, x: FloatArray) -> NDArray[np.float32]:
    """Compute how much each beat differs from all stored beats.

    The logarithm of the Euclidean distance to the nearest neighbours, minus ``density`` times
    the logarithm of the distances around the nearest one, as in the local outlier factor
    (Breunig et al., SIGMOD 2000). In standard deviations of the stored beats' own scores,
    averaged over the views.

    Args:
        memory: From `fill`.
        x: Normalised and padded beats, shape (n, leads, length).

    Returns:
        Shape (n,); higher is more abnormal.
    """
    network = Recall(memory)
    batches = torch.split(from_numpy(x, "cpu"), 8 * BATCH)
    return torch.cat([network(beats) for beats in batches]).numpy()


@torch.inference_mode()
def nearest_stored(memory: State, x: FloatArray) -> NDArray[np.int64]:
    """Return the row of the nearest stored beat of each beat, in the first view, shape (n,).

    Args:
        memory: From `fill`.
        x: Normalised and padded beats, shape (n, leads, length).
    """
    view = _View(
        memory["views"][0], memory["neighbours"], memory["density"], memory["signal_leads"]
    )
    rows: NDArray[np.int64] = view.nearest(from_numpy(x, "cpu"), 1)[1][:, 0].numpy()
    return rows


def _nearest(points: Tensor, among: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return Euclidean distances to the nearest rows and row numbers, both (n, count)."""
    squares = among.square().sum(dim=1)
    distances, rows = [], []
    for some in torch.split(points, BATCH):
        less = torch.addmm(squares, some, among.T, alpha=-2)
        found, index = (
            less.min(dim=1, keepdim=True)
            if count == 1
            else less.topk(count, dim=1, largest=False)
        )
        distances.append((found + some.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt())
        rows.append(index)
    return torch.cat(distances), torch.cat(rows)


def _score(distances: Tensor, log_density: Tensor, density: float) -> Tensor:
    return _log(distances.mean(dim=1)) - density * log_density


def _log(distances: Tensor) -> Tensor:
    return (distances + SMALLEST_DISTANCE).log()
