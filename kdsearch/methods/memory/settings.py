"""What can be configured of a memory and of its students; the only place of defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.settings import Count, NotNegative, Positive, Section, Seed, Units

View = Literal["range", "deviation", "patient", "both"]


class TeacherSettings(Section):
    """The section ``teacher``: how normal beats are remembered and compared."""

    view: View = "both"
    """How beats are scaled before they are compared: ``range`` as they come, from -1 to 1,
    ``deviation`` to mean 0 and standard deviation 1, ``both`` averages the scores of these two;
    ``patient`` compares only how they differ from the patient's own, and the rhythm, and needs
    ``data.context: patient``."""
    components: Units = 20
    """Principal components that beats are compared by."""
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many of the most similar beats; the distance is their mean."""
    density: Annotated[float, Field(ge=0, le=1)] = 0.4
    """How far a distance is judged by those among the remembered beats around it: 0 not at
    all, 1 wholly. More helps where the patients are known, and harms where they are new."""
    weight_before: NotNegative = 1.5
    """Weight of the samples before the QRS complex, which tell whether a beat comes early."""
    weight_after: NotNegative = 0.7
    """Weight of the samples after it; those of the complex itself weigh 1."""
    weight_rhythm: NotNegative = 0.35
    """Weight of the rhythm's lead beside them, where the view is ``patient``."""
    epochs: Annotated[int, Field(ge=1, le=1)] = 1
    """A memory is filled in one pass."""
    seed: Seed = 0
    """Changes nothing: a memory leaves nothing to chance."""


class StudentSettings(Section):
    """The sections ``student`` (fixed) and ``space`` (fixed or searched)."""

    width: Units = 256
    """Units of each hidden layer."""
    depth: Annotated[int, Field(ge=1, le=100)] = 3
    """Hidden layers."""
    components: Units = 40
    """Linear features that each of the two views of a beat enters by."""
    init: Literal["components", "random"] = "components"
    """Where these features start: at the principal components of the training beats."""
    distorted: Annotated[int, Field(ge=1, le=100)] = 3
    """Distorted copies of each normal beat that the students learn from."""
    epochs: Count = 24
    """Passes over the training beats; for a student the most that a trial may use."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 512
    """Beats in a mini-batch, normal and distorted ones in equal numbers."""
    lr: Positive = 2e-3
    """Largest learning rate of AdamW; it rises for a twentieth of the training and falls to 0
    as a cosine does."""
    weight_decay: NotNegative = 1e-2
    """AdamW's."""
    alpha: NotNegative = 1.0
    """Weight of the memory's score, in the loss and in the student's own score; 0 is the
    control without distillation."""
    w_contrast: NotNegative = 0.3
    """Weight of telling normal from distorted beats, likewise in both."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> StudentSettings:
        if self.alpha == 0 and self.w_contrast == 0:
            raise ValueError("alpha and w_contrast are both 0, which leaves nothing to learn")
        return self
