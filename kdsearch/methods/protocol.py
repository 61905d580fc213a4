"""The protocol between the harness and a method.

The harness (search, teacher cache, run folder, verdict) uses every method through these calls
alone, including `kdsearch.methods.beatgan` and `kdsearch.methods.memory`. A method does not
depend on Ray, YAML files or run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.data.beats import BeatShape, FloatArray, TrainingData
from kdsearch.metrics.ranking import Metric

if TYPE_CHECKING:
    from torch import nn

# Nested dicts and lists of tensors, numbers and strings, as `torch.load(weights_only=True)`
# can read them.
State = dict[str, Any]
# What students learn from a teacher: by the name of the target, one or more rows per
# training beat.
Targets = Mapping[str, NDArray[np.float32]]
# What every teacher gives, and what a student needs to start from its teacher.
SCORES, WEIGHTS = "scores", "weights"


@dataclass(frozen=True)
class Compute:
    """Device and precision of the calculation; resolved, never ``auto``."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Task:
    """What the networks of a search learn from.

    Attributes:
        data: Training and validation beats.
        compute: Where and how precisely to calculate.
        teacher: Weights of the trained teacher; empty while it is trained.
        targets: What `Method.targets` computed with this teacher; empty before.
    """

    data: TrainingData
    compute: Compute
    teacher: State = field(default_factory=dict)
    targets: Targets = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedEpoch:
    """What a stack returns of one student after an epoch; numbers may be NaN or infinite.

    After a part of an epoch, losses and seconds are those of that part.

    Attributes:
        epoch: The epoch, counted from 1.
        losses: Mean over the epoch's mini-batches, by term.
        seconds: Wall time of the epoch; in a stack, its time divided by its students.
        scores: Anomaly scores of the validation beats, shape (n,).
    """

    epoch: int
    losses: dict[str, float]
    seconds: float
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class EpochReport:
    """What the harness records of one student's epoch; all numbers are finite.

    Within an epoch, losses and seconds are of the mini-batches since the report before.

    Attributes:
        epoch: Epochs trained so far; a fraction at a report within an epoch.
        losses: Mean over the epoch's mini-batches, by term.
        seconds: Wall time of the epoch; in a stack, its time divided by its students.
        val_auc: Area under the ROC curve on the validation beats, abnormal being positive.
        val_ap: Average precision, likewise.
    """

    epoch: int | float
    losses: dict[str, float]
    seconds: float
    val_auc: float
    val_ap: float

    def value(self, metric: Metric) -> float:
        """What the search maximises."""
        return self.val_auc if metric == "val_auc" else self.val_ap


