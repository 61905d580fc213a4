"""The built-in method ``memory``: nearest neighbours, and students that score as they do."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beatgan_cases import CPU, beats, finite, training_data

from kdsearch.data import DataSettings, SimulatedSettings, TrainingData, load_dataset
from kdsearch.errors import ConfigError, DataError
from kdsearch.evaluation.costs import measure
from kdsearch.methods.memory import Memory
from kdsearch.methods.memory.distortions import DISTORTIONS, distort
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.stack import StudentStack, contrast, score_regression
from kdsearch.methods.memory.teacher import AROUND, SMALLEST_DISTANCE, fill, own_scores, recall
from kdsearch.methods.protocol import State, Targets, Task
from kdsearch.methods.torch_stack import shape_of
from kdsearch.metrics.ranking import rank

METHOD = Memory()
SMALL = {"width": 8, "depth": 2, "components": 5, "batch_size": 8, "epochs": 3}


def student(**changes: object) -> StudentSettings:
    return StudentSettings.model_validate({**SMALL, **changes})


def filled(data: TrainingData, **changes: object) -> State:
    settings = TeacherSettings.model_validate({"components": 5, **changes})
    stack = METHOD.teacher_stack(settings, Task(data, CPU))
    stack.put_in(0, settings, seed=0)
    assert finite(stack.advance()[0])
    return stack.weights(0)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return training_data(40)


@pytest.fixture(scope="module")
def targets(data: TrainingData) -> Targets:
    return METHOD.targets([student()], Task(data, CPU, filled(data)))


def pupils(data: TrainingData, targets: Targets, slots: int = 1) -> StudentStack:
    return METHOD.student_stack(student(), slots, Task(data, CPU, {}, targets))


# The memory.


def explicit(x: np.ndarray, train: np.ndarray, neighbours: int, density: float) -> np.ndarray:
    """Scores of beats (n, features) with every distance written out, all components kept."""

    def distances(one: np.ndarray) -> np.ndarray:
        return np.sqrt(((train - one) ** 2).sum(axis=1))

    def log(distance: np.ndarray) -> np.ndarray:
        return np.log(distance + SMALLEST_DISTANCE)

    around = np.array([np.sort(distances(one))[1 : AROUND + 1].mean() for one in train])
    scores = []
    for one in x:
        order = np.argsort(distances(one))
        nearest = distances(one)[order[:neighbours]].mean()
        scores.append(log(nearest) - density * log(around[order[0]]))
    return np.array(scores)


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("view", ["range", "deviation"])
def test_a_memory_scores_as_all_distances_written_out(neighbours: int, view: str):
    train, x = beats(30, 1), beats(9, 2)
    settings = TeacherSettings(
        view=view, components=32, neighbours=neighbours, density=0.4, weight_before=2
    )

    def rows(beat: np.ndarray) -> np.ndarray:
        flat = beat[:, 0].astype(np.float64)
        if view == "deviation":
            flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
        weights = np.ones(32)
        weights[:10], weights[18:] = 2, 0.7
        return flat * weights

    # As many components as there are samples or beats: distances between them are whole.
    centred = rows(train) - rows(train).mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    kept = axes[:29]
    expected = explicit(rows(x) @ kept.T, rows(train) @ kept.T, neighbours, 0.4)
    found = recall(fill(settings, torch.tensor(train)), x)
    correlation = np.corrcoef(found, expected)[0, 1]
    assert correlation == pytest.approx(1, abs=1e-5)


def test_a_memory_of_both_views_is_their_mean():
    train, x = torch.tensor(beats(30, 1)), beats(9, 2)
    alone = [recall(fill(TeacherSettings(view=v), train), x) for v in ("range", "deviation")]
    both = recall(fill(TeacherSettings(view="both"), train), x)
    np.testing.assert_allclose(both, np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)


def test_the_nearest_stored_beat_is_that_of_the_smallest_distance(data: TrainingData):
    memory = filled(data)
    stored = data.train
    slightly_changed = np.float32(0.98) * stored[[7, 3, 21]]
    assert METHOD.nearest(memory, slightly_changed).tolist() == [7, 3, 21]
    view, x = memory["views"][0], data.validation.x
    points = torch.from_numpy(x).flatten(1) @ view["axes"].T - view["offset"]
    expected = torch.cdist(points, view["points"]).argmin(dim=1)
    assert METHOD.nearest(memory, x).tolist() == expected.tolist()


def test_remembered_beats_are_left_out_of_their_own_comparison():
    train = beats(30, 1)
    memory = fill(TeacherSettings(density=0), torch.tensor(train))
    left_out = fill(TeacherSettings(density=0), torch.tensor(train[1:]))
    assert own_scores(memory)[0] > recall(memory, train[:1])[0] + 1
    # Without the beat, components and scale are a little different.
    assert own_scores(memory)[0] == pytest.approx(recall(left_out, train[:1])[0], abs=0.5)


def test_more_leads_and_flat_beats_are_remembered():
    train = beats(30, 1, leads=2).copy()
    train[3] = 0
    scores = recall(fill(TeacherSettings(), torch.tensor(train)), train)
    assert scores.shape == (30,)
    assert np.isfinite(scores).all()


def test_a_memory_of_too_few_beats_is_refused():
    with pytest.raises(DataError, match=r"at least 12 normal beats .* but there are 11"):
        fill(TeacherSettings(), torch.tensor(beats(11, 1)))


def test_a_memory_is_saved_and_put_back(data: TrainingData):
    settings = TeacherSettings(components=5)
    stack, again = (METHOD.teacher_stack(settings, Task(data, CPU)) for _ in range(2))
    stack.put_in(0, settings, seed=0)
    with pytest.raises(ValueError, match="the memory is empty"):
        stack.weights(0)
    stack.advance()
    again.put_in(0, settings, seed=0, state=stack.save(0))
    scores = [METHOD.score(s.weights(0), data.validation.x, CPU) for s in (stack, again)]
    np.testing.assert_array_equal(*scores)


# Distorted beats.


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=lambda one: one.__name__[1:])
@pytest.mark.parametrize(("leads", "length"), [(1, 320), (2, 64)])
def test_each_distortion_changes_beats_and_keeps_their_scale(
    distortion: Callable[..., np.ndarray], leads: int, length: int
):
    x = beats(50, 3, leads=leads, length=length)
    made = distort(x, np.random.default_rng(0), [distortion])
    assert made.shape == x.shape
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.min(axis=-1), -1, atol=1e-5)
    np.testing.assert_allclose(made.max(axis=-1), 1, atol=1e-5)
    changed = np.abs(made - x).max(axis=(1, 2)) > 0.01
    assert changed.mean() > 0.5
    np.testing.assert_array_equal(made, distort(x, np.random.default_rng(0), [distortion]))


# Students.


def test_the_terms_are_those_of_their_formulas():
    taught, memory = torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0])
    assert score_regression(taught, memory).item() == pytest.approx((0.125 + 2.5) / 2)
    found = contrast(torch.tensor([-2.0, 1.0]))
    assert found.item() == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2)


def test_a_student_goes_on_bit_for_bit(data: TrainingData, targets: Targets):
    whole, first, second = (pupils(data, targets) for _ in range(3))
    whole.put_in(0, student(), seed=3)
    first.put_in(0, student(), seed=3)
    whole.advance()
    first.advance()
    state = first.save(0)
    kept = deepcopy(state)
    second.put_in(0, student(), seed=3, state=state)
    reports = [stack.advance()[0] for stack in (whole, second)]
    assert finite(reports[0])
    assert reports[0].losses == reports[1].losses
    np.testing.assert_array_equal(reports[0].scores, reports[1].scores)
    ours, theirs = (stack.weights(0)["network"] for stack in (whole, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # What was saved stays as it was.
    assert torch.equal(kept["network"]["leave.bias"], state["network"]["leave.bias"])
    assert torch.equal(kept["adam"]["means"], state["adam"]["means"])


def plainly(data: TrainingData, targets: Targets, settings: StudentSettings, seed: int) -> Any:
    """A student's training without a stack, and the losses of its last epoch."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = METHOD.network(settings, shape_of(data))
        rng.set_state(torch.get_rng_state())
    network.load_state_dict(METHOD.start(settings, data), strict=False)
    adam = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
    normal, distorted = torch.tensor(data.train), torch.tensor(targets["distorted"])
    half = settings.batch_size // 2
    steps = len(normal) // half
    for epoch in range(settings.epochs):
        losses: list[list[float]] = []
        for step, rows in enumerate(torch.randperm(len(normal), generator=rng).split(half)):
            progress = (epoch + step / steps) / settings.epochs
            rising, falling = (
                progress / 0.05,
                (1 + np.cos(np.pi * (progress - 0.05) / 0.95)) / 2,
            )
            for group in adam.param_groups:
                group["lr"] = settings.lr * (max(rising, 0.01) if rising < 1 else falling)
            others = torch.randint(len(distorted), (half,), generator=rng)
            memory = np.concatenate([targets["own"][rows], targets["distorted_scores"][others]])
            scores, logits = network(torch.cat([normal[rows], distorted[others]]))
            terms = [
                torch.nn.functional.smooth_l1_loss(scores, torch.tensor(memory)),
                torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, torch.tensor([0.0] * half + [1.0] * half)
                ),
            ]
            adam.zero_grad()
            (settings.alpha * terms[0] + settings.w_contrast * terms[1]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            adam.step()
            losses.append([term.item() for term in terms])
    return network, np.mean(losses, axis=0)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_stack_of_one_trains_as_plain_torch_does(
    data: TrainingData, targets: Targets, seed: int
):
    settings = student(weight_decay=0.1, lr=0.01, alpha=0.7)
    network, losses = plainly(data, targets, settings, seed)
    stack = pupils(data, targets)
    stack.put_in(0, settings, seed=seed)
    for _ in range(settings.epochs):
        report = stack.advance()[0]
    ours = stack.weights(0)["network"]
    assert ours.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)
    found = [report.losses[name] for name in ("distillation", "contrast")]
    np.testing.assert_allclose(found, losses, rtol=1e-4)


