"""A method of your own: a convolutional autoencoder teaches a small linear one.

python run_search.py --space examples/autoencoder.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.data.beats import BeatShape
from kdsearch.methods.torch_method import (
    Count,
    Positive,
    StudentSettings,
    TeacherSettings,
    TorchMethod,
)


class Teacher(TeacherSettings):
    """The section ``teacher`` of the space file."""

    width: Count = 16
    """Channels of its convolutions."""


class Student(StudentSettings):
    """The sections ``student`` and ``space``."""

    latent: Count = 8
    """Size of its bottleneck."""
    temperature: Positive = 1.0
    """Softens how much a sample that the teacher finds odd counts less."""


class Autoencoder(TorchMethod):
    """Scores a beat by the worst tenth of its reconstruction."""

    name = "autoencoder"
    teacher_settings = Teacher
    student_settings = Student
    per_student = frozenset({"alpha", "lr", "temperature"})

    def network(self, settings: Any, shape: BeatShape) -> nn.Module:
        """The teacher is convolutional, the student two matrices."""
        leads, length = shape.leads, shape.length
        if isinstance(settings, Teacher):
            wide, halve = settings.width, {"kernel_size": 4, "stride": 2, "padding": 1}
            return nn.Sequential(
                *(nn.Conv1d(leads, wide, **halve), nn.GELU()),
                *(nn.Conv1d(wide, wide, **halve), nn.GELU()),
                nn.Conv1d(wide, 1, **halve),
                *(nn.ConvTranspose1d(1, wide, **halve), nn.GELU()),
                *(nn.ConvTranspose1d(wide, wide, **halve), nn.GELU()),
                nn.ConvTranspose1d(wide, leads, **halve),
            )
        size = leads * length
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, settings.latent),
            nn.GELU(),
            nn.Linear(settings.latent, size),
            nn.Unflatten(1, (leads, length)),
        )

    def scores(self, network: nn.Module, x: Tensor) -> Tensor:
        """Mean squared error of the worst tenth of each beat's samples, shape (B,)."""
        errors = (network(x) - x).square().flatten(1)
        return errors.topk(errors.shape[1] // 10).values.mean(dim=1)

    def teach(self, teacher: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """What the teacher makes of each beat, shape (B, leads, length)."""
        return {"reconstruction": teacher(x)}

    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Reconstruct the beat, and as far as there is a teacher, what it made of it.

        The student follows its teacher less where the teacher itself was wrong: each sample
        counts by exp(-(teacher's error)^2 / temperature).
        """
        made = network(x)
        terms = {"reconstruction": functional.mse_loss(made, x)}
        if taught:
            theirs = taught["reconstruction"]
            trust = torch.exp(-(theirs - x).square() / settings.temperature)
            terms["distillation"] = (trust * (made - theirs).square()).mean()
        return terms

    def term_weights(self, settings: Any) -> Mapping[str, Any]:
        """The student's ``alpha`` weighs what is distilled; a teacher has none."""
        return {"distillation": settings.alpha} if isinstance(settings, Student) else {}
