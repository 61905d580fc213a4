"""The student: a few small layers between a beat and two numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.methods.memory.teacher import (
    FORMAT,
    METHOD,
    SMALLEST_STD,
    Components,
    principal_components,
    rows_of,
    standardised,
)
from kdsearch.methods.protocol import State

KIND = "student"
NetworkState = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What determines the layers.

    Attributes:
        leads: Of a beat, those of a context included.
        signal_leads: Those of the beat itself, which stand first.
        length: Padded samples of a beat.
        width: Units of a hidden layer.
        depth: Hidden layers.
        components: Linear features of each of the two views of a beat.
    """

    leads: int
    signal_leads: int
    length: int
    width: int
    depth: int
    components: int

    def as_dict(self) -> dict[str, int]:
        """Plain numbers."""
        return asdict(self)


class Scorer(nn.Module):
    """Linear features of a beat in two views, then hidden layers around which values pass by.

    Beats enter as they come, from -1 to 1 and with their context if any, and without it
    standardised, as the memory may compare them.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, self.signal = shape.width, shape.signal_leads
        self.range = nn.Linear(shape.leads * shape.length, shape.components)
        self.deviation = nn.Linear(self.signal * shape.length, shape.components)
        self.enter = nn.Linear(2 * shape.components, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(shape.depth - 1))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(shape.depth - 1))
        self.leave = nn.Linear(width, 2)

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


def _bend(x: Tensor) -> Tensor:
    # The usual approximation is several times faster on a CPU.
    return functional.gelu(x, approximate="tanh")


class ScoringNetwork(nn.Module):
    """Both answers as one score, weighted as they were in the loss."""

    def __init__(self, scorer: Scorer, alpha: float, w_contrast: float) -> None:
        super().__init__()
        self.scorer = scorer
        self.alpha, self.w_contrast = alpha, w_contrast

    def forward(self, x: Tensor) -> Tensor:
        """Map beats (n, leads, length) to scores (n,)."""
        taught, distorted = self.scorer(x)
        score: Tensor = self.alpha * taught + self.w_contrast * distorted
        return score


def initial_components(train: Tensor, signal: int, count: int) -> dict[str, Components]:
    """Principal components of both views of the training beats, shape (n, leads, length).

    The first ``signal`` leads are the beat itself, the others its context.

    Raises:
        ValueError: There are too few beats, or samples, for so many components.
    """
    found = {
        "range": principal_components(train.flatten(1), count),
        "deviation": principal_components(rows_of(train, "deviation", signal), count),
    }
    for components in found.values():
        if len(components.axes) < count:
            raise ValueError(
                f"student.components: {count} asked for, but {len(train)} training beats of "
                f"{train[0].numel()} samples have only {len(components.axes)}"
            )
    return found


def initial_state(
    shape: Shape, rng: torch.Generator, components: Mapping[str, Components] | None
) -> NetworkState:
    """A new student's values, on the CPU.

    Uniform as PyTorch has them (LeCun et al., Efficient BackProp, 1998, up to a constant).

    Args:
        shape: Of the network.
        rng: The student's own, on the CPU.
        components: What the linear features begin with; None begins with random ones.
    """
    network = Scorer(shape)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                reach = layer.in_features**-0.5
                layer.weight.uniform_(-reach, reach, generator=rng)
                layer.bias.uniform_(-reach, reach, generator=rng)
    if components is not None:
        for view, found in components.items():
            _begin_at(network.get_submodule(view), found)
    return network.state_dict()


def _begin_at(layer: nn.Module, found: Components) -> None:
    """Components, brought half of the way to equal variances.

    Whitened wholly, the last ones would be as loud as the first, and are mostly noise.
    """
    scale = found.variance.clamp(min=SMALLEST_STD**2) ** -0.25
    with torch.no_grad():
        layer.get_parameter("weight").copy_(found.axes * scale[:, None])
        layer.get_parameter("bias").copy_(-(found.axes @ found.mean) * scale)


def weights_state(
    shape: Shape, values: NetworkState, *, alpha: float, w_contrast: float
) -> State:
    """What `load_scoring` reads, for `torch.save`."""
    return {
        "format": FORMAT,
        "method": METHOD,
        "kind": KIND,
        "architecture": shape.as_dict(),
        "alpha": alpha,
        "w_contrast": w_contrast,
        "network": values,
    }


def load_scoring(weights: Mapping[str, Any], device: str) -> ScoringNetwork:
    """A student, ready to score.

    Raises:
        ValueError: Other names or shapes than the architecture's.
    """
    scorer = load_scorer(Shape(**weights["architecture"]), weights["network"])
    network = ScoringNetwork(scorer, weights["alpha"], weights["w_contrast"])
    return network.to(device).eval().requires_grad_(False)


def load_scorer(shape: Shape, values: NetworkState) -> Scorer:
    """A network with these values.

    Raises:
        ValueError: Other names or shapes than the architecture's.
    """
    network = Scorer(shape)
    try:
        network.load_state_dict(values)
    except RuntimeError as error:
        raise ValueError(f"weights of another network: {error}") from None
    return network
