"""Base class for methods whose teacher and students are torch modules.

A subclass of `TorchMethod` defines four short methods: `network`, `scores`, `losses` and
`teach`. Training, validation, checkpoints that resume bit for bit, divergence and stacks of
students are implemented here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from kdsearch.data.beats import BeatShape, FloatArray, TrainingData
from kdsearch.methods.checks import check_shape, check_weights
from kdsearch.methods.device import VALUES_OF_ADAM, autocast
from kdsearch.methods.protocol import Compute, Method, Sized, Stack, State, Targets
from kdsearch.methods.torch_stack import BATCH, FORMAT, TorchStack, load
from kdsearch.settings import Count, NotNegative, Positive, Section, Seed


class NetworkSettings(Section):
    """Training settings of every network; subclasses add their own, such as a width."""

    epochs: Count = 10
    """Passes over the training beats; for a student, the maximum of a trial."""
    batch_size: Count = 64
    """Beats in a mini-batch; the last, incomplete one is dropped."""
    lr: Positive = 1e-3
    """Learning rate of AdamW."""
    weight_decay: NotNegative = 0.0
    """Weight decay of AdamW."""


class TeacherSettings(NetworkSettings):
    """The YAML's section ``teacher``."""

    seed: Seed = 0
    """Seed of weights and mini-batches."""


class StudentSettings(NetworkSettings):
    """The YAML's sections ``student`` (fixed) and ``space`` (fixed or searched)."""

    alpha: NotNegative = 0.1
    """Weight of the distillation terms; 0 trains without distillation, as the control."""


class TorchMethod(ABC):
    """A teacher and its students as torch modules; implements the protocol ``Method``."""

    name: str = "torch"
    teacher_settings: type[BaseModel] = TeacherSettings
    student_settings: type[BaseModel] = StudentSettings
    per_student: frozenset[str] = frozenset({"alpha", "lr", "weight_decay"})
    """Settings that change neither a student's structure nor its targets. In `losses` those
    that are floats are tensors without dimensions."""
    longest_gradient: float | None = None
    """Maximum length of a gradient; longer ones are scaled down. None: no limit."""

    @abstractmethod
    def network(self, settings: Any, shape: BeatShape) -> nn.Module:
        """Return an untrained network for beats of this shape, on the CPU.

        Args:
            settings: Of the teacher's or the student's type; selects the network.
            shape: Of the beats.
        """

    @abstractmethod
    def scores(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return the anomaly score of each beat, higher is more abnormal.

        Args:
            x: Normalised and padded beats, shape (B, leads, length).

        Returns:
            Shape (B,).
        """

    @abstractmethod
    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the terms of a mini-batch's loss; `term_weights` gives their weights.

        One call in `torch.vmap` computes all students of a stack. If vmap refuses the code,
        such as an ``if`` on a tensor's value, the stack computes them one by one.

        Args:
            x: Normal beats, shape (B, leads, length).
            settings: Of the network that is trained; see `per_student`.
            taught: Rows of the result of `teach` for these beats, by name; empty while a
                teacher is trained.

        Returns:
            Scalars by name.
        """

    def teach(self, teacher: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """Return the students' targets for each training beat. Default: the teacher's scores.

        Args:
            teacher: In evaluation mode.
            x: Beats, shape (B, leads, length).

        Returns:
            Arrays by name, a row per beat, shape (B, ...).
        """
        return {"scores": self.scores(teacher, x)}

    def term_weights(self, settings: Any) -> Mapping[str, Any]:
        """Return the weights of the loss's terms by name; the default weight is 1."""
        return {}

    def learning_rate(self, settings: Any, progress: float) -> float:
        """Return the learning rate after the fraction ``progress`` of the training."""
        rate: float = settings.lr
        return rate

    def start(self, settings: Any, data: TrainingData) -> Mapping[str, Tensor]:
        """Return initial values that replace random ones, by parameter.

        Called once per stack; all its students start with them.
        """
        return {}

    def check(self, teacher: BaseModel, student: BaseModel) -> None:  # noqa: B027
        """Accept any pair; override to refuse some with a ValueError."""

    def training_values(self, settings: Any, shape: BeatShape) -> int:
        """Those of the parameters; 0 where `network` needs values to make one.

        What a mini-batch leaves is not known here.
        """
        try:
            with torch.device("meta"):
                network = self.network(settings, shape)
        except (RuntimeError, TypeError, ValueError):
            return 0
        return VALUES_OF_ADAM * sum(value.numel() for value in network.parameters())

    def teacher_stack(self, settings: BaseModel, data: TrainingData, compute: Compute) -> Stack:
        """Return a stack of one slot that trains a teacher."""
        return TorchStack(self, settings, 1, data=data, targets=None, compute=compute)

    def targets(
        self,
        teacher: State,
        students: Sequence[BaseModel],
        data: TrainingData,
        compute: Compute,
    ) -> Targets:
        """Compute `teach` for every training beat."""
        network = self.load(teacher).to(compute.device)
        return _in_batches(lambda x: self.teach(network, x), data.train, compute)

    def student_stack(
        self,
        settings: BaseModel,
        slots: int,
        *,
        data: TrainingData,
        teacher: State,
        targets: Targets,
        compute: Compute,
    ) -> Stack:
        """Return an empty stack for students."""
        return TorchStack(self, settings, slots, data=data, targets=targets, compute=compute)

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
    def _is_method(method: TorchMethod) -> Method:
        return method

    def _is_sized(method: TorchMethod) -> Sized:
        return method
