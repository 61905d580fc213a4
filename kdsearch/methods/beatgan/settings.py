"""Settings of a BeatGAN teacher and its students, with their defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from kdsearch.settings import Count, NotNegative, Positive, Section, Seed, Units

TAUGHT = ("score", "neighbours", "reconstruction", "attention")
"""Targets with a value for every training beat; several can be distilled together."""
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
    """Settings that the teacher and the students share."""

    width: Units = 32
    """Channels of the first convolution; the fifth has 16 times as many."""
    latent: Units = 50
    """Size of the latent vector (BeatGAN's ``nz``)."""
    epochs: Count = 10
    """Passes over the training beats; for a student, the maximum of a trial."""
    batch_size: Count = 64
    """Beats in a mini-batch; the last, incomplete one is dropped."""
    lr: Positive = 1e-4
    """Learning rate of both Adam optimisers."""
    w_adv: NotNegative = 1.0
    """Weight of the feature-matching term."""
    beta1: Beta = 0.5
    """Adam's decay of the first moment; that of the second is 0.999."""
    score: Score = "plain"
    """Anomaly score of a beat from its reconstruction errors: ``plain`` is their mean over all
    samples, as published; ``relative`` divides each error by the usual error of normal beats
    at that sample; ``mahalanobis`` also uses the covariance of the errors of all samples."""


class TeacherSettings(NetworkSettings):
    """The section ``teacher``: trained once for each combination of settings and beats, then
    cached."""

    seed: Seed = 0
    """Seed of weights and mini-batches."""


class StudentSettings(NetworkSettings):
    """The sections ``student`` (fixed) and ``space`` (fixed or searched)."""

    temperature: Positive = 1.0
    """Divisor that softens the teacher's and the student's scores before they are compared."""
    alpha: NotNegative = 0.1
    """Weight of the distillation term; 0 trains without distillation, as the control."""
    target: Target = "score"
    """What is distilled. Several targets joined by plus, such as ``neighbours+reconstruction``,
    are added. ``score`` is the teacher's score; ``neighbours`` is the score of a nearest
    neighbour search among the training beats instead; ``published`` is the published term,
    which has no gradient and serves as a control."""
    init: Literal["random", "teacher"] = "random"
    """Initial weights of the student; ``teacher`` needs the teacher's width and latent."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The names in ``target``; empty if nothing is distilled."""
        return () if self.target == "none" else tuple(self.target.split("+"))
