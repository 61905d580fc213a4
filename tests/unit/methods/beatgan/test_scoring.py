from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from beatgan_cases import CPU, beats, student, student_stack, training_data

from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.scoring import (
    RIDGE,
    error_weights,
    load_generator,
    reconstruct,
    score,
)
from kdsearch.methods.protocol import Compute, State
from kdsearch.metrics.ranking import rank


def weights() -> State:
    stack = student_stack()
    stack.put_in(0, student(), seed=0)
    return stack.weights(0)


def test_scores_are_mean_squared_errors_of_reconstructions() -> None:
    x = beats(9, 3)
    found = score(weights(), x, CPU)
    assert found.shape == (9,)
    assert found.dtype == np.float32
    expected = ((x - reconstruct(weights(), x, CPU)) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scores_do_not_depend_on_the_batch() -> None:
    x, state = beats(9, 3), weights()
    whole, parts = (score(state, x, CPU, batch=batch) for batch in (512, 4))
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    again = reconstruct(weights(), x, CPU, batch=4)
    np.testing.assert_allclose(reconstruct(weights(), x, CPU), again, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "relative", "mahalanobis"])
@pytest.mark.parametrize("slots", [1, 3])
def test_weights_score_as_the_stack_validated(slots: int, kind: str) -> None:
    data = training_data()
    stack = student_stack(slots, data, score=kind)
    for slot in range(slots):
        stack.put_in(slot, student(score=kind), seed=slot)
    for slot, trained in stack.advance().items():
        scores = score(stack.weights(slot), data.validation.x, CPU)
        np.testing.assert_allclose(trained.scores, scores, rtol=1e-4)


def test_a_relative_score_divides_by_the_usual_error_at_each_sample() -> None:
    data = training_data(30)
    stack = student_stack(1, data, score="relative")
    stack.put_in(0, student(score="relative"), seed=0)
    state = stack.weights(0)
    x = data.validation.x
    usual = ((data.train - reconstruct(state, data.train, CPU)) ** 2).mean(axis=0)
    errors = (x - reconstruct(state, x, CPU)) ** 2 / usual * usual.mean()
    np.testing.assert_allclose(score(state, x, CPU), errors.mean(axis=(1, 2)), rtol=1e-4)
    with torch.inference_mode():
        scores, fake = BeatGan().scoring_network(state)(torch.tensor(x))
    np.testing.assert_allclose(scores, score(state, x, CPU), rtol=1e-4)
    np.testing.assert_allclose(fake, reconstruct(state, x, CPU), atol=1e-5)
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    np.testing.assert_array_equal(score(loaded, x, CPU), score(state, x, CPU))
    with pytest.raises(ValueError, match=r"error_weights should be \(1, 32\) or \(32, 32\)"):
        score({**state, "error_weights": torch.ones(31)}, x, CPU)


def test_the_mahalanobis_distance_of_errors() -> None:
    data = training_data(200)
    stack = student_stack(1, data, score="mahalanobis")
    stack.put_in(0, student(score="mahalanobis"), seed=0)
    state, x = stack.weights(0), data.validation.x
    usual = (data.train - reconstruct(state, data.train, CPU))[:, 0].astype(np.float64)
    covariance = usual.T @ usual / len(usual)
    variance = np.diag(covariance)
    inverse = np.linalg.inv(covariance + RIDGE * np.diag(variance))
    errors = (x - reconstruct(state, x, CPU))[:, 0].astype(np.float64)
    expected = np.einsum("ni,ij,nj->n", errors, inverse, errors) / 32 * variance.mean()
    np.testing.assert_allclose(score(state, x, CPU), expected, rtol=1e-3)
    with torch.inference_mode():
        scores, _ = BeatGan().scoring_network(state)(torch.tensor(x))
    np.testing.assert_allclose(scores, score(state, x, CPU), rtol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "relative", "mahalanobis"])
def test_one_diverged_student_does_not_spoil_the_scores_of_its_neighbour(kind: str) -> None:
    data = training_data(40)
    stack = student_stack(2, data, score=kind)
    stack.put_in(0, student(score=kind), seed=0)
    stack.put_in(1, student(score=kind, lr=1e30), seed=1)
    alone = student_stack(1, data, score=kind)
    alone.put_in(0, student(score=kind), seed=0)
    trained, expected = stack.advance(), alone.advance()[0]
    assert np.isnan(trained[1].scores).all()
    aucs = [rank(t.scores, data.validation.abnormal).roc_auc() for t in (trained[0], expected)]
    # Adam turns rounding into steps.
    assert aucs[0] == pytest.approx(aucs[1], abs=0.03)


def test_the_usual_error_is_that_of_beats_spread_over_all() -> None:
    """Where they are sorted by patient, the first ones would be one patient's."""
    generator = load_generator(weights(), CPU)
    x = torch.tensor(np.repeat(beats(3, 5), 2000, axis=0))
    found = error_weights("relative", generator, x)
    assert found is not None
    assert found.shape == (1, 1, 32)
    usual = (x - torch.tensor(reconstruct(weights(), x.numpy(), CPU))).square().mean(dim=0)
    torch.testing.assert_close(found[0], usual.mean() / usual, rtol=0.01, atol=0.01)


def test_weights_survive_a_safe_file() -> None:
    x = beats(5, 3)
    torch.save(weights(), file := io.BytesIO())
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    np.testing.assert_array_equal(reconstruct(loaded, x, CPU), reconstruct(weights(), x, CPU))


def test_bf16_scores_are_close_and_float32() -> None:
    x, half = beats(9, 3), Compute("cpu", "bf16")
    found = score(weights(), x, half)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, score(weights(), x, CPU), rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "method 'beatgan' in format 1 expected, found .* in format 2"),
        ({"method": "other"}, "found method 'other' in format 1"),
        ({"architecture": {"width": 4}}, "architecture of width, latent, leads, length"),
        ({"architecture": None}, "architecture of width, latent, leads, length"),
        ({"generator": None}, "weights have no generator"),
        (
            {"architecture": {"width": 8, "latent": 5, "leads": 1, "length": 32}},
            r"generator: decoder.main.0.weight should be \(5, 128, 1\), but is \(5, 64, 1\)",
        ),
    ],
)
def test_what_are_no_weights_of_this_format_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_generator({**weights(), **changes}, CPU)


def test_missing_and_superfluous_values_are_named() -> None:
    state = weights()
    lost = state["generator"].pop("decoder.main.0.weight")
    with pytest.raises(ValueError, match=r"decoder.main.0.weight should be .*, but is absent"):
        load_generator(state, CPU)
    state["generator"].update({"decoder.main.0.weight": lost, "extra": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"extra should be absent, but is \(2,\)"):
        load_generator(state, CPU)
