"""The memory and its students as an implementation of the method protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from kdsearch.data.beats import BeatShape, FloatArray, TrainingData
from kdsearch.errors import ConfigError
from kdsearch.methods.checks import expect_settings
from kdsearch.methods.device import BATCH_COUNTED, from_numpy
from kdsearch.methods.memory.distortions import distort
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.stack import (
    DISTORTED,
    DISTORTED_SCORES,
    MEMORY,
    OWN,
    MemoryStack,
    StudentStack,
    contrast,
    score_regression,
    teach,
)
from kdsearch.methods.memory.student import Scorer, ScoringNetwork, initial_components
from kdsearch.methods.memory.teacher import METHOD, SMALLEST_STD, Recall, nearest_stored, recall
from kdsearch.methods.protocol import (
    SCORES,
    Comparing,
    Compute,
    Method,
    Stack,
    State,
    Targets,
    Task,
)
from kdsearch.methods.torch_method import TorchMethod
from kdsearch.methods.torch_stack import shape_of

# Seed of the distorted beats, which are the same for all students of all searches.
SEED = 0
# Fraction of the training in which the learning rate rises.
WARM_UP = 0.05
# What a teacher has to score besides the beats of the data source.
OF_DISTORTED = "scores of distorted beats"


class Memory(TorchMethod):
    """Nearest neighbours among all normal beats, and small networks that learn their scores."""

    name = METHOD
    teacher_settings: type[BaseModel] = TeacherSettings
    student_settings: type[BaseModel] = StudentSettings
    per_student = frozenset({"alpha", "w_contrast", "lr", "weight_decay"})
    # Some mini-batches have far larger gradients.
    longest_gradient = 1.0

    def network(self, settings: Any, shape: BeatShape) -> Scorer:
        """Return a student; the memory itself is not a trained network."""
        return Scorer(settings, shape)

    def training_values(self, settings: Any, shape: BeatShape) -> int:
        """Estimate a student; a memory is not trained, hence 0."""
        if isinstance(settings, TeacherSettings):
            return 0
        student = expect_settings(settings, StudentSettings)
        # Each hidden layer stores its input, the normalised input and its output.
        per_beat = 2 * student.components + 3 * student.depth * student.width
        return (
            super().training_values(student, shape)
            + min(student.batch_size, BATCH_COUNTED) * per_beat
        )

    def start(self, settings: Any, data: TrainingData) -> Mapping[str, Tensor]:
        """Return principal components of the training beats; nothing for ``init: random``."""
        if settings.init == "random":
            return {}
        signal = shape_of(data).signal_leads
        return initial_components(from_numpy(data.train, "cpu"), signal, settings.components)

    def scores(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return a student's scores of beats (n, leads, length), shape (n,)."""
        return cast("Scorer", network).score(x)

    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Regress the memory's scores, and classify normal and distorted beats."""
        scores, logits = network(x)
        return {
            "distillation": score_regression(scores, taught[MEMORY]),
            "contrast": contrast(logits),
        }

    def term_weights(self, settings: Any) -> Mapping[str, Any]:
        """Return those of the settings."""
        return {"distillation": settings.alpha, "contrast": settings.w_contrast}

    def learning_rate(self, settings: Any, progress: float) -> float:
        """Rise linearly to the maximum during `WARM_UP`, then fall to 0 as a cosine."""
        if progress < WARM_UP:
            part = max(progress / WARM_UP, 0.01)
        else:
            part = (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
        rate: float = settings.lr * part
        return rate

    def teacher_stack(self, settings: BaseModel, task: Task) -> MemoryStack:
        """Return a stack of one slot, full after one epoch; always on the CPU, in float32."""
        expect_settings(settings, TeacherSettings)
        return MemoryStack(task.data)

    def targets(self, students: Sequence[BaseModel], task: Task) -> Targets:
        """Distort beats, and compute the teacher's scores of them and of the training beats.

        The teacher is a memory or an earlier student.

        Raises:
            ConfigError: A student starts from more components than the beats have.
        """
        data = task.data
        taught = [expect_settings(student, StudentSettings) for student in students]
        most = min(len(data.train) - 1, shape_of(data).signal_leads * data.train.shape[2])
        asked = max((s.components for s in taught if s.init == "components"), default=0)
        if asked > most:
            raise ConfigError(
                f"student.components: {asked} asked for, but {len(data.train)} training beats "
                f"have only {most}; lower it, or choose init: random"
            )
        rounds = max(student.distorted for student in taught)
        rng = np.random.default_rng(SEED)
        distorted = np.concatenate(
            [distort(data.train, rng, context=data.context) for _ in range(rounds)]
        )
        if task.teacher.get("kind") == "teacher":
            return teach(task.teacher, distorted)
        # Standardised, as those of a memory are.
        own = self.score(task.teacher, data.train, task.compute)
        scores = self.score(task.teacher, distorted, task.compute)
        mean, std = own.mean(), max(float(own.std()), SMALLEST_STD)
        return {
            OWN: (own - mean) / std,
            DISTORTED: distorted,
            DISTORTED_SCORES: (scores - mean) / std,
        }

    def needs(self, student: BaseModel) -> frozenset[str]:
        """Scores also of distorted beats, which the data source does not have."""
        return frozenset({SCORES, OF_DISTORTED})

    def gives(self, teacher: State) -> frozenset[str]:
        """A memory and a student of one score any beats."""
        return frozenset({SCORES, OF_DISTORTED})

    def student_stack(self, settings: BaseModel, slots: int, task: Task) -> StudentStack:
        """Return an empty stack for students that differ in `per_student` alone."""
        return StudentStack(self, expect_settings(settings, StudentSettings), slots, task)

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Compute the scores of a memory or of a student, shape (n,).

        Raises:
            ValueError: The weights are of another method, or of beats of another shape.
        """
        if weights.get("kind") != "teacher":
            return super().score(weights, x, compute)
        self.check_weights(weights, x)
        return recall(weights, x)

    def nearest(self, weights: State, x: FloatArray) -> NDArray[np.int64] | None:
        """Return the nearest stored beat of each beat; None for a student."""
        if weights["kind"] != "teacher":
            return None
        self.check_weights(weights, x)
        return nearest_stored(weights, x)

    def scoring_network(self, weights: State) -> ScoringNetwork | Recall:
        """Return a student or a memory as one network on the CPU that computes scores."""
        if weights["kind"] == "teacher":
            return Recall(weights).eval()
        network = ScoringNetwork(cast("Scorer", self.load(weights)))
        return network.eval().requires_grad_(False)


if TYPE_CHECKING:
    # The type checker proves here that the protocol is kept.
    _method: Method = Memory()
    _comparing: Comparing = Memory()
    _stacks: tuple[type[Stack], type[Stack]] = MemoryStack, StudentStack
