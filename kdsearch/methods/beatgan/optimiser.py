"""Adam for a stack: every student has its own learning rate and its own age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETA2 = 0.999
EPSILON = 1e-8

AdamState = dict[str, Any]


class StackedAdam:
    """Adam (Kingma & Ba 2015) on the rows that each student owns.

    Students enter a stack at different times, so that step counts, and with them the
    corrections of the moments' bias, differ between neighbours. For each student this is
    exactly ``torch.optim.Adam(fused=True)``.

    Args:
        network: Of K students; student k owns the k-th of K parts of dim 0 of a parameter.
        lr: One learning rate per student; its length is K.
        beta1: Decay of the first moment.
    """

    def __init__(self, network: nn.Module, lr: Sequence[float], beta1: float) -> None:
        named = dict(network.named_parameters())
        self.parameters: list[Tensor] = list(named.values())
        self._names = list(named)
        self._lr = list(lr)
        self._beta1 = beta1
        self._means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._steps = self._new_steps()
        # The views are made once: slicing dozens of parameters per step costs more than Adam.
        self._views = list(
            zip(
                self._per_student([p.detach() for p in self.parameters]),
                self._per_student(self._means),
                self._per_student(self._squares),
                self._steps,
                strict=True,
            )
        )

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move all students along gradients, given in the order of ``parameters``."""
        for lr, gradient, (values, means, squares, steps) in zip(
            self._lr, self._per_student(gradients), self._views, strict=True
        ):
            adam(
                values,
                gradient,
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=self._beta1,
                beta2=BETA2,
                lr=lr,
                weight_decay=0.0,
                eps=EPSILON,
                maximize=False,
            )

    def put(self, k: int, state: AdamState) -> None:
        """Set student k's moments and age from what `take` returned."""
        for steps in self._steps[k]:
            steps.fill_(float(state["step"]))
        for moments, key in ((self._means, "exp_avg"), (self._squares, "exp_avg_sq")):
            for moment, name in zip(moments, self._names, strict=True):
                saved = state[key].get(name)
                rows = self._rows(moment, k)
                rows.zero_() if saved is None else rows.copy_(saved)

    def take(self, k: int) -> AdamState:
        """Copies of student k's moments, with the shapes of a single student, and its age."""
        return {
            "step": int(self._steps[k][0]),
            "exp_avg": self._named_rows(self._means, k),
            "exp_avg_sq": self._named_rows(self._squares, k),
        }

    def _named_rows(self, moments: list[Tensor], k: int) -> dict[str, Tensor]:
        rows = (self._rows(moment, k).clone() for moment in moments)
        return dict(zip(self._names, rows, strict=True))

    def _rows(self, value: Tensor, k: int) -> Tensor:
        each = value.shape[0] // len(self._lr)
        return value[k * each : (k + 1) * each]

    def _new_steps(self) -> list[list[Tensor]]:
        # The fused kernel wants a counter per parameter, on the parameter's device.
        return [
            [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]
            for _ in self._lr
        ]

    def _per_student(self, values: Sequence[Tensor]) -> list[list[Tensor]]:
        """Rows of each student as flat views: [k][parameter]."""
        students = len(self._lr)
        if students == 1:
            return [[value.contiguous() for value in values]]
        parts = [value.reshape(students, -1).unbind(0) for value in values]
        return [list(rows) for rows in zip(*parts, strict=True)]


def new_adam_state() -> AdamState:
    """The state of a student that has not taken a step: its moments are zero, so not kept."""
    return {"step": 0, "exp_avg": {}, "exp_avg_sq": {}}
