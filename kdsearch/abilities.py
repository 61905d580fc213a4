"""What a method may be able to do besides scoring; pictures and the export ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import FloatArray
from kdsearch.method import Compute, State

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Reconstructing(Protocol):
    """A method that says what it expected of a beat."""

    def reconstruct(
        self, weights: State, x: FloatArray, compute: Compute
    ) -> NDArray[np.float32]:
        """Reconstructions of normalised and padded beats, both of shape (n, leads, length)."""


@runtime_checkable
class Exporting(Protocol):
    """A method whose scores can be calculated without it."""

    def scoring_network(self, weights: State) -> nn.Module:
        """A network on the CPU, in evaluation mode, that `torch.export` can follow.

        It maps normalised and padded beats (n, leads, length) to their scores (n,), equal to
        those of `Method.score`; that of a method which is `Reconstructing` to scores and
        reconstructions (n, leads, length).
        """
