"""One mini-batch: the discriminator's step, then the generator's.

Takes half the time of the published step. It computes the reconstruction once instead of twice,
does not propagate the discriminator's loss into the generator (the published step discards that
gradient), and computes no gradients of the discriminator's weights in the generator's step.
Parameter updates are the published ones; the running statistics of both networks' BatchNorm
differ. ``docs/methods.md`` lists all differences from the published code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdsearch.methods.beatgan import kernels
from kdsearch.methods.beatgan.layers import Statistics
from kdsearch.methods.beatgan.losses import discriminator_loss, feature_matching, reconstruction
from kdsearch.methods.beatgan.optimiser import StackedAdam
from kdsearch.methods.beatgan.stacked import (
    PARTS,
    Pass,
    StackedDiscriminator,
    StackedGenerator,
    full_precision,
)

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Inputs of the terms of distillation, for K students.

    Attributes:
        rows: Row of each beat among the training beats, shape (B, K).
        x: The beats, shape (B, K, leads, length).
        fake: Their reconstructions with gradient, same shape, float32.
        features: The discriminator's features of ``fake`` with gradient, shape (B, K, C, L),
            in the precision of the products.
    """

    rows: Tensor
    x: Tensor
    fake: Tensor
    features: Tensor


Term = Callable[[Batch], Tensor]
"""A term of distillation: one value per student, shape (K,)."""


@dataclass(frozen=True)
class Weights:
    """Weights of the generator's terms, each of shape (K,).

    Attributes:
        alpha: Of the whole distillation.
        terms: Of each term of the distillation, by name, before alpha.
    """

    w_adv: Tensor
    alpha: Tensor
    terms: Mapping[str, Tensor]


@dataclass(frozen=True)
class Players:
    """Both networks of a stack and their optimisers."""

    generator: StackedGenerator
    discriminator: StackedDiscriminator
    generator_adam: StackedAdam
    discriminator_adam: StackedAdam


def train_step(
    players: Players,
    rows: Tensor,
    x: Tensor,
    *,
    weights: Weights,
    distillation: Mapping[str, Term],
) -> Terms:
    """Update both networks of every student with one mini-batch each.

    No value is copied to the host.

    Args:
        players: Changed in place.
        rows: Row of each beat among the training beats, shape (B, K).
        x: The beats, shape (B, K, leads, length).
        weights: Of the generator's terms.
        distillation: The terms whose weighted sum is added with weight alpha, by name.

    Returns:
        Every term and the totals ``generator`` and ``discriminator``, shape (K,) each, still
        on the device and possibly not yet calculated. ``distillation`` is the weighted sum of
        its terms; where there are several, each follows as ``distillation.<name>``.
    """
    generator, discriminator = players.generator, players.discriminator
    norms = generator.norms()
    # From here on the order is samples, students, leads, as `layers` expects.
    real = x.permute(0, 3, 1, 2).to(generator.matrices[0].dtype)
    found = generator.forward(real, norms)
    both = torch.cat([real, found.beats.to(real.dtype)])
    judged = _discriminator_step(players, both)

    features, passes = discriminator.features(both, discriminator.norms(), parts=PARTS)
    discriminator.track_pass(passes)
    real_features, fake_features = features.chunk(2)
    fake = found.beats.detach().requires_grad_()
    fake_features = fake_features.detach().requires_grad_()
    matched = _feature_matching(real_features, fake_features)
    batch = Batch(rows, x, fake=_by_lead(fake), features=_by_lead(fake_features))
    terms = _generator_terms(batch, matched, weights, distillation)
    of_fake, of_features = torch.autograd.grad(terms["generator"].sum(), (fake, fake_features))
    through_features = discriminator.features_backward(
        of_features, discriminator.norms(), [_of_fakes(p) for p in passes]
    )
    of_fake = of_fake + through_features
    generator.backward(of_fake, norms, found)
    players.generator_adam.step()
    generator.track_pass(found)
    terms = {name: term.detach() for name, term in terms.items()}
    return {**terms, "discriminator": judged}


def _discriminator_step(players: Players, both: Tensor) -> Tensor:
    """Train the discriminator; the first half of the beats is real."""
    discriminator = players.discriminator
    norms = discriminator.norms()
    features, passes = discriminator.features(both, norms, parts=PARTS)
    discriminator.track_pass(passes)
    logits = discriminator.logits(features).requires_grad_()
    loss = discriminator_loss(*logits.chunk(2))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    discriminator.backward(gradient, features, norms, passes)
    players.discriminator_adam.step()
    return loss.detach()


def _feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """`losses.feature_matching` of (B, L, K, C) in the precision of the products."""
    if kernels.fits(fake):
        return kernels.feature_matching(real, fake)
    return feature_matching(full_precision(real), full_precision(fake))


def _generator_terms(
    batch: Batch, matched: Tensor, weights: Weights, distillation: Mapping[str, Term]
) -> Terms:
    terms = {
        "reconstruction": reconstruction(batch.x, batch.fake),
        "feature_matching": matched,
    }
    total = terms["reconstruction"] + weights.w_adv * terms["feature_matching"]
    distilled = {name: term(batch) for name, term in distillation.items()}
    if distilled:
        weighted = [weights.terms[name] * term for name, term in distilled.items()]
        terms["distillation"] = torch.stack(weighted).sum(dim=0)
        total = total + weights.alpha * terms["distillation"]
    if len(distilled) > 1:
        terms |= {f"distillation.{name}": term for name, term in distilled.items()}
    return {**terms, "generator": total}


def _of_fakes(found: Pass) -> Pass:
    """Return the part of a pass that belongs to the reconstructions."""
    inputs, before, after = (part.chunk(2)[1] for part in found[:3])
    statistics = found.statistics
    if statistics is not None:
        statistics = Statistics(statistics.mean[1:], statistics.inverse[1:])
    return Pass(inputs, before, after, statistics)


def _by_lead(x: Tensor) -> Tensor:
    """(B, L, K, C) to (B, K, C, L)."""
    return x.permute(0, 2, 3, 1)
