"""Base class for methods whose teacher and students are torch modules.

A subclass of `TorchMethod` defines four short methods: `network`, `scores`, `losses` and
`teach`. Training, validation, checkpoints that resume bit for bit, divergence and stacks of
students are implemented here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from kdsearch.data.beats import BeatShape, FloatArray
from kdsearch.methods.checks import check_shape, check_weights
from kdsearch.methods.device import VALUES_OF_ADAM, autocast
from kdsearch.methods.protocol import (
    SCORES,
    Compute,
    Method,
    Sized,
    Stack,
    State,
    Targets,
    Task,
    Teachable,
)
from kdsearch.methods.torch_networks import (
    NetworkSettings,
    StudentSettings,
    TeacherSettings,
    TorchNetworks,
)
from kdsearch.methods.torch_stack import BATCH, FORMAT, TorchStack, load
from kdsearch.settings import Count, NotNegative, Positive

# All that a user's method needs.
__all__ = [
    "Count",
    "NetworkSettings",
    "NotNegative",
    "Positive",
    "StudentSettings",
    "TeacherSettings",
    "TorchMethod",
]


class TorchMethod(TorchNetworks):
    """A teacher and its students as torch modules; implements the protocol ``Method``."""

    def check(self, teacher: BaseModel, student: BaseModel) -> None:
        """Accept any pair; override to refuse some with a ValueError."""

    def training_values(self, settings: Any, shape: BeatShape) -> int:
        """Count the parameters and what Adam keeps of them; activations are not known here.

        0 if `network` cannot be created on the meta device.
        """
        try:
            with torch.device("meta"):
                network = self.network(settings, shape)
        except (RuntimeError, TypeError, ValueError):
            return 0
        return VALUES_OF_ADAM * sum(value.numel() for value in network.parameters())

    def structure(self, settings: BaseModel) -> str:
        """Return a key of all settings but those in `per_student`."""
        return settings.model_dump_json(exclude=set(self.per_student))

    def teacher_stack(self, settings: BaseModel, task: Task) -> Stack:
        """Return a stack of one slot that trains a teacher."""
        return TorchStack(self, settings, 1, task)

    def targets(self, students: Sequence[BaseModel], task: Task) -> Targets:
        """Compute `teach` for every training beat."""
        network = self.load(task.teacher).to(task.compute.device)
        return _in_batches(lambda x: self.teach(network, x), task.data.train, task.compute)

    def needs(self, student: BaseModel) -> frozenset[str]:
        """Return what students need of a teacher that this method did not train.

        Scores, unless `teach` is overridden: then networks of this method.
        """
        only_scores = type(self).teach is TorchMethod.teach
        return frozenset({SCORES if only_scores else f"networks of {self.name}"})

    def gives(self, teacher: State) -> frozenset[str]:
        """Return the names of everything that `teach` may compute."""
        return frozenset({SCORES, f"networks of {self.name}"})

    def check_start(self, teacher: State, student: BaseModel) -> None:
        """Accept any; students do not start from their teacher's weights."""

    def targets_of_scores(
        self, scores: NDArray[np.float32], students: Sequence[BaseModel], task: Task
    ) -> Targets:
        """Return the scores as the default of `teach` does."""
        return {"scores": scores}

    def joined(self, targets: Sequence[Targets]) -> Targets:
        """Compute the mean of the targets of an ensemble's members; override as needed."""
        return {
            name: np.mean(np.stack([part[name] for part in targets]), axis=0, dtype=np.float32)
            for name in targets[0]
        }

    def student_stack(self, settings: BaseModel, slots: int, task: Task) -> Stack:
        """Return an empty stack for students."""
        return TorchStack(self, settings, slots, task)

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Compute the anomaly score of each beat, shape (n,).

        Raises:
            ValueError: The weights are of another method, or of beats of another shape.
        """
        self.check_weights(weights, x)
        network = self.load(weights).to(compute.device)
        return _in_batches(lambda batch: {"": self.scores(network, batch)}, x, compute)[""]

    def check_weights(self, weights: State, x: FloatArray) -> None:
        """Raise a ValueError for weights of another method or beats of another shape."""
        check_weights(weights, method=self.name, version=FORMAT)
        check_shape(x, tuple(weights["shape"][:2]))

    def load(self, weights: State) -> nn.Module:
        """Return a network with these weights, on the CPU, in evaluation mode.

        Raises:
            ValueError: Names or shapes do not match the settings.
        """
        is_teacher = weights["kind"] == "teacher"
        kind = self.teacher_settings if is_teacher else self.student_settings
        settings = kind.model_validate(weights["settings"])
        network = self.network(settings, BeatShape(*weights["shape"]))
        load(network, weights["network"])
        return network.eval()


def _in_batches(
    function: Callable[[Tensor], dict[str, Tensor]], x: FloatArray, compute: Compute
) -> dict[str, NDArray[np.float32]]:
    """Apply a function to all beats in batches; return its arrays by name."""
    parts: list[dict[str, Tensor]] = []
    with torch.inference_mode(), autocast(compute):
        for start in range(0, len(x), BATCH):
            batch = np.ascontiguousarray(x[start : start + BATCH])
            parts.append(function(torch.from_numpy(batch).to(compute.device)))
    return {
        name: torch.cat([part[name].float() for part in parts]).cpu().numpy()
        for name in parts[0]
    }


if TYPE_CHECKING:
    # The type checker proves here that the protocol is kept.
    def _protocols(method: TorchMethod) -> tuple[Method, Sized, Teachable]:
        return method, method, method
