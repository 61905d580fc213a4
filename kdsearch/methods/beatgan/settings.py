"""What can be configured of a BeatGAN teacher and its students; the only place of defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from kdsearch.settings import Count, NotNegative, Positive, Section, Seed, Units

TAUGHT = ("score", "neighbours", "reconstruction", "attention")
"""Targets with an answer for every training beat, of which several may be distilled at once."""
ALONE = ("published", "none")


def _known_target(target: str) -> str:
    names = target.split("+")
    if target in ALONE or (set(names) <= set(TAUGHT) and len(set(names)) == len(names)):
        return target
    taught, alone = (", ".join(map(repr, group)) for group in (TAUGHT, ALONE))
    raise ValueError(
        f"input should be {taught}, different ones of these joined by '+', or one of {alone}"
    )


_TAUGHT = "|".join(TAUGHT)
Target = Annotated[
    str,
    AfterValidator(_known_target),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [
                {"enum": [*TAUGHT, *ALONE]},
                {"pattern": rf"^({_TAUGHT})(\+({_TAUGHT}))+$"},
            ],
        }
    ),
]

Score = Literal["plain", "relative", "mahalanobis"]

Beta = Annotated[float, Field(ge=0, lt=1)]


class NetworkSettings(Section):
    """Settings that a teacher and a student have in common."""

    width: Units = 32
    """Channels of the first convolution; the fifth has 16 times as many."""
    latent: Units = 50
    """Size of the latent vector (BeatGAN's ``nz``)."""
    epochs: Count = 10
    """Passes over the training beats; for a student the most that a trial may use."""
    batch_size: Count = 64
    """Beats in a mini-batch; the last, incomplete one is dropped."""
    lr: Positive = 1e-4
    """Learning rate of both Adam optimisers."""
    w_adv: NotNegative = 1.0
    """Weight of the feature-matching term."""
    beta1: Beta = 0.5
    """Adam's decay of the first moment; that of the second is 0.999."""
    score: Score = "plain"
    """How errors make a score: ``plain`` is their mean over all samples, as published;
    ``relative`` divides each by the usual one at its place, that of normal beats;
    ``mahalanobis`` also by how they usually go together, a matrix of all samples by all."""


class TeacherSettings(NetworkSettings):
    """The section ``teacher``: trained once for each set of settings and beats, then kept."""

    seed: Seed = 0
    """Seed of weights and mini-batches."""


class StudentSettings(NetworkSettings):
    """The sections ``student`` (fixed) and ``space`` (fixed or searched)."""

    temperature: Positive = 1.0
    """Softens the teacher's and the student's scores before they are compared."""
    alpha: NotNegative = 0.1
    """Weight of the distillation term; 0 is the control without distillation."""
    target: Target = "score"
    """What is distilled; several joined by plus, as in ``neighbours+reconstruction``, are added
    up. ``neighbours`` are scores as ``score``, but of the nearest neighbours among the training
    beats and not of the teacher, and ``published`` is the inert published form, kept as a
    control."""
    init: Literal["random", "teacher"] = "random"
    """Where the student's weights start; ``teacher`` needs the teacher's width and latent."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The names in ``target``; empty where nothing is distilled."""
        return () if self.target == "none" else tuple(self.target.split("+"))
