"""Students of one stack to their last epochs, each from its own checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from search_cases import tiny_dataset
from watched import EPOCHS, Watched, trial

from kdsearch.errors import TrialDiverged
from kdsearch.methods.protocol import EpochReport, TrainedEpoch
from kdsearch.tuning.workers.training import (
    SPARE,
    Trainer,
    Training,
    judge,
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

    slots = 1

    def __init__(self, *val_aucs: float) -> None:
        self._val_aucs = val_aucs
        self._epoch = 0

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        pass

    def take_out(self, slot: int) -> None:
        pass

    def advance(self) -> dict[int, TrainedEpoch]:
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
