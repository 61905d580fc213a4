"""Settings of a BeatGAN teacher and its students, with their defaults."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from kdsearch.settings import Count, NotNegative, Positive, Section, Seed, Units

TAUGHT = ("score", "neighbours", "reconstruction", "attention")
"""Targets with a value for every training beat; several can be distilled together."""
ALONE = ("published", "published_scores", "none")
_TAUGHT = "|".join(TAUGHT)
# A term of a target, perhaps with its weight in front: score, or 0.3*reconstruction.
_TERM = rf"(?:(?:\d+(?:\.\d+)?|\.\d+)(?:[eE]-?\d+)?\*)?(?:{_TAUGHT})"


def _known_target(target: str) -> str:
    """The target without blanks; ValueError if it is none."""
    plain = "".join(target.split())
    names = [term.rpartition("*")[2] for term in plain.split("+")]
    terms = all(re.fullmatch(_TERM, term) for term in plain.split("+"))
    if plain in ALONE or (terms and len(set(names)) == len(names)):
        return plain
    taught, alone = (", ".join(map(repr, group)) for group in (TAUGHT, ALONE))
    raise ValueError(
        f"input should be {taught}, different ones of these joined by '+', each perhaps with a "
        f"weight such as '0.3*score', or one of {alone}"
    )


Target = Annotated[
    str,
    AfterValidator(_known_target),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [
                {"enum": [*TAUGHT, *ALONE]},
                {"pattern": rf"^\s*{_TERM}(\s*\+\s*{_TERM})*\s*$".replace("?:", "")},
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
    """What is distilled. Several targets joined by plus, such as
    ``neighbours+0.3*reconstruction``, are added, each with its weight if it has one. ``score``
    is the teacher's score; ``neighbours`` is the score of a nearest neighbour search among the
    training beats instead; ``published`` is the published term, which compares scores with
    labels, and ``published_scores`` its other form, which compares them with the teacher's
    scores: neither has a gradient, and they serve as controls."""
    weight_score: NotNegative = 1.0
    """Weight of the target ``score``; multiplies the one in ``target``, and can be searched."""
    weight_neighbours: NotNegative = 1.0
    """The same of ``neighbours``."""
    weight_reconstruction: NotNegative = 1.0
    """The same of ``reconstruction``."""
    weight_attention: NotNegative = 1.0
    """The same of ``attention``."""
    init: Literal["random", "teacher"] = "random"
    """Initial weights of the student; ``teacher`` needs the teacher's width and latent."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The names in ``target``; empty if nothing is distilled."""
        if self.target == "none":
            return ()
        return tuple(term.rpartition("*")[2] for term in self.target.split("+"))

    @property
    def arrays(self) -> frozenset[str]:
        """The names of the arrays that these targets need, a row per training beat."""
        others = {"published": (), "published_scores": ("score",)}
        return frozenset(array for name in self.targets for array in others.get(name, (name,)))

    def weight_of(self, target: str) -> float:
        """The weight of one of the targets: that in ``target`` times the setting's."""
        for term in self.target.split("+"):
            weight, _, name = term.rpartition("*")
            if name == target:
                setting: float = getattr(self, f"weight_{name}", 1.0)
                return (float(weight) if weight else 1.0) * setting
        raise ValueError(f"{target!r} is not distilled; target is {self.target!r}")
