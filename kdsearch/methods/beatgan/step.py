"""One mini-batch: the discriminator's step, then the generator's.

The published step in half the time. It computes the reconstruction once instead of twice,
keeps the discriminator's loss out of the generator, whose gradients from it were thrown away,
and asks for no gradients of the discriminator's weights in the generator's step. Parameters
move as published. The one thing that differs is that the running statistics of the
generator's BatchNorm, which only evaluation reads, are updated once per mini-batch, where
the published step blended the same batch in twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdsearch.methods.beatgan.losses import discriminator_loss, feature_matching, reconstruction
from kdsearch.methods.beatgan.networks import Discriminator, Generator
from kdsearch.methods.beatgan.optimiser import StackedAdam
from kdsearch.methods.device import autocast
from kdsearch.methods.protocol import Compute

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What the terms of distillation can be calculated from, for K students.

    Attributes:
        rows: Row of each beat among the training beats, shape (B, K).
        x: The beats, shape (B, K, leads, length).
        fake: Their reconstructions with gradient, same shape, float32.
        features: The discriminator's features of ``fake``, shape (B, K, C, L), float32.
    """

    rows: Tensor
    x: Tensor
    fake: Tensor
    features: Tensor


Term = Callable[[Batch], Tensor]
"""A term of distillation: one value per student, shape (K,)."""


@dataclass(frozen=True)
class Weights:
    """Weights of the generator's terms, each of shape (K,)."""

    w_adv: Tensor
    alpha: Tensor


@dataclass(frozen=True)
class Players:
    """Both networks of a stack, in training mode, and their optimisers."""

    generator: Generator
    discriminator: Discriminator
    generator_adam: StackedAdam
    discriminator_adam: StackedAdam


def train_step(
    players: Players,
    rows: Tensor,
    x: Tensor,
    *,
    weights: Weights,
    distillation: Mapping[str, Term],
    compute: Compute,
) -> Terms:
    """Update both networks of every student with one mini-batch each.

    Args:
        players: Changed in place.
        rows: Row of each beat among the training beats, shape (B, K).
        x: The beats, shape (B, K, leads, length).
        weights: Of the generator's terms.
        distillation: The terms whose sum is added with weight alpha, by name.
        compute: Device of all the tensors, and precision of the networks.

    Returns:
        Every term and the totals ``generator`` and ``discriminator``, shape (K,) each, still
        on the device and possibly not yet calculated. ``distillation`` is the sum of its
        terms; where there are several, each follows as ``distillation.<name>``.
    """
    real = x.flatten(1, 2)
    with autocast(compute):
        fake = players.generator(real)
    judged = _discriminator_step(players, real, fake.detach(), compute)
    real_features, features = _features(players.discriminator, real, fake, compute)
    students = x.shape[1]
    batch = Batch(
        rows,
        x,
        fake=_per_student(fake, students),
        features=_per_student(features, students),
    )
    terms = _generator_terms(
        batch, _per_student(real_features, students), weights, distillation
    )
    _update(players.generator_adam, terms["generator"])
    terms = {name: term.detach() for name, term in terms.items()}
    return {**terms, "discriminator": judged}


def _discriminator_step(
    players: Players, real: Tensor, fake: Tensor, compute: Compute
) -> Tensor:
    with autocast(compute):
        real_logits = players.discriminator(real)
        fake_logits = players.discriminator(fake)
    loss = discriminator_loss(_full(real_logits), _full(fake_logits))
    _update(players.discriminator_adam, loss)
    return loss.detach()


def _features(
    discriminator: Discriminator, real: Tensor, fake: Tensor, compute: Compute
) -> tuple[Tensor, Tensor]:
    """Features of real beats, without gradient, and of fakes, with one."""
    # A context of its own: the discriminator's weights have just changed.
    with autocast(compute):
        with torch.no_grad():
            real_features: Tensor = discriminator.features(real)
        return real_features, discriminator.features(fake)


def _generator_terms(
    batch: Batch, real_features: Tensor, weights: Weights, distillation: Mapping[str, Term]
) -> Terms:
    terms = {
        "reconstruction": reconstruction(batch.x, batch.fake),
        "feature_matching": feature_matching(real_features, batch.features),
    }
    total = terms["reconstruction"] + weights.w_adv * terms["feature_matching"]
    distilled = {name: term(batch) for name, term in distillation.items()}
    if distilled:
        terms["distillation"] = torch.stack(list(distilled.values())).sum(dim=0)
        total = total + weights.alpha * terms["distillation"]
    if len(distilled) > 1:
        terms |= {f"distillation.{name}": term for name, term in distilled.items()}
    return {**terms, "generator": total}


def _update(optimiser: StackedAdam, losses: Tensor) -> None:
    # No student's loss depends on another's parameters, so that the gradient of the sum is
    # the gradient of each. Asking for these parameters alone leaves the other network's out.
    optimiser.step(torch.autograd.grad(losses.sum(), optimiser.parameters))


def _per_student(x: Tensor, students: int) -> Tensor:
    """(B, K * C, L) to (B, K, C, L), in full precision."""
    return _full(x).reshape(x.shape[0], students, -1, x.shape[-1])


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x
