"""BeatGAN as an implementation of the method protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.data.beats import LENGTH_MULTIPLE, BeatShape, FloatArray
from kdsearch.methods.beatgan import published
from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    require_same_architecture,
)
from kdsearch.methods.beatgan.scoring import (
    ScoringNetwork,
    architecture_of,
    load_error_weights,
    load_module,
    reconstruct,
    score,
)
from kdsearch.methods.beatgan.settings import NetworkSettings, StudentSettings, TeacherSettings
from kdsearch.methods.beatgan.stack import PER_STUDENT, BeatGanStack
from kdsearch.methods.beatgan.targets import joined_targets, teacher_targets
from kdsearch.methods.checks import check_shape, expect_settings
from kdsearch.methods.device import BATCH_COUNTED, VALUES_OF_ADAM
from kdsearch.methods.protocol import (
    SCORES,
    WEIGHTS,
    Compute,
    Method,
    Published,
    Sized,
    Stack,
    State,
    Targets,
    Task,
    Teachable,
)

# What a target needs of the teacher; the others need nothing of it.
NEEDS = {"score": SCORES, "reconstruction": "reconstruction", "attention": "attention"}


class BeatGan:
    """An adversarial autoencoder of heartbeats, and students that learn from it."""

    name = "beatgan"
    teacher_settings: type[BaseModel] = TeacherSettings
    student_settings: type[BaseModel] = StudentSettings

    def check(self, teacher: BaseModel, student: BaseModel) -> None:
        """Refuse ``init: teacher`` if the student is not of the teacher's size.

        Raises:
            ValueError: Names width or latent, and both values.
        """
        ours = expect_settings(student, StudentSettings)
        if ours.init == "teacher":
            theirs = expect_settings(teacher, TeacherSettings)
            require_same_architecture(_networks(theirs), _networks(ours))

    def training_values(self, settings: BaseModel, shape: BeatShape) -> int:
        """Estimate the generator and the discriminator."""
        ours = expect_settings(settings, NetworkSettings)
        made = Architecture(ours.width, ours.latent, shape.leads, shape.length)
        with torch.device("meta"):
            networks = Generator(made), Discriminator(made)
        values = sum(value.numel() for each in networks for value in each.parameters())
        # Each of five layers and its normalisation stores half a beat times the width: in the
        # encoder, the decoder, and the discriminator for beats and reconstructions.
        per_beat = 4 * 5 * ours.width * shape.length
        return VALUES_OF_ADAM * values + min(ours.batch_size, BATCH_COUNTED) * per_beat

    def structure(self, settings: BaseModel) -> str:
        """Return a key of all settings but those in `PER_STUDENT`."""
        return settings.model_dump_json(exclude=set(PER_STUDENT))

    def teacher_stack(self, settings: BaseModel, task: Task) -> BeatGanStack:
        """Return a stack of one slot without distillation."""
        return BeatGanStack(expect_settings(settings, TeacherSettings), 1, task)

    def targets(self, students: Sequence[BaseModel], task: Task) -> Targets:
        """Compute only what these students' targets need; see `teacher_targets`."""
        return teacher_targets(_kinds(students), task)

    def student_stack(self, settings: BaseModel, slots: int, task: Task) -> BeatGanStack:
        """Return an empty stack for students that differ in `PER_STUDENT` alone."""
        return BeatGanStack(expect_settings(settings, StudentSettings), slots, task)

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Compute the error of each beat's reconstruction, shape (n,).

        Raises:
            ValueError: The beats are not of the shape that the weights were trained on.
        """
        _check_shape(weights, x)
        return score(weights, x, compute)

    def reconstruct(
        self, weights: State, x: FloatArray, compute: Compute
    ) -> NDArray[np.float32]:
        """Reconstruct normalised and padded beats.

        Raises:
            ValueError: As `score`.
        """
        _check_shape(weights, x)
        return reconstruct(weights, x, compute)

    def needs(self, student: BaseModel) -> frozenset[str]:
        """What the targets need, and both networks for ``init: teacher``."""
        ours = expect_settings(student, StudentSettings)
        needed = {NEEDS[name] for name in ours.arrays if name in NEEDS}
        return frozenset(needed | ({WEIGHTS} if ours.init == "teacher" else set()))

    def gives(self, teacher: State) -> frozenset[str]:
        """Scores and reconstructions; with a discriminator also what needs one."""
        with_discriminator = {"attention", WEIGHTS} if "discriminator" in teacher else set()
        return frozenset({SCORES, "reconstruction"} | with_discriminator)

    def check_start(self, teacher: State, student: BaseModel) -> None:
        """As `check`, of a teacher that is trained.

        Raises:
            ValueError: As `check`.
        """
        ours = expect_settings(student, StudentSettings)
        if ours.init == "teacher":
            theirs = architecture_of(teacher)
            require_same_architecture(
                theirs, Architecture(ours.width, ours.latent, theirs.leads, theirs.length)
            )

    def targets_of_scores(
        self, scores: NDArray[np.float32], students: Sequence[BaseModel], task: Task
    ) -> Targets:
        """Their exponential, as a score whose logarithm is standardised."""
        kinds = _kinds(students)
        without = teacher_targets(kinds - NEEDS.keys(), task)
        return {"score": np.exp(scores), **without} if "score" in kinds else without

    def joined(self, targets: Sequence[Targets]) -> Targets:
        """See `joined_targets`."""
        return joined_targets(targets)

    def adopt(self, tensors: Mapping[str, Any], beside: Mapping[str, Any]) -> State | None:
        """Weights in the published form; see `kdsearch.methods.beatgan.published`."""
        return published.adopt(tensors, beside)

    def scoring_network(self, weights: State) -> ScoringNetwork:
        """Return one network on the CPU that computes scores and reconstructions."""
        return ScoringNetwork(
            load_module(weights, Generator), load_error_weights(weights, "cpu")
        ).eval()


def _kinds(students: Sequence[BaseModel]) -> set[str]:
    return {
        name
        for student in students
        for name in expect_settings(student, StudentSettings).arrays
    }


def _check_shape(weights: State, x: FloatArray) -> None:
    # The convolutions would accept beats of another length.
    trained = architecture_of(weights)
    check_shape(x, (trained.leads, trained.length))


def _networks(settings: NetworkSettings) -> Architecture:
    # The length is equal for both, so the shortest will do.
    return Architecture(settings.width, settings.latent, leads=1, length=LENGTH_MULTIPLE)


if TYPE_CHECKING:
    # The type checker proves here that the protocol is kept.
    _method: Method = BeatGan()
    _sized: Sized = BeatGan()
    _teachable: Teachable = BeatGan()
    _published: Published = BeatGan()
    _stack: type[Stack] = BeatGanStack
