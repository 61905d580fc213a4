"""From the name of a target to a term of distillation; targets stay with their samples."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.beatgan import losses
from kdsearch.beatgan.settings import Target
from kdsearch.beatgan.step import Batch, Distillation
from kdsearch.method import Targets
from kdsearch.tensors import from_numpy

NEEDS_TEACHER: frozenset[Target] = frozenset(
    {"score", "neighbours", "reconstruction", "attention"}
)
"""Targets that have an entry in `Targets`, one row per training beat."""

# Teachers whose scores are all alike teach nothing; this keeps them from dividing by zero.
SMALLEST_STD = 1e-6


def distillation_term(
    target: Target, targets: Targets, temperature: Tensor
) -> Distillation | None:
    """The term that pulls students towards ``target``.

    Args:
        target: What is distilled.
        targets: The teacher's answers, one row per training beat; has ``target`` if that is
            one of `NEEDS_TEACHER`.
        temperature: One value per student, shape (K,), on the device of the training.

    Returns:
        The term, or None where nothing is distilled.
    """
    if target == "none":
        return None
    if target == "published":
        return _published(temperature)
    taught = from_numpy(targets[target], str(temperature.device))
    if target in ("score", "neighbours"):
        return _score(taught, temperature)
    return _reconstruction(taught) if target == "reconstruction" else _attention(taught)


def _score(taught: Tensor, temperature: Tensor) -> Distillation:
    logs = losses.log_scores(taught)
    mean, std = logs.mean(), logs.std(correction=0).clamp(min=SMALLEST_STD)

    def term(batch: Batch) -> Tensor:
        scores = losses.beat_errors(batch.x, batch.fake)
        return losses.score_kl(scores, taught[batch.rows], temperature, mean, std)

    return term


def _published(temperature: Tensor) -> Distillation:
    def term(batch: Batch) -> Tensor:
        scores = losses.beat_errors(batch.x, batch.fake)
        # Training beats are normal, and so are all their labels.
        return losses.published_kl(scores, torch.zeros_like(scores), temperature)

    return term


def _reconstruction(taught: Tensor) -> Distillation:
    def term(batch: Batch) -> Tensor:
        return losses.reconstruction_distillation(batch.fake, taught[batch.rows])

    return term


def _attention(taught: Tensor) -> Distillation:
    def term(batch: Batch) -> Tensor:
        return losses.attention_distillation(batch.features, taught[batch.rows])

    return term