def test_neighbours_in_a_stack_change_nothing(data: TrainingData, targets: Targets):
    alone, together = pupils(data, targets), pupils(data, targets, slots=2)
    alone.put_in(0, student(), seed=3)
    together.put_in(1, student(), seed=3)
    together.put_in(0, student(lr=1e-4, alpha=0), seed=4)
    ours, theirs = alone.advance()[0], together.advance()[1]
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-5)
    np.testing.assert_allclose(theirs.scores, ours.scores, rtol=1e-4, atol=1e-5)
    together.take_out(0)
    assert together.advance().keys() == {1}


def test_what_is_taught_moves_the_student_and_alpha_weighs_it(
    data: TrainingData, targets: Targets
):
    def trained(alpha: float, shift: float) -> torch.Tensor:
        moved = {**targets, "own": targets["own"] + np.float32(shift)}
        stack = pupils(data, moved)
        stack.put_in(0, student(alpha=alpha), seed=3)
        stack.advance()
        return stack.weights(0)["network"]["enter.weight"]

    assert torch.equal(trained(0, 0), trained(0, 1))
    assert not torch.equal(trained(1, 0), trained(1, 1))
    assert not torch.equal(trained(1, 0), trained(0.1, 0))


def test_a_student_that_diverged_is_returned_and_can_be_replaced(
    data: TrainingData, targets: Targets
):
    broken = {**targets, "own": np.full_like(targets["own"], np.nan)}
    stack = pupils(data, broken)
    stack.put_in(0, student(), seed=3)
    assert np.isnan(stack.advance()[0].losses["distillation"])
    stack.take_out(0)
    stack.put_in(0, student(), seed=4)


