"""Settings of a memory and its students, with their defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.settings import Count, NotNegative, Positive, Section, Seed, Units

View = Literal["range", "deviation", "patient", "both"]


class TeacherSettings(Section):
    """The section ``teacher``: how normal beats are stored and compared."""

    view: View = "both"
    """How beats are scaled before they are compared. ``range``: to [-1, 1]; ``deviation``: to
    mean 0 and standard deviation 1; ``both``: the mean of these two scores; ``patient``: only
    the difference from the patient's own beats and the rhythm (needs ``data.context:
    patient``)."""
    components: Units = 20
    """Number of principal components in which beats are compared."""
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of nearest stored beats; the score uses their mean distance."""
    density: Annotated[float, Field(ge=0, le=1)] = 0.4
    """How strongly a distance is divided by the usual distance among the stored beats around
    it: 0 not at all, 1 fully. A higher value helps for known patients and harms for new
    ones."""
    weight_before: NotNegative = 1.5
    """Weight of the samples before the QRS complex, which show whether a beat is early."""
    weight_after: NotNegative = 0.7
    """Weight of the samples after the QRS complex; those of the complex have weight 1."""
    weight_rhythm: NotNegative = 0.35
    """Weight of the rhythm lead; used only by the view ``patient``."""
    epochs: Annotated[int, Field(ge=1, le=1)] = 1
    """Always 1: a memory is filled in one pass."""
    seed: Seed = 0
    """Has no effect: a memory uses no random numbers."""


class StudentSettings(Section):
    """The sections ``student`` (fixed) and ``space`` (fixed or searched)."""

    width: Units = 256
    """Units of each hidden layer."""
    depth: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of hidden layers."""
    components: Units = 40
    """Number of linear input features from each of the two views of a beat."""
    init: Literal["components", "random"] = "components"
    """Initial values of these features: the principal components of the training beats, or
    random."""
    distorted: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of distorted copies of each normal beat in the students' training."""
    epochs: Count = 24
    """Passes over the training beats; the maximum of a trial."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 512
    """Beats in a mini-batch, half of them normal and half distorted."""
    lr: Positive = 2e-3
    """Maximum learning rate of AdamW; it rises during the first twentieth of the training and
    then falls to 0 as a cosine."""
    weight_decay: NotNegative = 1e-2
    """Weight decay of AdamW."""
    alpha: NotNegative = 1.0
    """Weight of the memory's score, in the loss and in the student's score; 0 trains without
    distillation, as the control."""
    w_contrast: NotNegative = 0.3
    """Weight of the classification of normal and distorted beats, in the loss and in the
    score."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> StudentSettings:
        if self.alpha == 0 and self.w_contrast == 0:
            raise ValueError("alpha and w_contrast are both 0, which leaves nothing to learn")
        return self
