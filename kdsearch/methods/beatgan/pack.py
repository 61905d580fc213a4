"""Students that are trained by one set of kernels, without gaps between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.methods.beatgan.distillation import distillation_terms
from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    build,
    initial_state,
    initialise,
    put_student,
    take_student,
)
from kdsearch.methods.beatgan.optimiser import StackedAdam, new_adam_state
from kdsearch.methods.beatgan.scoring import error_weights, stack_scores
from kdsearch.methods.beatgan.settings import NetworkSettings, StudentSettings
from kdsearch.methods.beatgan.step import Players, Term, Weights, train_step
from kdsearch.methods.protocol import Compute, Targets

# The published limit below which a discriminator has won for good and starts anew.
COLLAPSED = 5e-6

Parts = dict[str, Any]
"""Values of both networks and of their optimisers, for one student."""


@dataclass(eq=False)
class Student:
    """One network in training, be it a student or a teacher.

    Attributes:
        settings: Its configuration.
        seed: Of its weights and mini-batches.
        epoch: Epochs trained so far.
        rng: Draws its weights, on the CPU; a pack uses it for discriminators that start anew.
        parts: Its values while it is in no pack.
    """

    settings: NetworkSettings
    seed: int
    epoch: int
    rng: torch.Generator
    parts: Parts

    @property
    def alpha(self) -> float:
        """Weight of distillation; a teacher has none."""
        return self.settings.alpha if isinstance(self.settings, StudentSettings) else 0.0

    @property
    def temperature(self) -> float:
        """Of the softened scores; means nothing where alpha is 0."""
        return self.settings.temperature if isinstance(self.settings, StudentSettings) else 1.0

    @property
    def targets(self) -> tuple[str, ...]:
        """What is distilled; a teacher learns from nobody."""
        return self.settings.targets if isinstance(self.settings, StudentSettings) else ()


def new_parts(architecture: Architecture, rng: torch.Generator) -> Parts:
    """A new student's: the generator is drawn first, then the discriminator."""
    return {
        "generator": initial_state(Generator, architecture, rng),
        "discriminator": initial_state(Discriminator, architecture, rng),
        "generator_adam": new_adam_state(),
        "discriminator_adam": new_adam_state(),
    }


