"""Adam for BeatGAN's stacks: every student has its own learning rate and step count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdsearch.methods.beatgan import kernels
from kdsearch.methods.beatgan.stacked import Parameters

BETA2 = 0.999
EPSILON = 1e-8
# Columns processed at once: on a CPU as many as fit into its cache; on a GPU all.
CHUNK = {"cpu": 2**16}

AdamState = dict[str, Any]


class StackedAdam:
    """Adam (Kingma & Ba 2015) on all rows of a stack's parameters at once.

    Students enter a stack at different times, so that their step counts differ. The update of
    each is that of torch.optim.Adam; a learning rate of 0 changes nothing.

    Args:
        parameters: Updated in place.
        beta1: Decay of the first moment.

    Attributes:
        lr: Learning rates, shape (K,).
    """

    def __init__(self, parameters: Parameters, beta1: float) -> None:
        self._parameters = parameters
        self._beta1 = beta1
        values = parameters.values
        self.lr = values.new_zeros(len(values))
        self._age = torch.zeros(len(values), dtype=torch.float64, device=values.device)
        self._means, self._squares = torch.zeros_like(values), torch.zeros_like(values)
        size = CHUNK.get(values.device.type, values.shape[1])
        buffers = values, parameters.low, parameters.gradients, self._means, self._squares
        self._buffers = buffers
        self._chunks = list(zip(*(torch.split(b, size, dim=1) for b in buffers), strict=True))

    def step(self) -> None:
        """Update all students."""
        self._age += 1
        # In float64, because 1 - 0.999 has only four exact digits in float32.
        first, second = (1 - beta**self._age for beta in (self._beta1, BETA2))
        root = second.sqrt()
        pace = (self.lr * root / first).to(self.lr.dtype).unsqueeze(1)
        epsilon = (EPSILON * root).to(self.lr.dtype).unsqueeze(1)
        if pace.is_cuda and kernels.available():
            kernels.adam(*self._buffers, pace, epsilon, betas=(self._beta1, BETA2))
        else:
            self._move(pace, epsilon)
        self._parameters.refresh_norms()

    def _move(self, pace: Tensor, epsilon: Tensor) -> None:
        for values, low, gradient, means, squares in self._chunks:
            full = gradient.to(values.dtype)
            means.lerp_(full, 1 - self._beta1)
            squares.mul_(BETA2).addcmul_(full, full, value=1 - BETA2)
            change = squares.sqrt().add_(epsilon)
            torch.div(means, change, out=change)
            values.addcmul_(change, pace, value=-1)
            low.copy_(values)

    def put(self, k: int, state: AdamState) -> None:
        """Set student k's moments and step count to what `take` returned."""
        self._age[k] = float(state["step"])
        self._means[k] = self._parameters.row(state["exp_avg"])
        self._squares[k] = self._parameters.row(state["exp_avg_sq"])

    def take(self, k: int) -> AdamState:
        """Return copies of student k's moments, with published shapes, and its step count."""
        return {
            "step": int(self._age[k]),
            "exp_avg": self._parameters.named(self._means[k]),
            "exp_avg_sq": self._parameters.named(self._squares[k]),
        }


def new_adam_state() -> AdamState:
    """Return the state before the first step; moments are zero and left out."""
    return {"step": 0, "exp_avg": {}, "exp_avg_sq": {}}
