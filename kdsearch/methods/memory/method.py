"""A memory and its students behind the harness's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.data.beats import FloatArray, TrainingData
from kdsearch.methods.memory.distortions import distort
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.stack import PER_STUDENT, MemoryStack, StudentStack, score, teach
from kdsearch.methods.memory.student import ScoringNetwork, load_scoring
from kdsearch.methods.memory.teacher import FORMAT, METHOD, Recall, recall
from kdsearch.methods.memory.teacher import KIND as TEACHER
from kdsearch.methods.protocol import Compute, Method, Stack, State, Targets

Settings = TypeVar("Settings", bound=BaseModel)

# Of the distorted beats, which are the same for all students of all searches.
SEED = 0


class Memory:
    """Nearest neighbours among all normal beats, and small networks that score as they do."""

    name = METHOD
    teacher_settings: type[BaseModel] = TeacherSettings
    student_settings: type[BaseModel] = StudentSettings
    per_student = PER_STUDENT

    def check(self, teacher: BaseModel, student: BaseModel) -> None:
        """Any student can learn from any memory."""

    def teacher_stack(
        self, settings: BaseModel, data: TrainingData, compute: Compute
    ) -> MemoryStack:
        """A stack of one slot, full after one epoch; always on the CPU, in full precision."""
        _expect(settings, TeacherSettings)
        return MemoryStack(data)

    def targets(
        self,
        teacher: State,
        students: Sequence[BaseModel],
        data: TrainingData,
        compute: Compute,
    ) -> Targets:
        """Distorted beats and what the memory says of them and of its own; see `teach`."""
        rounds = max(_expect(student, StudentSettings).distorted for student in students)
        rng = np.random.default_rng(SEED)
        distorted = np.concatenate(
            [distort(data.train, rng, context=data.context) for _ in range(rounds)]
        )
        return teach(teacher, distorted)

    def student_stack(
        self,
        settings: BaseModel,
        slots: int,
        *,
        data: TrainingData,
        teacher: State,
        targets: Targets,
        compute: Compute,
    ) -> StudentStack:
        """An empty stack for students that differ from ``settings`` in `per_student` alone."""
        student = _expect(settings, StudentSettings)
        return StudentStack(student, slots, data=data, targets=targets, compute=compute)

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Scores of a memory or of a student, shape (n,).

        Raises:
            ValueError: The weights are of another method, or of beats of another shape.
        """
        found = weights.get("method"), weights.get("format")
        if found != (METHOD, FORMAT):
            raise ValueError(
                f"weights of method {METHOD!r} in format {FORMAT} expected, "
                f"found method {found[0]!r} in format {found[1]!r}"
            )
        expected = _shape(weights)
        if x.shape[1:] != expected:
            raise ValueError(f"the weights are of beats of shape {expected}, not {x.shape[1:]}")
        return recall(weights, x) if weights["kind"] == TEACHER else score(weights, x, compute)

    def scoring_network(self, weights: State) -> ScoringNetwork | Recall:
        """The scores of a student, or of a memory, as one network on the CPU."""
        if weights["kind"] == TEACHER:
            return Recall(weights).eval()
        return load_scoring(weights, "cpu")


def _shape(weights: State) -> tuple[int, int]:
    if weights["kind"] == TEACHER:
        leads, length = weights["shape"]
        return leads, length
    return weights["architecture"]["leads"], weights["architecture"]["length"]


def _expect(settings: BaseModel, kind: type[Settings]) -> Settings:
    if not isinstance(settings, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(settings).__name__}")
    return settings


if TYPE_CHECKING:
    # The type checker proves here that the protocol is kept.
    _method: Method = Memory()
    _stacks: tuple[type[Stack], type[Stack]] = MemoryStack, StudentStack
