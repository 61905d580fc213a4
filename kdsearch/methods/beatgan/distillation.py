"""Distillation terms by the names of their targets."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kdsearch.methods.beatgan import losses
from kdsearch.methods.beatgan.step import Batch, Term
from kdsearch.methods.device import from_numpy
from kdsearch.methods.protocol import Targets

# Avoids a division by zero if all scores of a teacher are equal.
SMALLEST_STD = 1e-6


def distillation_terms(
    names: Iterable[str], targets: Targets, temperature: Tensor
) -> dict[str, Term]:
    """Return the terms of the distillation loss by name.

    Args:
        names: What is distilled, `StudentSettings.targets`.
        targets: The teacher's answers, one row per training beat, see
            `StudentSettings.arrays`.
        temperature: One value per student, shape (K,), on the device of the training.
    """
    return {name: _term(name, targets, temperature) for name in names}


def _term(name: str, targets: Targets, temperature: Tensor) -> Term:
    if name == "published":
        return _published(temperature, None)
    if name == "published_scores":
        return _published(temperature, from_numpy(targets["score"], str(temperature.device)))
    taught = from_numpy(targets[name], str(temperature.device))
    if name in ("score", "neighbours"):
        return _score(taught, temperature)
    return _reconstruction(taught) if name == "reconstruction" else _attention(taught)


def _score(taught: Tensor, temperature: Tensor) -> Term:
    logs = losses.log_scores(taught)
    mean, std = logs.mean(), logs.std(correction=0).clamp(min=SMALLEST_STD)

    def term(batch: Batch) -> Tensor:
        scores = losses.beat_errors(batch.x, batch.fake)
        return losses.score_kl(scores, taught[batch.rows], temperature, mean, std)

    return term


def _published(temperature: Tensor, taught: Tensor | None) -> Term:
    """Compare with the teacher's scores, or with labels if there are none."""

    def term(batch: Batch) -> Tensor:
        scores = losses.beat_errors(batch.x, batch.fake)
        # Training beats are normal, and so are all their labels.
        other = torch.zeros_like(scores) if taught is None else taught[batch.rows]
        return losses.published_kl(scores, other, temperature)

    return term


def _reconstruction(taught: Tensor) -> Term:
    def term(batch: Batch) -> Tensor:
        return losses.reconstruction_distillation(batch.fake, taught[batch.rows])

    return term


def _attention(taught: Tensor) -> Term:
    def term(batch: Batch) -> Tensor:
        return losses.attention_distillation(batch.features.float(), taught[batch.rows])

    return term
