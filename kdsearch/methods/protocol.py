"""The protocol between the harness and a method; neither depends on more of the other.

The harness (search, teacher cache, run folder, verdict) uses any pair of a teacher and a
student only through these calls, also those of `kdsearch.methods.beatgan` and
`kdsearch.methods.memory`. A method does not depend on Ray, YAML files or run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.data.beats import BeatShape, FloatArray, TrainingData

if TYPE_CHECKING:
    from torch import nn

# Nested dicts and lists of tensors, numbers and strings: what `torch.save` writes and
# `torch.load(weights_only=True)` reads back.
State = dict[str, Any]
# What a student is taught, one row per training beat, keyed by the name of the target.
Targets = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Compute:
    """Where and how precisely to calculate; resolved, never ``auto``."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class EpochReport:
    """What one student did in one epoch.

    Attributes:
        epoch: Epochs trained so far, counted from 1.
        losses: Mean over the epoch's mini-batches, by term.
        seconds: Wall time of the epoch; in a stack, its time divided by its students.
        val_auc: Area under the ROC curve on the validation beats, abnormal being positive.
        val_ap: Average precision, likewise.
    """

    epoch: int
    losses: dict[str, float]
    seconds: float
    val_auc: float
    val_ap: float


class Stack(Protocol):
    """Up to K networks of one architecture that train side by side, independent of each other.

    A slot is empty until something is put in. The numbers of a student do not depend on what
    its neighbours do.
    """

    slots: int

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start a student in an empty slot, new or going on from a saved state."""

    def take_out(self, slot: int) -> None:
        """Empty a slot."""

    def advance(self) -> Mapping[int, EpochReport | Exception]:
        """Train every occupied slot for one epoch and validate it.

        A student that diverged has a `TrialDiverged` in place of its report, and its slot is
        empty afterwards; the others are not touched by it.
        """

    def save(self, slot: int) -> State:
        """Everything needed to go on from the end of the last epoch, bit for bit."""

    def weights(self, slot: int) -> State:
        """What scoring needs, and nothing else; describes its own architecture."""


class Method(Protocol):
    """A teacher, its students and their score."""

    name: str
    teacher_settings: type[BaseModel]
    """The YAML's section ``teacher``; has ``epochs`` and ``seed``."""
    student_settings: type[BaseModel]
    """The YAML's sections ``student`` and ``space`` together; has ``epochs``."""
    per_student: frozenset[str]
    """Student settings that may differ inside one stack; all others must agree."""

    def check(self, teacher: BaseModel, student: BaseModel) -> None:
        """Refuse a pair that cannot work together, before anything is trained.

        Raises:
            ValueError: Names the settings and the rule that they break.
        """

    def teacher_stack(self, settings: BaseModel, data: TrainingData, compute: Compute) -> Stack:
        """A stack of one slot that trains a teacher: no distillation."""

    def targets(
        self,
        teacher: State,
        students: Sequence[BaseModel],
        data: TrainingData,
        compute: Compute,
    ) -> Targets:
        """What these students' distillation terms need of the teacher, computed once."""

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
        """An empty stack for students of the architecture that ``settings`` names."""

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Anomaly score of each beat, higher is more abnormal.

        Args:
            weights: From `Stack.weights`.
            x: Normalised and padded beats, shape (n, leads, length).

        Returns:
            Shape (n,).
        """


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


@runtime_checkable
class Sized(Protocol):
    """A method that knows before it makes a network how much memory its training takes."""

    def training_values(self, settings: BaseModel, shape: BeatShape) -> int:
        """Numbers of 4 bytes that training one network of these settings holds, roughly.

        Its values, their gradients, both of Adam's moments, and what a mini-batch leaves for
        the way back; 0 where that is not known. Makes nothing of that size.
        """
