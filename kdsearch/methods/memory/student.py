"""The student: a small network that maps a beat to two numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.data.beats import BeatShape
from kdsearch.methods.memory.settings import StudentSettings
from kdsearch.methods.memory.teacher import (
    SMALLEST_STD,
    principal_components,
    rows_of,
    standardised,
)


class Scorer(nn.Module):
    """Linear features of two views of a beat, then hidden layers with residual connections.

    The two views are the beat as given, from -1 to 1 and with its context if any, and the
    standardised beat without context.

    Attributes:
        alpha: Weight of the memory's score in the student's own.
        w_contrast: Weight of the logit.
    """

    alpha: Tensor
    w_contrast: Tensor

    def __init__(self, settings: StudentSettings, shape: BeatShape) -> None:
        super().__init__()
        width, self.signal = settings.width, shape.signal_leads
        self.range = nn.Linear(shape.leads * shape.length, settings.components)
        self.deviation = nn.Linear(self.signal * shape.length, settings.components)
        self.enter = nn.Linear(2 * settings.components, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(settings.depth - 1))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(settings.depth - 1))
        self.leave = nn.Linear(width, 2)
        # Part of the settings, not of the weights.
        for name in ("alpha", "w_contrast"):
            value = torch.tensor(getattr(settings, name))
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map beats (n, leads, length) to the memory's score and to a logit, (n,) each.

        The logit is positive where a beat looks distorted.
        """
        beats = standardised(x[:, : self.signal]).flatten(1)
        views = [self.range(x.flatten(1)), self.deviation(beats)]
        values = _bend(self.enter(torch.cat(views, dim=1)))
        for norm, layer in zip(self.norms, self.hidden, strict=True):
            values = values + _bend(layer(norm(values)))
        taught, distorted = self.leave(values).float().unbind(dim=1)
        return taught, distorted

    def score(self, x: Tensor) -> Tensor:
        """Combine score and logit with their weights in the loss, shape (n,)."""
        taught, distorted = self(x)
        score: Tensor = self.alpha * taught + self.w_contrast * distorted
        return score


class ScoringNetwork(nn.Module):
    """A student as a module that returns scores."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (n, leads, length) to scores (n,)."""
        return self.scorer.score(x)


def _bend(x: Tensor) -> Tensor:
    # The tanh approximation is several times faster on a CPU.
    return functional.gelu(x, approximate="tanh")


def initial_components(train: Tensor, signal: int, count: int) -> dict[str, Tensor]:
    """Return weights and biases that compute the principal components of both views.

    Each is divided by the fourth root of its variance, half of whitening: fully whitened, the
    last components, which are mostly noise, would be as large as the first.

    Args:
        train: Training beats, shape (n, leads, length).
        signal: Number of leads of the beat itself; the others are its context.
        count: Components of each view.

    Raises:
        ValueError: There are fewer beats or samples than components.
    """
    values = {}
    views = {"range": train.flatten(1), "deviation": rows_of(train, "deviation", signal)}
    for view, rows in views.items():
        found = principal_components(rows, count)
        if len(found.axes) < count:
            raise ValueError(
                f"student.components: {count} is too many: {len(train)} training beats of "
                f"{train[0].numel()} samples have only {len(found.axes)}"
            )
        scale = found.variance.clamp(min=SMALLEST_STD**2) ** -0.25
        values[f"{view}.weight"] = found.axes * scale[:, None]
        values[f"{view}.bias"] = -(found.axes @ found.mean) * scale
    return values
