"""AdamW for all students of a stack in one step."""

from __future__ import annotations

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999
EPSILON = 1e-8


class StackedAdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019) on the rows of a matrix, one per student.

    Each row has its own number of steps, learning rate and weight decay. The result for each
    row is that of `torch.optim.AdamW`.

    Args:
        values: The parameters, shape (K, P), float32; changed in place.

    Attributes:
        means: First moments, shape (K, P).
        squares: Second moments, shape (K, P).
        ages: Steps taken, shape (K, 1), float64.
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self.means = torch.zeros_like(values)
        self.squares = torch.zeros_like(values)
        self.ages = torch.zeros(len(values), 1, dtype=torch.float64, device=values.device)

    def step(self, gradients: Tensor, *, lr: Tensor, weight_decay: Tensor) -> None:
        """Update the first n rows.

        Args:
            gradients: Shape (n, P).
            lr: Shape (n, 1).
            weight_decay: Shape (n, 1).
        """
        n = len(gradients)
        values, means, squares = self._values[:n], self.means[:n], self.squares[:n]
        ages = self.ages[:n]
        ages.add_(1)
        size = lr / (1 - BETA1**ages).float()
        correction = (1 - BETA2**ages).sqrt().float()
        means.lerp_(gradients, 1 - BETA1)
        squares.mul_(BETA2).addcmul_(gradients, gradients, value=1 - BETA2)
        denominator = squares.sqrt().div_(correction).add_(EPSILON)
        values.mul_(1 - lr * weight_decay).addcdiv_(means * size, denominator, value=-1)

    def put(self, row: int, state: dict[str, Tensor] | None) -> None:
        """Set a row's moments and age to what `take` returned; None resets them to zero."""
        for name in ("means", "squares", "ages"):
            target = getattr(self, name)[row]
            target.zero_() if state is None else target.copy_(state[name])

    def take(self, row: int) -> dict[str, Tensor]:
        """Return copies of a row's moments and age, on the CPU."""
        return {
            name: getattr(self, name)[row].to("cpu", copy=True)
            for name in ("means", "squares", "ages")
        }

    def move(self, source: int, row: int) -> None:
        """Copy one row over another."""
        for tensor in (self.means, self.squares, self.ages):
            tensor[row].copy_(tensor[source])
