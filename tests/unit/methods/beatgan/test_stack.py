from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from beatgan_cases import (
    CPU,
    DIFFERENT,
    SMALL,
    TINY,
    break_generator,
    finite,
    identical,
    some_targets,
    student,
    student_stack,
    trained_teacher,
    training_data,
)
from part_cases import check_parts

from kdsearch.methods.beatgan import BeatGan, engine, optimiser
from kdsearch.methods.beatgan.distillation import distillation_terms
from kdsearch.methods.beatgan.networks import Discriminator, initial_state
from kdsearch.methods.beatgan.settings import TAUGHT, StudentSettings, TeacherSettings
from kdsearch.methods.beatgan.stack import BeatGanStack
from kdsearch.methods.beatgan.step import Batch
from kdsearch.methods.progress import PROGRESS, shown_rows
from kdsearch.methods.protocol import Compute, State, Task, TrainedEpoch


def alone(seed: int, epochs: int, **changes: object) -> tuple[State, list[TrainedEpoch]]:
    stack = student_stack(**changes)
    stack.put_in(0, student(**changes), seed=seed)
    reports = [stack.advance()[0] for _ in range(epochs)]
    return stack.save(0), reports


def through_a_file(state: State) -> State:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: State = torch.load(file, weights_only=True)
    return loaded


def same(one: TrainedEpoch, other: TrainedEpoch) -> bool:
    assert np.array_equal(one.scores, other.scores)
    return (one.epoch, one.losses) == (other.epoch, other.losses)


