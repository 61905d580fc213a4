"""Terms of the losses: pure functions on tensors that return one value per student.

B is the number of beats in a mini-batch, K that of students, C channels, L positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Smaller than the error of any reconstruction; keeps the logarithm of 0 finite.
SMALLEST_SCORE = 1e-12


def beat_errors(x: Tensor, fake: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of each beat's reconstruction: BeatGAN's anomaly score.

    Args:
        x: Beats, shape (B, K, C, L).
        fake: Their reconstructions, same shape.
        weights: Of the samples' squares, shape (K, C, L), or by which errors are multiplied
            before they are squared, shape (K, C * L, C * L); None for equal ones.

    Returns:
        Shape (B, K).
    """
    errors = x - fake
    if weights is None:
        return errors.square().mean(dim=(2, 3))
    if weights.shape[1:] == errors.shape[2:]:
        return (errors.square() * weights).mean(dim=(2, 3))
    mixed = errors.flatten(2).transpose(0, 1) @ weights
    return mixed.square().mean(dim=2).T


def reconstruction(x: Tensor, fake: Tensor) -> Tensor:
    """Mean squared error of the reconstructions (Zhou et al., BeatGAN, IJCAI 2019).

    Args:
        x: Beats, shape (B, K, C, L).
        fake: Their reconstructions, same shape.

    Returns:
        One value per student, shape (K,).
    """
    return beat_errors(x, fake).mean(dim=0)


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Squared distance between the discriminator's features of real and generated beats.

    The generator's adversarial term: it pulls reconstructions towards beats that the
    discriminator cannot tell apart (Zhou et al., BeatGAN, IJCAI 2019).

    Args:
        real: Features of real beats, shape (B, L, K, C) as the products give them, without
            gradient.
        fake: Features of their reconstructions, same shape.

    Returns:
        One value per student, shape (K,).
    """
    return (real - fake).square().mean(dim=(0, 1, 3))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy of real beats as real, plus that of reconstructions as fake.

    Args:
        real_logits: The discriminator's logits of real beats, shape (B, K).
        fake_logits: Its logits of reconstructions, same shape.

    Returns:
        One value per student, shape (K,).
    """
    entropy = functional.binary_cross_entropy_with_logits
    real = entropy(real_logits, torch.ones_like(real_logits), reduction="none")
    fake = entropy(fake_logits, torch.zeros_like(fake_logits), reduction="none")
    return real.mean(dim=0) + fake.mean(dim=0)


def log_scores(scores: Tensor) -> Tensor:
    """Natural logarithm of anomaly scores, finite also for a perfect reconstruction."""
    return scores.clamp(min=SMALLEST_SCORE).log()


def score_kl(
    student_scores: Tensor,
    teacher_scores: Tensor,
    temperature: Tensor,
    mean: Tensor,
    std: Tensor,
) -> Tensor:
    """Divergence of the student's ranking of a mini-batch from the teacher's.

    T^2 * KL(softmax(z_t / T) || softmax(z_s / T)) over the beats of the mini-batch (Hinton
    et al. 2015, with the published DistillKL's choice of scores in place of class logits),
    where z = (log(score) - mean) / std. Raw scores are too small (about 0.01) and too
    similar for a softmax; both sides are standardised by the teacher's statistics.

    Args:
        student_scores: Anomaly scores, shape (B, K), with gradient.
        teacher_scores: The teacher's scores of the same beats, same shape.
        temperature: T, shape (K,).
        mean: Of the teacher's log scores over all training beats, a scalar.
        std: Likewise.

    Returns:
        One value per student, shape (K,).
    """
    student = _softened((log_scores(student_scores) - mean) / std, temperature)
    teacher = _softened((log_scores(teacher_scores) - mean) / std, temperature)
    return temperature.square() * _divergence(teacher, student)


def published_kl(student_scores: Tensor, others: Tensor, temperature: Tensor) -> Tensor:
    """The distillation terms as they were published: values without a gradient, controls.

    T^2 * KL(softmax(others / T) || softmax(student_scores / T)), with scores that had left
    the graph (they were NumPy arrays), so that temperature and alpha change the reported loss
    and nothing else. The published code compares them with labels, and in its second form with
    the teacher's scores.

    Args:
        student_scores: Anomaly scores, shape (B, K); detached here.
        others: Labels of the same beats, 1 where abnormal, or the teacher's scores; same
            shape.
        temperature: T, shape (K,).

    Returns:
        One value per student, shape (K,), which requires no gradient.
    """
    student = _softened(student_scores.detach(), temperature)
    teacher = _softened(others.detach(), temperature)
    return temperature.detach().square() * _divergence(teacher, student)


def reconstruction_distillation(fake: Tensor, teacher_fake: Tensor) -> Tensor:
    """Mean squared distance between the student's and the teacher's reconstructions.

    Args:
        fake: The student's, shape (B, K, C, L).
        teacher_fake: The teacher's of the same beats, same shape.

    Returns:
        One value per student, shape (K,).
    """
    return (fake - teacher_fake).square().mean(dim=(0, 2, 3))


def attention_map(features: Tensor) -> Tensor:
    """Attention along a beat: the mean square over channels, scaled to unit length.

    Zagoruyko & Komodakis, Paying More Attention to Attention (ICLR 2017), with p = 2.

    Args:
        features: Shape (B, K, C, L); networks of different width have comparable maps.

    Returns:
        Shape (B, K, L).
    """
    return functional.normalize(features.square().mean(dim=2), dim=-1)


def attention_distillation(student_features: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared distance between attention maps, ||norm(mean_c f_s^2) - norm(mean_c f_t^2)||^2.

    Args:
        student_features: The student's discriminator's, shape (B, K, C, L).
        teacher_map: The teacher's attention map of the same beats, shape (B, K, L).

    Returns:
        One value per student, shape (K,), between 0 and 2.
    """
    distance = (attention_map(student_features) - teacher_map).square().sum(dim=-1)
    return distance.mean(dim=0)


def _softened(scores: Tensor, temperature: Tensor) -> Tensor:
    return functional.log_softmax(scores / temperature, dim=0)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(dim=0)
