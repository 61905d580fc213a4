"""Students of one stack to their last epochs, each from its own checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from search_cases import tiny_dataset
from watched import EPOCHS, Watched, trial

from kdsearch.config.space_file import SchedulerSettings
from kdsearch.errors import TrialDiverged
from kdsearch.methods.protocol import EpochReport, TrainedEpoch
from kdsearch.metrics.ranking import rank
from kdsearch.tuning.workers.training import (
    SPARE,
    Trainer,
    Training,
    judge,
    mini_batches,
    train_to_the_end,
)
from kdsearch.tuning.workers.trial import TrialInputs, student_stack, training_of

VALIDATION = tiny_dataset().training.validation
SCORES = np.arange(len(VALIDATION.x), dtype=np.float32)


def test_scores_are_ranked():
    trained = TrainedEpoch(3, {"loss": 0.5}, 2.0, SCORES + 100 * VALIDATION.abnormal)
    expected = EpochReport(3, {"loss": 0.5}, 2.0, val_auc=1.0, val_ap=1.0)
    assert judge(trained, VALIDATION) == expected


@pytest.mark.parametrize(
    ("losses", "scores", "message"),
    [
        ({"fine": 1.0, "loss": np.inf}, SCORES, "loss became inf in epoch 3"),
        ({"loss": 0.5}, SCORES * np.nan, "validation score became nan in epoch 3"),
    ],
)
def test_numbers_that_are_not_finite_are_a_divergence(
    losses: dict, scores: np.ndarray, message: str
):
    with pytest.raises(TrialDiverged, match=message):
        judge(TrainedEpoch(3, losses, 2.0, scores), VALIDATION)


def test_all_are_trained_though_they_begin_at_different_epochs(
    inputs: TrialInputs,
    method: Watched,
) -> None:
    ahead = training_of(trial(0), inputs)
    stack = student_stack(ahead.settings, 1, inputs)
    ahead.enter(stack, 0)
    assert Trainer(inputs.task.data.validation, 1, behind=False).advance(stack, [ahead]) == {}

    trainings = [training_of(trial(number), inputs) for number in range(3)]
    assert [len(training.history) for training in trainings] == [1, 0, 0]
    method.crews.clear()
    stack = student_stack(trainings[0].settings, 3, inputs)
    assert train_to_the_end(stack, trainings, VALIDATION) == [None] * 3
    assert all(training.done for training in trainings)
    assert method.crews == [3, 3, 2]
    again = training_of(trial(1), inputs)
    assert again.done
    assert [report.epoch for report in again.history] == list(range(1, EPOCHS + 1))


def test_who_diverges_ends_and_the_others_go_on(inputs: TrialInputs) -> None:
    wild = trial(0)
    wild["params"] = {**wild["params"], "w_adv": 1e38}
    trainings = [training_of(wild, inputs), training_of(trial(1), inputs)]
    stack = student_stack(trainings[0].settings, 2, inputs)
    errors = train_to_the_end(stack, trainings, VALIDATION)
    assert isinstance(errors[0], TrialDiverged)
    assert errors[1] is None
    assert trainings[1].done


def scores_of(auc: float) -> np.ndarray:
    """Scores of the validation beats whose AUC is nearest to the given one."""
    abnormal = VALIDATION.abnormal
    below = np.zeros(len(abnormal), dtype=np.float32)
    normal = np.flatnonzero(~abnormal)
    below[normal[round(auc * len(normal)) :]] = 2
    return below + abnormal.astype(np.float32)


class Scripted:
    """A stack of one student whose scores are given; its state is the number of its epoch."""

    slots = steps = 1

    def __init__(self, *val_aucs: float) -> None:
        self._val_aucs = val_aucs
        self._epoch = 0

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        pass

    def take_out(self, slot: int) -> None:
        pass

    def advance(self, steps: int | None = None) -> dict[int, TrainedEpoch]:
        self._epoch += 1
        return {
            0: TrainedEpoch(self._epoch, {}, 0.1, scores_of(self._val_aucs[self._epoch - 1]))
        }

    def save(self, slot: int) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def weights(self, slot: int) -> dict[str, Any]:
        return {"epoch": self._epoch}


def best_epoch(training: Training) -> int | None:
    """Whose weights are on disk."""
    if not training.folder.best_file.exists():
        return None
    return int(training.folder.best_weights()["epoch"])


@pytest.mark.parametrize(
    ("better", "on_disk"),
    [(SPARE, [1, 2, 2]), (SPARE + 1, [None, None, 2])],
)
def test_weights_that_may_be_kept_are_on_disk_before_the_report(
    inputs: TrialInputs, better: int, on_disk: list[int | None]
) -> None:
    """Others follow with the checkpoint; those of an outdated epoch never stay."""
    training = training_of(trial(0), inputs)
    trainer = Trainer(VALIDATION, 1, behind=True)
    trainer._best = {str(number): 0.9 for number in range(better)}
    stack = Scripted(0.5, 0.6, 0.4)
    training.enter(stack, 0)
    found = []
    for _ in on_disk:
        assert trainer.advance(stack, [training]) == {}
        found.append(best_epoch(training))
    assert found == on_disk
    checkpoint = training.folder.checkpoint()
    assert checkpoint is not None
    assert checkpoint.state == {"epoch": 2}


def reports_in_checkpoint(training: Training) -> int:
    checkpoint = training.folder.checkpoint()
    return 0 if checkpoint is None else len(checkpoint.history)


def test_a_checkpoint_is_written_when_the_last_one_is_old(inputs: TrialInputs) -> None:
    training = training_of(trial(0), inputs)
    stack = student_stack(training.settings, 1, inputs)
    training.enter(stack, 0)
    trainer = Trainer(VALIDATION, 1, behind=True, interval_s=1000)
    assert trainer.advance(stack, [training]) == {}
    assert trainer.advance(stack, [training]) == {}
    assert len(training.folder.history()) == 2, "each report has its line"
    assert reports_in_checkpoint(training) == 0
    training.checkpoint_at -= 1000
    assert trainer.advance(stack, [training]) == {}
    assert reports_in_checkpoint(training) == 2, "of the report before this part"
    assert trainer.checkpoint([training]) == {}
    assert reports_in_checkpoint(training) == 3, "the end of a search does not wait"


def test_the_interval_does_not_keep_a_report_from_being_saved(early: TrialInputs) -> None:
    """A student that waits in the middle of a report has none to save."""
    first, second = (training_of(trial(number), early) for number in (0, 1))
    stack = student_stack(first.settings, 2, early)
    trainer = Trainer(VALIDATION, 2, behind=True, interval_s=1000)
    first.enter(stack, 0)
    for _ in range(3):
        assert trainer.advance(stack, [first]) == {}
    assert reports_in_checkpoint(first) == 0
    second.enter(stack, 1)
    assert trainer.advance(stack, [first, second]) == {}
    assert [training.history[-1].epoch for training in (first, second)] == [1, 0.3]
    assert trainer.checkpoint([first, second]) == {}
    assert [reports_in_checkpoint(training) for training in (first, second)] == [3, 1]


@pytest.mark.parametrize("behind", [False, True])
def test_without_an_interval_each_report_has_a_checkpoint(
    inputs: TrialInputs, behind: bool
) -> None:
    training = training_of(trial(0), inputs)
    stack = student_stack(training.settings, 1, inputs)
    training.enter(stack, 0)
    trainer = Trainer(VALIDATION, 1, behind=behind)
    for report in (1, 2, 3):
        assert trainer.advance(stack, [training]) == {}
        assert reports_in_checkpoint(training) == report - behind


def test_an_old_checkpoint_of_a_report_that_is_not_the_best_has_no_weights(
    inputs: TrialInputs,
) -> None:
    """The best ones are gone; those of another report are not taken for them."""
    training = training_of(trial(0), inputs)
    trainer = Trainer(VALIDATION, 1, behind=True, interval_s=1000)
    trainer._best = {str(number): 0.9 for number in range(SPARE + 1)}
    stack = Scripted(0.5, 0.6, 0.4, 0.3)
    training.enter(stack, 0)
    for _ in range(3):
        assert trainer.advance(stack, [training]) == {}
    training.checkpoint_at -= 1000
    training.epochs = 4
    assert trainer.advance(stack, [training]) == {}
    assert reports_in_checkpoint(training) == 3
    assert best_epoch(training) is None


def test_weights_of_a_report_that_is_yet_to_come_again_do_not_stay(
    inputs: TrialInputs,
) -> None:
    """A trial may be stopped sooner than before it was killed."""
    training = training_of(trial(0), inputs)
    trainer = Trainer(VALIDATION, 1, behind=True, interval_s=1000)
    values = (0.5, 0.4, 0.7)
    stack = Scripted(*values)
    training.enter(stack, 0)
    assert trainer.advance(stack, [training]) == {}
    training.checkpoint_at -= 1000
    for _ in values[1:]:
        assert trainer.advance(stack, [training]) == {}
    assert best_epoch(training) == 3
    assert reports_in_checkpoint(training) == 1
    # Killed: its second try starts after the first report.
    again = training_of(trial(0), inputs)
    assert best_epoch(again) is None
    stack = Scripted(*values)
    stack.advance()
    again.enter(stack, 0)
    trainer = Trainer(VALIDATION, 1, behind=True, interval_s=1000)
    assert trainer.advance(stack, [again]) == {}
    assert [report.val_auc for report in again.folder.history()] == pytest.approx(
        [0.5, 0.4], abs=0.1
    )
    assert best_epoch(again) is None
    assert trainer.advance(stack, [again]) == {}
    assert best_epoch(again) == 3


def test_a_kill_between_old_checkpoints_changes_no_report(inputs: TrialInputs) -> None:
    expected = to_the_end(training_of(trial(0), inputs), inputs)
    training_of(trial(0), inputs).folder.clear()
    for reports in (1, 2, 3):
        training = training_of(trial(0), inputs)
        assert len(training.history) == 0, "no checkpoint is old enough"
        stack = student_stack(training.settings, 1, inputs)
        training.enter(stack, 0)
        trainer = Trainer(VALIDATION, 1, behind=True, interval_s=1000)
        for _ in range(reports):
            assert trainer.advance(stack, [training]) == {}
    assert [replace(r, seconds=0.0) for r in training.folder.history()] == expected


# Rungs within the first epoch, which has three mini-batches.


@pytest.fixture
def early(inputs: TrialInputs) -> TrialInputs:
    """Inputs of trials with rungs at 0.3 and 0.6 epochs: after one and two mini-batches."""
    scheduler = SchedulerSettings(grace_period=0.3, reduction_factor=2)
    return replace(inputs, config=replace(inputs.config, scheduler=scheduler))


def to_the_end(training: Training, inputs: TrialInputs) -> list[EpochReport]:
    stack = student_stack(training.settings, 1, inputs)
    training.enter(stack, 0)
    trainer = Trainer(VALIDATION, 1, behind=False)
    while not training.done:
        assert trainer.advance(stack, [training]) == {}
    return [replace(report, seconds=0.0) for report in training.history]


def test_early_rungs_change_no_epoch(inputs: TrialInputs, early: TrialInputs) -> None:
    plain = to_the_end(training_of(trial(0), inputs), inputs)
    cut = to_the_end(training_of(trial(1), early), early)
    assert [report.epoch for report in cut] == [0.3, 0.6, 1, 2, 3]
    assert cut[2:] != plain, "another seed"
    # Its folder has the record of the same seed without early rungs.
    training_of(trial(0), inputs).folder.clear()
    cut = to_the_end(training_of(trial(0), early), early)
    assert [report.val_auc for report in cut[2:]] == [report.val_auc for report in plain]
    assert cut[3:] == plain[1:]


@pytest.fixture
def often(inputs: TrialInputs) -> TrialInputs:
    """Inputs of trials that are validated after each third of an epoch: one mini-batch."""
    search = inputs.config.search.model_copy(update={"validations_per_epoch": 3})
    return replace(inputs, config=replace(inputs.config, search=search))


def test_validations_within_epochs_change_no_epoch(
    inputs: TrialInputs, often: TrialInputs
) -> None:
    plain = to_the_end(training_of(trial(0), inputs), inputs)
    training_of(trial(0), inputs).folder.clear()
    history = to_the_end(training_of(trial(0), often), often)
    thirds = [n / 3 for n in range(1, 10)]
    assert [report.epoch for report in history] == pytest.approx(thirds)
    assert [report.epoch for report in history if isinstance(report.epoch, int)] == [1, 2, 3]
    assert [r.val_auc for r in history[2::3]] == [report.val_auc for report in plain]


def test_a_trial_keeps_its_best_state_within_an_epoch(often: TrialInputs) -> None:
    """Its weights are those that had the best value, wherever in an epoch that was."""
    inside = False
    for number in range(4):
        training = training_of(trial(number), often)
        history = to_the_end(training, often)
        weights = training.folder.best_weights()
        method, task = often.config.method, often.task
        scores = method.score(weights, task.data.validation.x, task.compute)
        best = max(report.val_auc for report in history)
        assert rank(scores, task.data.validation.abnormal).roc_auc() == pytest.approx(best)
        inside |= not isinstance(training.best.epoch, int)
    assert inside, "no trial was best within an epoch"


@pytest.mark.parametrize("of_an_epoch", [1, 7, 66, 125, 975])
def test_mini_batches_of_parts_of_epochs(of_an_epoch: int) -> None:
    for parts in range(1, 30):
        within = [mini_batches(k / parts, of_an_epoch) for k in range(1, parts)]
        assert within == [-(-k * of_an_epoch // parts) for k in range(1, parts)]
        for epochs in (1, 5, 999):
            later = [mini_batches(epochs + k / parts, of_an_epoch) for k in range(1, parts)]
            assert later == [epochs * of_an_epoch + due for due in within]


@pytest.mark.parametrize("reports_of", ["early", "often"])
def test_a_trial_resumes_after_each_report(
    request: pytest.FixtureRequest, reports_of: str
) -> None:
    inputs: TrialInputs = request.getfixturevalue(reports_of)
    expected = to_the_end(training_of(trial(0), inputs), inputs)
    training_of(trial(0), inputs).folder.clear()
    for reports in range(len(expected)):
        training = training_of(trial(0), inputs)
        assert len(training.history) == reports
        stack = student_stack(training.settings, 1, inputs)
        training.enter(stack, 0)
        assert Trainer(VALIDATION, 1, behind=False).advance(stack, [training]) == {}
    assert to_the_end(training_of(trial(0), inputs), inputs) == expected


def test_a_new_student_does_not_change_one_in_the_middle_of_its_epoch(
    early: TrialInputs,
) -> None:
    """Both train up to the next report of either; a checkpoint is of a report."""
    expected = [to_the_end(training_of(trial(number), early), early) for number in (0, 1)]
    for number in (0, 1):
        training_of(trial(number), early).folder.clear()
    first, second = (training_of(trial(number), early) for number in (0, 1))
    stack = student_stack(first.settings, 2, early)
    trainer = Trainer(VALIDATION, 2, behind=True)
    first.enter(stack, 0)
    for _ in range(3):
        assert trainer.advance(stack, [first]) == {}
    second.enter(stack, 1)
    for new in (0.3, 0.6):
        assert trainer.advance(stack, [first, second]) == {}
        assert [t.history[-1].epoch for t in (first, second)] == [1, new]
        assert first.checkpoint_write() is None
        stored = training_of(trial(0), early)
        assert [report.epoch for report in stored.history] == [0.3, 0.6, 1]
    first.detach()
    first.enter(stack, 0)
    while not second.done:
        assert trainer.advance(stack, [t for t in (first, second) if not t.done]) == {}
        if first.done:
            first.leave()
    for training, alone in zip((first, second), expected, strict=True):
        assert [report.epoch for report in training.history] == [0.3, 0.6, 1, 2, 3]
        for found, other in zip(training.history, alone, strict=True):
            assert found.losses == pytest.approx(other.losses, rel=1e-3)


def test_rungs_within_one_mini_batch_are_one_report(inputs: TrialInputs) -> None:
    scheduler = SchedulerSettings(grace_period=0.01, reduction_factor=3)
    inputs = replace(inputs, config=replace(inputs.config, scheduler=scheduler))
    history = to_the_end(training_of(trial(0), inputs), inputs)
    assert scheduler.early_rungs() == [0.01, 0.03, 0.09, 0.27, 0.81]
    assert [report.epoch for report in history] == [0.01, 1, 2, 3]