class Stack(Protocol):
    """Up to K networks of one structure that train side by side, independent of each other.

    The numbers of a student do not depend on its neighbours, but their rounding may depend on
    the number of slots.
    """

    slots: int

    @property
    def steps(self) -> int:
        """Mini-batches of an epoch."""

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start a student in an empty slot, new or resumed from a saved state."""

    def take_out(self, slot: int) -> None:
        """Empty a slot."""

    def advance(self, steps: int | None = None) -> Mapping[int, TrainedEpoch]:
        """Train every occupied slot for one epoch and score the validation beats.

        Students that diverged are returned like the others: the harness checks all numbers.

        Args:
            steps: Number of mini-batches, if not a whole epoch; at most what is left of any
                student's epoch. An epoch in parts gives the same weights as a whole one, bit
                for bit.
        """

    def save(self, slot: int) -> State:
        """Return everything needed to resume where `advance` ended, bit for bit."""

    def weights(self, slot: int) -> State:
        """Return what scoring needs, which describes its own architecture."""


class Method(Protocol):
    """A teacher, its students and their score."""

    name: str
    teacher_settings: type[BaseModel]
    """The YAML's section ``teacher``; has ``epochs`` and ``seed``."""
    student_settings: type[BaseModel]
    """The YAML's sections ``student`` and ``space`` together; has ``epochs``."""

    def structure(self, settings: BaseModel) -> str:
        """Return a key of the settings that all networks of one stack share.

        Students of equal structure have the same architecture and the same targets.
        """

    def check(self, teacher: BaseModel, student: BaseModel) -> None:
        """Refuse a pair that cannot work together, before anything is trained.

        Raises:
            ValueError: Names the settings and the rule that they break.
        """

    def teacher_stack(self, settings: BaseModel, task: Task) -> Stack:
        """Return a stack of one slot that trains a teacher: no distillation."""

    def targets(self, students: Sequence[BaseModel], task: Task) -> Targets:
        """Compute what these students learn from the task's teacher; called once."""

    def student_stack(self, settings: BaseModel, slots: int, task: Task) -> Stack:
        """Return an empty stack for students of the structure of ``settings``."""

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Compute the anomaly score of each beat, higher is more abnormal.

        Args:
            weights: From `Stack.weights`.
            x: Normalised and padded beats, shape (n, leads, length).

        Returns:
            Shape (n,).
        """


@runtime_checkable
class Reconstructing(Protocol):
    """A method that reconstructs beats."""

    def reconstruct(
        self, weights: State, x: FloatArray, compute: Compute
    ) -> NDArray[np.float32]:
        """Reconstruct normalised and padded beats; shape (n, leads, length), as the input."""


@runtime_checkable
class Comparing(Protocol):
    """A method whose teacher compares beats with the training beats."""

    def nearest(self, weights: State, x: FloatArray) -> NDArray[np.int64] | None:
        """Return the row of the training beat that is nearest to each beat, shape (n,).

        None for weights that keep no training beats.
        """


@runtime_checkable
class Exporting(Protocol):
    """A method whose students can be exported as a torch module."""

    def scoring_network(self, weights: State) -> nn.Module:
        """Return a network on the CPU, in evaluation mode, that `torch.export` can trace.

        It maps normalised and padded beats (n, leads, length) to scores (n,) equal to those
        of `Method.score`. If the method is `Reconstructing`, it returns scores and
        reconstructions (n, leads, length).
        """


@runtime_checkable
class Sized(Protocol):
    """A method that can estimate a network's memory without creating the network."""

    def training_values(self, settings: BaseModel, shape: BeatShape) -> int:
        """Estimate the memory for training one network, in numbers of 4 bytes.

        Counts parameters, gradients, both moments of Adam, and the activations of a
        mini-batch; 0 means unknown. Allocates nothing of that size.
        """


@runtime_checkable
class Teachable(Protocol):
    """A method whose students can learn from a teacher that the method did not train.

    What teachers give has names. Every teacher gives `SCORES`; the other names are the method's
    own, such as ``reconstruction``.
    """

    def needs(self, student: BaseModel) -> frozenset[str]:
        """What this student's targets and initial weights need of the teacher, by name."""

    def gives(self, teacher: State) -> frozenset[str]:
        """What these weights of this method give as a teacher, by name."""

    def check_start(self, teacher: State, student: BaseModel) -> None:
        """Refuse a student that cannot start from these weights.

        Raises:
            ValueError: Names what differs.
        """

    def targets_of_scores(
        self, scores: NDArray[np.float32], students: Sequence[BaseModel], task: Task
    ) -> Targets:
        """Targets of a teacher that gives scores and nothing else.

        Args:
            scores: Of the training beats, with mean 0 and standard deviation 1, shape (n,).
        """

    def joined(self, targets: Sequence[Targets]) -> Targets:
        """Targets of an ensemble: the mean of its members', scores on the standardised scale.

        Args:
            targets: Of each member, with the same names.
        """


@runtime_checkable
class Published(Protocol):
    """A method with weights that others published in a form of their own."""

    def adopt(self, tensors: Mapping[str, Any], beside: Mapping[str, Any]) -> State | None:
        """The weights as this method's, or None if they are of no network that it knows.

        Args:
            tensors: The content of the file: a state dict, or such dicts by name.
            beside: The content of a second file, empty if there is none.

        Raises:
            ValueError: They are of a known network that cannot be used; says which and why.
        """
