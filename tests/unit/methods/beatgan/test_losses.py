from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kdsearch.methods.beatgan import losses

# Two students, two beats, one channel, two positions.
X = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]], [[[1.0, 1.0]], [[2.0, 0.0]]]])
FAKE = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]], [[[1.0, 4.0]], [[0.0, 0.0]]]])
MEAN, STD = torch.tensor(-4.0), torch.tensor(0.5)


def scores(*z: float) -> Tensor:
    """Scores of one student whose standardised logarithms are these."""
    return (torch.tensor(z) * STD + MEAN).exp().unsqueeze(1)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_beat_errors_by_hand() -> None:
    torch.testing.assert_close(
        losses.beat_errors(X, FAKE), torch.tensor([[0.5, 1.0], [4.5, 2.0]])
    )


def test_reconstruction_by_hand() -> None:
    torch.testing.assert_close(losses.reconstruction(X, FAKE), torch.tensor([2.5, 1.5]))


def test_feature_matching_by_hand() -> None:
    real, fake = (x.permute(0, 3, 1, 2) for x in (X, FAKE))
    torch.testing.assert_close(losses.feature_matching(real, fake), torch.tensor([2.5, 1.5]))


def test_reconstruction_distillation_by_hand() -> None:
    found = losses.reconstruction_distillation(FAKE, X)
    torch.testing.assert_close(found, torch.tensor([2.5, 1.5]))


def test_discriminator_loss_by_hand() -> None:
    real = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    fake = torch.tensor([[0.0, -1.0], [0.0, -1.0]])
    expected = torch.tensor(
        [2 * math.log(2), math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))]
    )
    torch.testing.assert_close(losses.discriminator_loss(real, fake), expected)


def test_discriminator_loss_does_not_overflow() -> None:
    far = torch.tensor([[200.0]])
    assert losses.discriminator_loss(far, -far).item() == 0
    assert losses.discriminator_loss(-far, far).item() == 400


def test_score_kl_by_hand() -> None:
    # The softmax of log(3) and 0 is 3/4 and 1/4, that of two equal numbers 1/2 and 1/2.
    teacher, student = scores(math.log(3), 0.0), scores(1.0, 1.0)
    found = losses.score_kl(student, teacher, torch.tensor([1.0]), MEAN, STD)
    assert found.item() == pytest.approx(kl([0.75, 0.25], [0.5, 0.5]), rel=1e-4)
    warm = scores(2 * math.log(3), 0.0)
    found = losses.score_kl(student, warm, torch.tensor([2.0]), MEAN, STD)
    assert found.item() == pytest.approx(4 * kl([0.75, 0.25], [0.5, 0.5]), rel=1e-4)


def test_score_kl_ignores_a_common_factor_and_is_zero_for_the_same_ranking() -> None:
    teacher = scores(0.3, -1.0, 2.0)
    found = losses.score_kl(5 * teacher, teacher, torch.tensor([3.0]), MEAN, STD)
    assert found.item() == pytest.approx(0, abs=1e-5)


def test_score_kl_is_finite_for_a_perfect_reconstruction() -> None:
    student = torch.zeros(2, 1, requires_grad=True)
    found = losses.score_kl(student, scores(0.0, 1.0), torch.tensor([1.0]), MEAN, STD)
    found.sum().backward()
    assert found.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def score_gradient(temperature: float) -> Tensor:
    student = scores(0.0, 0.5, -1.0).requires_grad_()
    teacher, warmth = scores(1.0, -1.0, 0.2), torch.tensor([temperature])
    losses.score_kl(student, teacher, warmth, MEAN, STD).sum().backward()
    assert student.grad is not None
    return student.grad


def test_score_kl_has_a_gradient_that_moves_with_temperature() -> None:
    cold, warm = score_gradient(1.0), score_gradient(4.0)
    assert cold.abs().min() > 1e-3
    assert (cold - warm).abs().max() > 0.1 * cold.abs().max()


def test_published_form_has_a_value_but_no_gradient() -> None:
    student = scores(0.0, 0.5, -1.0).requires_grad_()
    labels = torch.tensor([[0.0], [1.0], [0.0]])
    found = losses.published_kl(student, labels, torch.tensor([4.0]))
    assert found.item() > 0
    assert not found.requires_grad
    total = student.sum() + found.sum()
    assert torch.equal(torch.autograd.grad(total, student)[0], torch.ones(3, 1))


def test_published_form_by_hand() -> None:
    student = torch.tensor([[math.log(3)], [0.0]])
    found = losses.published_kl(student, torch.zeros(2, 1), torch.tensor([1.0]))
    assert found.item() == pytest.approx(kl([0.5, 0.5], [0.75, 0.25]))


def test_attention_map_by_hand() -> None:
    # Mean squares over the two channels: 3, 4; of unit length: 0.6, 0.8.
    features = torch.tensor([[[[1.0, 2.0], [5**0.5, 2.0]]]])
    torch.testing.assert_close(losses.attention_map(features), torch.tensor([[[0.6, 0.8]]]))


def test_attention_distillation_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0], [5**0.5, 2.0]]]])
    found = losses.attention_distillation(features, torch.tensor([[[1.0, 0.0]]]))
    assert found.item() == pytest.approx(0.4**2 + 0.8**2)


def test_students_do_not_see_each_other() -> None:
    temperature = torch.tensor([1.0, 4.0])
    student, teacher = torch.rand(2, 5, 2).unbind(0)
    both = losses.score_kl(student, teacher, temperature, MEAN, STD)
    for k in (0, 1):
        one = slice(k, k + 1)
        alone = losses.score_kl(student[:, one], teacher[:, one], temperature[one], MEAN, STD)
        torch.testing.assert_close(both[one], alone)