@pytest.fixture
def steady_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam scales a gradient that is nothing but rounding up to a full step; not with this."""
    monkeypatch.setattr(optimiser, "EPSILON", 1e-3)


def close_to(one: TrainedEpoch, other: TrainedEpoch) -> bool:
    return one.epoch == other.epoch and one.losses == pytest.approx(other.losses, rel=1e-3)


@pytest.mark.usefixtures("steady_adam")
@pytest.mark.parametrize("target", [*TAUGHT, "+".join(TAUGHT)])
def test_students_in_a_stack_train_as_if_alone(target: str) -> None:
    together = student_stack(3, target=target)
    for slot, scalars in enumerate(DIFFERENT):
        together.put_in(slot, student(target=target, **scalars), seed=slot)
    reports = [together.advance() for _ in range(2)]
    for slot, scalars in enumerate(DIFFERENT):
        state, single = alone(slot, 2, target=target, **scalars)
        found = together.save(slot)
        for part in ("generator", "discriminator"):
            torch.testing.assert_close(found[part], state[part], rtol=1e-3, atol=2e-5)
        for epoch in (0, 1):
            assert close_to(reports[epoch][slot], single[epoch])


@pytest.mark.usefixtures("steady_adam")
def test_students_come_and_go_without_touching_each_other() -> None:
    stack = student_stack(3)
    first, second, third = (student(**scalars) for scalars in DIFFERENT)
    stack.put_in(0, first, seed=0)
    stack.put_in(2, second, seed=1)
    assert sorted(stack.advance()) == [0, 2]
    stack.put_in(1, third, seed=2)
    stack.take_out(0)
    assert sorted(stack.advance()) == [1, 2]
    stack.put_in(0, first, seed=0)
    final = stack.advance()
    for slot, seed, epochs in ((0, 0, 1), (2, 1, 3), (1, 2, 2)):
        state, single = alone(seed, epochs, **DIFFERENT[seed])
        assert close_to(final[slot], single[-1])
        weights = stack.weights(slot)["generator"]
        torch.testing.assert_close(weights, state["generator"], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_going_on_from_a_file_is_the_same_bit_for_bit(precision: str) -> None:
    compute = Compute("cpu", precision)
    straight = student_stack(compute=compute)
    straight.put_in(0, student(), seed=3)
    for _ in range(3):
        expected = straight.advance()
    halfway = student_stack(compute=compute)
    halfway.put_in(0, student(), seed=3)
    halfway.advance()
    later = student_stack(compute=compute)
    later.put_in(0, student(), seed=3, state=through_a_file(halfway.save(0)))
    for _ in range(2):
        found = later.advance()
    assert same(found[0], expected[0])
    assert identical(later.save(0), straight.save(0))


def test_a_student_keeps_reconstructions_of_its_first_epochs() -> None:
    """After epochs 1, 2 and 4, of the first beat of each class, also over a resume."""
    stack, rows = student_stack(), shown_rows(training_data().validation)
    stack.put_in(0, student(), seed=3)
    expected = {}
    for epoch in range(1, 6):
        stack.advance()
        weights = stack.weights(0)
        if epoch in (1, 2, 4):
            x = training_data().validation.x[rows]
            expected[epoch] = BeatGan().reconstruct(weights, x, CPU)
        state = through_a_file(stack.save(0))
        stack = student_stack()
        stack.put_in(0, student(), seed=3, state=state)
    kept = stack.weights(0)[PROGRESS]
    assert kept.keys() == expected.keys()
    for epoch, fakes in expected.items():
        np.testing.assert_allclose(kept[epoch], fakes, rtol=1e-5, atol=1e-6)


def test_a_teacher_keeps_no_reconstructions() -> None:
    assert PROGRESS not in trained_teacher(training_data())


@pytest.mark.usefixtures("steady_adam")
def test_a_saved_student_can_go_on_beside_others() -> None:
    stack = student_stack(2)
    stack.put_in(0, student(), seed=3)
    stack.advance()
    saved = stack.save(0)
    fresh = student_stack(2)
    fresh.put_in(0, student(), seed=8)
    fresh.put_in(1, student(), seed=3, state=saved)
    outcome = fresh.advance()[1]
    assert close_to(outcome, stack.advance()[0])
    assert outcome.epoch == 2


def test_the_same_seed_gives_the_same_student_and_another_seed_another() -> None:
    (one, reports), (again, repeated), (other, _) = (alone(seed, 1) for seed in (1, 1, 2))
    assert identical(one, again)
    assert same(reports[0], repeated[0])
    assert not torch.equal(
        one["generator"]["encoder1.main.0.weight"], other["generator"]["encoder1.main.0.weight"]
    )


def test_saving_is_a_copy_of_one_student() -> None:
    stack = student_stack(3)
    for slot in range(3):
        stack.put_in(slot, student(), seed=slot)
    stack.advance()
    state = stack.save(1)
    before = {name: value.clone() for name, value in state["generator"].items()}
    stack.advance()
    torch.testing.assert_close(state["generator"], before, rtol=0, atol=0)
    single = student_stack()
    single.put_in(0, student(), seed=1)
    single.advance()
    sizes = []
    for saved in (state, single.save(0)):
        torch.save(saved, file := io.BytesIO())
        sizes.append(file.tell())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_settings_and_age_are_in_the_saved_state() -> None:
    state, _ = alone(4, 2, alpha=0.25)
    assert (state["epoch"], state["seed"]) == (2, 4)
    assert StudentSettings.model_validate(state["settings"]) == student(alpha=0.25)
    assert state["generator_adam"]["step"] == 2 * 3  # 26 beats are three batches of 8


@pytest.mark.usefixtures("steady_adam")
def test_a_diverging_student_fails_alone() -> None:
    stack, sound = student_stack(3), student_stack(3)
    for slot in range(3):
        stack.put_in(slot, student(), seed=slot)
        sound.put_in(slot, student(), seed=slot)
    sound.advance()
    stack.advance()
    break_generator(stack, 1)
    outcomes, expected = stack.advance(), sound.advance()
    assert np.isnan(outcomes[1].losses["reconstruction"])
    for slot in (0, 2):
        assert close_to(outcomes[slot], expected[slot])
    stack.take_out(1)
    with pytest.raises(ValueError, match="slot 1 is empty"):
        stack.save(1)
    assert sorted(stack.advance()) == [0, 2]


@pytest.mark.parametrize("width", [3, 4])
def test_a_diverging_student_fails_alone_in_bf16(width: int) -> None:
    # On CPUs with AVX512-BF16 an odd width makes a real kernel spread NaN.
    data, compute = training_data(length=64), Compute("cpu", "bf16")
    stack = student_stack(3, data, compute, width=width)
    for slot in range(3):
        stack.put_in(slot, student(width=width), seed=slot)
    break_generator(stack, 1, width=width)
    outcomes = stack.advance()
    assert [finite(outcomes[slot]) for slot in range(3)] == [True, False, True]


def test_broken_running_statistics_are_seen_in_the_scores() -> None:
    stack = student_stack()
    stack.put_in(0, student(), seed=0)
    state = stack.save(0)
    # Read in evaluation mode only, so that training does not notice.
    state["generator"]["decoder.main.1.running_mean"].fill_(torch.nan)
    stack.take_out(0)
    stack.put_in(0, student(), seed=0, state=state)
    outcome = stack.advance()[0]
    assert np.isfinite([*outcome.losses.values()]).all()
    assert np.isnan(outcome.scores).all()


def test_a_discriminator_that_has_won_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_weights(limit: float) -> State:
        monkeypatch.setattr(engine, "COLLAPSED", limit)
        stack = student_stack(2)
        stack.put_in(0, student(), seed=0)
        stack.put_in(1, student(), seed=1)
        stack.advance()
        return stack.save(0)

    kept, redrawn, again = first_weights(5e-6), first_weights(100.0), first_weights(100.0)
    assert identical(redrawn, again)
    assert not torch.equal(kept["rng"], redrawn["rng"])
    # The last mini-batch of the epoch left fresh parameters: biases are zero again.
    fresh, trained = redrawn["discriminator"], kept["discriminator"]
    assert not fresh["features.3.bias"].any()
    assert trained["features.3.bias"].any()
    assert fresh["features.3.running_mean"].any()
    assert redrawn["discriminator_adam"]["step"] == kept["discriminator_adam"]["step"] > 0


def test_only_the_collapsed_discriminator_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def after_an_epoch(limits: list[float]) -> list[State]:
        monkeypatch.setattr(engine, "COLLAPSED", torch.tensor(limits))
        stack = student_stack(2)
        for slot in (0, 1):
            stack.put_in(slot, student(), seed=slot)
        losses = [found.losses["discriminator"] for found in stack.advance().values()]
        assert min(losses) > 5e-6
        return [stack.save(slot) for slot in (0, 1)]

    kept, redrawn = after_an_epoch([0.0, 0.0]), after_an_epoch([0.0, 100.0])
    assert identical(redrawn[0], kept[0])
    weight = [states[1]["discriminator"]["features.0.weight"] for states in (kept, redrawn)]
    assert not torch.equal(*weight)


def test_a_discriminator_starts_anew_from_the_next_values_of_its_student(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "COLLAPSED", 100.0)
    stack, rng = student_stack(), torch.Generator().manual_seed(0)
    engine.new_parts(TINY, rng)
    stack.put_in(0, student(), seed=0)
    for _ in range(2):
        stack.advance()
        expected = initial_state(Discriminator, TINY, rng)
        state = stack.save(0)
        for name, value in state["discriminator"].items():
            if "running" not in name:
                assert torch.equal(value, expected[name])
        assert torch.equal(state["rng"], rng.get_state())


def test_without_alpha_no_distillation_is_computed() -> None:
    data = training_data()
    settings = student(alpha=0.0)
    stack = BeatGanStack(settings, 1, Task(data, CPU))
    stack.put_in(0, settings, seed=0)
    losses = stack.advance()[0].losses
    assert list(losses) == ["reconstruction", "feature_matching", "generator", "discriminator"]


def test_a_control_reports_the_same_terms_beside_distilled_neighbours() -> None:
    stack = student_stack(2)
    stack.put_in(0, student(alpha=0.0), seed=0)
    stack.put_in(1, student(alpha=0.5), seed=1)
    outcomes = stack.advance()
    assert "distillation" not in outcomes[0].losses
    assert outcomes[1].losses["distillation"] > 0


@pytest.mark.parametrize("target", ["published", "none"])
def test_inert_targets_train_as_the_control(target: str) -> None:
    control, _ = alone(0, 1, alpha=0.0)
    inert, _ = alone(0, 1, alpha=0.9, target=target)
    torch.testing.assert_close(inert["generator"], control["generator"], rtol=0, atol=0)


def test_targets_stay_with_their_samples_in_every_order() -> None:
    targets, n = some_targets(training_data()), 26
    score = torch.from_numpy(targets["score"])
    term = distillation_terms(["score"], targets, torch.tensor([1.0, 1.0]))["score"]
    assert term is not None
    # Each beat is the one whose reconstruction error is the teacher's score of that very beat.
    x = score.sqrt().reshape(n, 1, 1).expand(n, 1, 32)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    for rows in (torch.stack([order, order.flip(0)], 1), torch.stack([order, order], 1)):
        batch = Batch(rows, x[rows], torch.zeros(n, 2, 1, 32), torch.empty(0))
        assert term(batch).tolist() == pytest.approx([0, 0], abs=1e-5)
    wrong = Batch(rows.roll(1, 0), x[rows], torch.zeros(n, 2, 1, 32), torch.empty(0))
    assert min(term(wrong).tolist()) > 0.1


def test_targets_are_looked_up_where_the_stack_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    data = training_data()
    targets = {"reconstruction": data.train}
    seen = []

    def watch(fake: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        seen.append(taught)
        return (fake - taught).square().mean(dim=(0, 2, 3))

    monkeypatch.setattr("kdsearch.methods.beatgan.losses.reconstruction_distillation", watch)
    settings = student(target="reconstruction", alpha=1.0)
    stack = BeatGanStack(settings, 2, Task(data, CPU, {}, targets))
    stack.put_in(0, settings, seed=0)
    stack.put_in(1, settings, seed=1)
    losses = stack.advance()[0].losses
    # The teacher that reproduces every beat teaches what the data teach.
    assert losses["distillation"] == pytest.approx(losses["reconstruction"])
    assert not torch.equal(seen[0][:, 0], seen[0][:, 1])


def test_orders_change_with_epoch_and_seed_and_leave_no_beat_out() -> None:
    stack = student_stack(2)
    stack.put_in(0, student(), seed=0)
    stack.put_in(1, student(), seed=1)
    stack.advance()
    orders = []
    for _ in range(2):
        batches = stack._engine._orders(stack._students, stack.steps)
        assert batches.shape == (3, 8, 2)
        orders += [tuple(order) for order in batches.flatten(0, 1).T.tolist()]
        stack.advance()
    # 26 beats are three batches of 8.
    assert all(len(set(order)) == 24 and set(order) <= set(range(26)) for order in orders)
    assert len(set(orders)) == 4


def test_fewer_beats_than_a_mini_batch_are_one_mini_batch() -> None:
    stack = student_stack(data=training_data(5))
    stack.put_in(0, student(), seed=0)
    assert stack.advance()[0].epoch == 1
    assert stack.save(0)["generator_adam"]["step"] == 1


def test_two_leads_and_longer_beats() -> None:
    data = training_data(leads=2, length=64)
    for target in ("score", "reconstruction", "attention"):
        stack = student_stack(2, data, target=target)
        for slot in (0, 1):
            stack.put_in(slot, student(target=target), seed=slot)
        assert stack.advance()[1].losses["distillation"] > 0


def test_starting_from_the_teacher() -> None:
    data = training_data()
    teacher = trained_teacher(data)
    settings = student(init="teacher")
    targets = some_targets(data)
    stack = BeatGanStack(settings, 2, Task(data, CPU, teacher, targets))
    stack.put_in(0, settings, seed=0)
    torch.testing.assert_close(stack.weights(0)["generator"], teacher["generator"])
    torch.testing.assert_close(stack.save(0)["discriminator"], teacher["discriminator"])
    assert stack.save(0)["generator_adam"]["step"] == 0
    before = teacher["generator"]["encoder1.main.0.weight"].clone()
    assert stack.advance()[0].epoch == 1
    assert torch.equal(before, teacher["generator"]["encoder1.main.0.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 8}, "width is 4 in the teacher and 8 in the student"),
        ({"latent": 7}, "latent is 5 in the teacher and 7 in the student"),
    ],
)
def test_starting_from_a_teacher_of_another_size_is_refused(
    changes: dict[str, int], message: str
) -> None:
    data = training_data()
    teacher = trained_teacher(data)
    with pytest.raises(ValueError, match=message):
        BeatGanStack(student(init="teacher", **changes), 1, Task(data, CPU, teacher))


def test_a_student_can_start_from_an_earlier_students_weights() -> None:
    stack, data = student_stack(), training_data()
    stack.put_in(0, student(), seed=0)
    earlier = stack.weights(0)
    task = Task(data, CPU, earlier, some_targets(data))
    started = BeatGanStack(student(init="teacher"), 1, task)
    started.put_in(0, student(init="teacher"), seed=1)
    assert identical(started.weights(0), earlier)


def test_starting_from_weights_without_a_discriminator_is_refused() -> None:
    stack = student_stack()
    stack.put_in(0, student(), seed=0)
    without = {k: v for k, v in stack.weights(0).items() if k != "discriminator"}
    with pytest.raises(ValueError, match="weights have no discriminator"):
        BeatGanStack(student(init="teacher"), 1, Task(training_data(), CPU, without))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 8}, "width is 4 in this stack, not 8"),
        ({"batch_size": 4}, "batch_size is 8 in this stack, not 4"),
        ({"target": "attention"}, "target is score in this stack, not attention"),
        ({"beta1": 0.9}, "beta1 is 0.5 in this stack, not 0.9"),
    ],
)
def test_students_of_another_structure_are_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        student_stack().put_in(0, student(**changes), seed=0)


def test_slots_are_guarded() -> None:
    stack = student_stack(2)
    stack.put_in(0, student(), seed=0)
    for slot in (-1, 0, 2):
        with pytest.raises(ValueError, match=f"slot {slot} of 2 is occupied or does not exist"):
            stack.put_in(slot, student(), seed=0)
    with pytest.raises(ValueError, match="slot 1 is empty"):
        stack.take_out(1)
    assert student_stack().advance() == {}


def test_missing_and_mismatched_targets_are_refused() -> None:
    data, settings = training_data(), student()
    stack = BeatGanStack(settings, 1, Task(data, CPU))
    with pytest.raises(ValueError, match=r"no targets of kind 'score'; there are \[\]"):
        stack.put_in(0, settings, seed=0)
    with pytest.raises(ValueError, match="7 targets of kind 'score' for 26 training beats"):
        BeatGanStack(settings, 1, Task(data, CPU, {}, {"score": np.ones(7, "f4")}))


def test_states_of_another_architecture_or_incomplete_ones_are_refused() -> None:
    state, _ = alone(0, 1)
    with pytest.raises(ValueError, match=r"saved state is of Architecture\(width=4"):
        student_stack(width=8).put_in(0, student(width=8), seed=0, state=state)
    del state["rng"]
    with pytest.raises(ValueError, match="saved state has no rng"):
        student_stack().put_in(0, student(), seed=0, state=state)


def test_read_only_arrays_cause_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = student_stack()
    assert stack._x.data_ptr() != 0


def test_a_teacher_learns_from_nobody_and_hands_out_its_discriminator() -> None:
    settings = TeacherSettings.model_validate(SMALL)
    stack = BeatGanStack(settings, 1, Task(training_data(), CPU))
    stack.put_in(0, settings, seed=0)
    assert "distillation" not in stack.advance()[0].losses
    assert set(stack.weights(0)) == {
        "format",
        "method",
        "architecture",
        "generator",
        "discriminator",
    }
    pupils = student_stack()
    pupils.put_in(0, student(), seed=0)
    assert "discriminator" in pupils.weights(0)  # a student may teach the next one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_students_train_resume_and_come_back_to_the_cpu(precision: str) -> None:
    compute = Compute("cuda", precision)
    stack = student_stack(3, compute=compute)
    for slot, scalars in enumerate(DIFFERENT):
        stack.put_in(slot, student(**scalars), seed=slot)
    on_gpu = [stack.advance()[1] for _ in range(2)]
    _, on_cpu = alone(1, 2, **DIFFERENT[1])
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        assert gpu.losses == pytest.approx(cpu.losses, rel=0.1)
    state = through_a_file(stack.save(1))
    assert state["generator"]["encoder1.main.0.weight"].device.type == "cpu"
    later = student_stack(compute=compute)
    later.put_in(0, student(**DIFFERENT[1]), seed=1, state=state)
    expected, found = stack.advance()[1], later.advance()[0]
    assert found.losses == pytest.approx(expected.losses, rel=0.05)


def test_weights_of_terms_differ_within_a_stack() -> None:
    target = "score + 0.5*reconstruction"
    settings = [student(target=target, weight_reconstruction=w) for w in (0.0, 1.0, 4.0)]
    together = student_stack(3, target=target)
    for slot, one in enumerate(settings):
        together.put_in(slot, one, seed=slot)
    losses = {slot: trained.losses for slot, trained in together.advance().items()}
    for slot, one in enumerate(settings):
        alone = student_stack(1, target=target)
        alone.put_in(0, one, seed=slot)
        assert alone.advance()[0].losses == pytest.approx(losses[slot], rel=1e-3)
        parts = (losses[slot][f"distillation.{name}"] for name in ("score", "reconstruction"))
        score, reconstruction = parts
        weighted = score + 0.5 * one.weight_reconstruction * reconstruction
        assert losses[slot]["distillation"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        ("score", {"score": 1.0}),
        ("score + 0.3*reconstruction", {"score": 1.0, "reconstruction": 0.3}),
        ("1e-2*neighbours+2 * attention", {"neighbours": 0.01, "attention": 2.0}),
        (".5*score", {"score": 0.5}),
    ],
)
def test_a_target_may_have_weights(target: str, weights: dict[str, float]) -> None:
    settings = student(target=target)
    assert {name: settings.weight_of(name) for name in settings.targets} == weights
    twice = student(target=target, weight_score=2.0)
    assert twice.targets == settings.targets
    if "score" in weights:
        assert twice.weight_of("score") == 2 * weights["score"]


@pytest.mark.parametrize(
    "target",
    ["score+score", "0.3*score+score", "-1*score", "2score", "published+score", "*score"],
)
def test_a_wrong_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="input should be"):
        student(target=target)


@pytest.mark.parametrize("collapses", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_epoch_in_parts_ends_as_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, collapses: bool, precision: str
) -> None:
    step = engine.Engine._step
    orders = [np.random.default_rng([slot, 1]).permutation(26)[:8] for slot in (0, 1)]
    first = torch.from_numpy(np.stack(orders, axis=1))

    def collapse_at_the_first(self: engine.Engine) -> None:
        limits = torch.where((self.rows == first).all(0), 100.0, 0.0)
        monkeypatch.setattr(engine, "COLLAPSED", limits)
        step(self)

    if collapses:
        monkeypatch.setattr(engine.Engine, "_step", collapse_at_the_first)
    compute = Compute("cpu", precision)
    settings = [student(**scalars) for scalars in DIFFERENT[:2]]
    check_parts(lambda: student_stack(2, compute=compute), settings)