class Pack:
    """K students of one structure, one behind the other in every tensor.

    Args:
        architecture: Of each student.
        students: At least one; their parts are copied in.
        targets: The teacher's answers, one row per training beat.
        compute: Where and how precisely to train.
    """

    def __init__(
        self,
        architecture: Architecture,
        students: Sequence[Student],
        targets: Targets,
        compute: Compute,
    ) -> None:
        self.students = list(students)
        self._architecture = architecture
        self._compute = compute
        self._players = _players(architecture, self.students, compute.device)
        self._weights = Weights(
            w_adv=self._vector([student.settings.w_adv for student in students]),
            alpha=self._vector([student.alpha for student in students]),
        )
        self._distillation = self._terms(targets)
        for k, student in enumerate(self.students):
            self._put(k, student.parts)

    def train_epoch(self, x: Tensor) -> list[dict[str, float]]:
        """One pass over the training beats, each student in its own order.

        Args:
            x: Training beats, shape (n, leads, length), on the pack's device.

        Returns:
            The mean of every term over the mini-batches, a dict per student; whoever has an
            alpha of 0 has no terms of distillation.
        """
        orders = torch.from_numpy(self._orders(len(x))).to(x.device)
        size = min(self.students[0].settings.batch_size, len(x))
        batches = len(x) // size
        sums: dict[str, Tensor] = {}
        with _deterministic():
            for rows in torch.split(orders[: batches * size], size):
                for name, term in self._step(rows, x[rows]).items():
                    sums[name] = sums.get(name, 0) + term.double()
        for student in self.students:
            student.epoch += 1
        return self._per_student({name: total / batches for name, total in sums.items()})

    def scores(self, x: Tensor, train: Tensor) -> NDArray[np.float32]:
        """Anomaly scores in evaluation mode, shape (n, K), of beats (n, leads, length).

        Training beats, of such shape, say what errors are usual, if the score asks.
        """
        generator, students = self._players.generator.eval(), len(self.students)
        kind = self.students[0].settings.score
        weights = error_weights(kind, generator, train, self._compute, students=students)
        scores = stack_scores(
            generator, x, self._compute, students=students, error_weights=weights
        )
        generator.train()
        return scores

    def take(self, student: Student) -> Parts:
        """Copies of one student's values, with the shapes of a single student."""
        k, students = self.students.index(student), len(self.students)
        return {
            "generator": take_student(self._players.generator, k, students),
            "discriminator": take_student(self._players.discriminator, k, students),
            "generator_adam": self._players.generator_adam.take(k),
            "discriminator_adam": self._players.discriminator_adam.take(k),
        }

    def copies(self) -> list[Student]:
        """All students as they are now, outside of any pack."""
        return [
            replace(student, rng=_same_state(student.rng), parts=self.take(student))
            for student in self.students
        ]

    def _step(self, rows: Tensor, x: Tensor) -> dict[str, Tensor]:
        terms = train_step(
            self._players,
            rows,
            x,
            weights=self._weights,
            distillation=self._distillation,
            compute=self._compute,
        )
        collapsed = terms["discriminator"] < COLLAPSED
        if collapsed.any():
            for k in collapsed.nonzero().flatten().tolist():
                self._redraw_discriminator(k)
        return terms

    def _redraw_discriminator(self, k: int) -> None:
        """Parameters alone: running statistics and the optimiser's moments stay."""
        fresh = build(Discriminator, self._architecture, 1, "cpu")
        initialise(fresh, self.students[k].rng)
        values = {name: value.detach() for name, value in fresh.named_parameters()}
        put_student(self._players.discriminator, k, len(self.students), values)

    def _orders(self, n: int) -> NDArray[np.int64]:
        """Rows in the order of this epoch, shape (n, K): a function of seed and epoch alone."""
        return np.stack(
            [
                np.random.default_rng([student.seed, student.epoch + 1]).permutation(n)
                for student in self.students
            ],
            axis=1,
        )

    def _per_student(self, means: dict[str, Tensor]) -> list[dict[str, float]]:
        columns = {name: mean.tolist() for name, mean in means.items()}
        return [
            {
                name: values[k]
                for name, values in columns.items()
                if not name.startswith("distillation") or student.alpha > 0
            }
            for k, student in enumerate(self.students)
        ]

    def _terms(self, targets: Targets) -> dict[str, Term]:
        if not any(student.alpha for student in self.students):
            return {}
        temperature = self._vector([student.temperature for student in self.students])
        return distillation_terms(self.students[0].targets, targets, temperature)

    def _put(self, k: int, parts: Parts) -> None:
        students = len(self.students)
        put_student(self._players.generator, k, students, parts["generator"])
        put_student(self._players.discriminator, k, students, parts["discriminator"])
        self._players.generator_adam.put(k, parts["generator_adam"])
        self._players.discriminator_adam.put(k, parts["discriminator_adam"])

    def _vector(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._compute.device)


def _players(architecture: Architecture, students: Sequence[Student], device: str) -> Players:
    generator = build(Generator, architecture, len(students), device)
    discriminator = build(Discriminator, architecture, len(students), device)
    lr = [student.settings.lr for student in students]
    beta1 = students[0].settings.beta1
    return Players(
        generator,
        discriminator,
        StackedAdam(generator, lr, beta1),
        StackedAdam(discriminator, lr, beta1),
    )


def _same_state(rng: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(rng.get_state())
    return copy


@contextmanager
def _deterministic() -> Iterator[None]:
    """Have cuDNN sum in a fixed order, so that the same seed gives the same weights."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