def test_what_does_not_fit_is_refused(data: TrainingData, targets: Targets):
    stack = pupils(data, targets)
    with pytest.raises(ValueError, match="width is 8 in this stack, not 9"):
        stack.put_in(0, student(width=9), seed=0)
    with pytest.raises(ValueError, match="slot 1 of 1"):
        stack.put_in(1, student(), seed=0)
    with pytest.raises(ValueError, match="slot 0 is empty"):
        stack.save(0)
    with pytest.raises(ValueError, match="for 39 training beats"):
        pupils(replace(data, train=data.train[1:]), targets)
    with pytest.raises(ValueError, match="alpha and w_contrast are both 0"):
        student(alpha=0, w_contrast=0)
    with pytest.raises(ValueError, match="components: 33 is too many"):
        METHOD.student_stack(student(components=33), 1, Task(data, CPU, {}, targets))
    with pytest.raises(ValueError, match=r"on beats of shape \(1, 32\), not \(1, 64\)"):
        METHOD.score(filled(data), beats(2, 0, length=64), CPU)
    with pytest.raises(ValueError, match="'memory' in format 2 expected, found method 'beatg"):
        METHOD.score({"method": "beatgan", "format": 1}, beats(2, 0), CPU)


def test_the_scoring_network_gives_the_students_scores_at_a_counted_cost(
    data: TrainingData, targets: Targets
):
    stack = pupils(data, targets)
    stack.put_in(0, student(), seed=3)
    weights, x = stack.weights(0), data.validation.x
    with torch.inference_mode():
        scores = METHOD.scoring_network(weights)(torch.tensor(x)).numpy()
    np.testing.assert_allclose(scores, METHOD.score(weights, x, CPU), rtol=1e-5, atol=1e-6)
    # Two views of 32 samples in 5 components, 10 to 8, 8 to 8, 8 to 2.
    assert measure(METHOD, weights, 1, 32).operations == 2 * 32 * 5 + 10 * 8 + 8 * 8 + 8 * 2
    # The memory's: the components of each view, then the distances to 40 beats.
    assert measure(METHOD, filled(data), 1, 32).operations == 2 * (32 * 5 + 5 * 40)


