"""What a `TorchMethod` defines and a `TorchStack` trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from kdsearch.data.beats import BeatShape, TrainingData
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


class TorchNetworks(ABC):
    """Networks of a teacher and its students: how they are made, trained and scored."""

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