def test_students_learn_what_the_memory_knows(tmp_path: Path):
    simulated = SimulatedSettings(beats=3000)
    dataset = load_dataset(DataSettings(simulated=simulated), tmp_path)
    settings = student(width=32, components=20, batch_size=128, epochs=6)
    training = dataset.training
    memory = filled(training, components=20)
    task = Task(training, CPU, memory)
    stack = METHOD.student_stack(
        settings, 1, replace(task, targets=METHOD.targets([settings], task))
    )
    stack.put_in(0, settings, seed=1)
    untrained = METHOD.score(stack.weights(0), dataset.test.x, CPU)
    for _ in range(settings.epochs):
        stack.advance()
    student_scores = METHOD.score(stack.weights(0), dataset.test.x, CPU)
    memory_scores = METHOD.score(memory, dataset.test.x, CPU)
    assert np.corrcoef(student_scores, memory_scores)[0, 1] > 0.8

    def auc(scores: np.ndarray) -> float:
        return rank(scores, dataset.test.abnormal).roc_auc()

    assert auc(student_scores) > auc(untrained) + 0.1
    assert auc(student_scores) > auc(memory_scores) - 0.05


# Beats with their context.


@pytest.fixture(scope="module")
def beside_own() -> TrainingData:
    settings = DataSettings(
        split="inter_patient",
        context="patient",
        simulated=SimulatedSettings(patients=8, beats=1600),
    )
    return load_dataset(settings, Path("unused")).training


def test_a_memory_of_differences_sees_nothing_else(beside_own: TrainingData):
    memory = filled(beside_own, view="patient", components=10)
    x = beside_own.validation.x
    scores = METHOD.score(memory, x, CPU)
    assert rank(scores, beside_own.validation.abnormal).roc_auc() > 0.9
    shape = x.copy()
    shape[:, 0] = 0
    np.testing.assert_array_equal(METHOD.score(memory, shape, CPU), scores)
    early = x.copy()
    early[:, 2, :140] = -0.8
    assert METHOD.score(memory, early, CPU).mean() > scores.mean() + 1
    deaf = filled(beside_own, view="patient", components=10, weight_rhythm=0)
    np.testing.assert_array_equal(METHOD.score(deaf, early, CPU), METHOD.score(deaf, x, CPU))


def test_other_views_leave_the_context_out(beside_own: TrainingData):
    without = replace(beside_own, train=beside_own.train[:, :1], context=False)
    x = beside_own.validation.x
    np.testing.assert_allclose(
        METHOD.score(filled(beside_own), x, CPU),
        METHOD.score(filled(without), x[:, :1], CPU),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_memory_of_differences_needs_a_context(data: TrainingData):
    with pytest.raises(ConfigError, match=r"teacher\.view: 'patient' needs data\.context"):
        filled(data, view="patient")


def test_distorted_beats_keep_their_patients_own(beside_own: TrainingData):
    x = beside_own.train
    changed = distort(x, np.random.default_rng(0), context=True)
    assert changed.shape == x.shape
    assert np.abs(changed).max() <= 1 + 1e-5
    own = x[:, 0] - 2 * x[:, 1]
    np.testing.assert_allclose(changed[:, 0] - 2 * changed[:, 1], own, atol=1e-4)
    others = (changed[:, 2] != x[:, 2]).any(axis=1).mean()
    assert 0.4 < others < 0.6
    steps = changed[:, 2]
    assert (steps[:, :140] == steps[:, :1]).all()
    assert (steps[:, 140:] == steps[:, -1:]).all()


def test_students_learn_differences(beside_own: TrainingData):
    memory = filled(beside_own, view="patient", components=10)
    settings = student(width=32, components=10, epochs=6, lr=5e-3, batch_size=64, w_contrast=0)
    task = Task(beside_own, CPU, memory)
    stack = METHOD.student_stack(
        settings, 1, replace(task, targets=METHOD.targets([settings], task))
    )
    stack.put_in(0, settings, seed=1)
    for _ in range(settings.epochs):
        trained = stack.advance()[0]
    assert rank(trained.scores, beside_own.validation.abnormal).roc_auc() > 0.85
    assert METHOD.score(stack.weights(0), beside_own.validation.x, CPU).shape == (
        len(beside_own.validation.x),
    )


def test_more_components_than_the_beats_have_are_refused_before_a_search():
    data = training_data(24)
    students = [student(components=20), student(components=24)]
    with pytest.raises(
        ConfigError, match=r"components: 24 asked for, but 24 .* only 23; lower"
    ):
        METHOD.targets(students, Task(data, CPU))
