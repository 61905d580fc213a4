"""Students of one stack to their last epochs, each from its own checkpoint."""

from __future__ import annotations

from watched import EPOCHS, Watched, trial

from kdsearch.errors import TrialDiverged
from kdsearch.tuning.workers.training import Trainer, train_to_the_end
from kdsearch.tuning.workers.trial import TrialInputs, student_stack, training_of


def test_all_are_trained_though_they_begin_at_different_epochs(
    inputs: TrialInputs,
    method: Watched,
) -> None:
    ahead = training_of(trial(0), inputs)
    stack = student_stack(ahead.settings, 1, inputs)
    ahead.enter(stack, 0)
    assert Trainer(1, behind=False).advance(stack, [ahead]) == {}

    trainings = [training_of(trial(number), inputs) for number in range(3)]
    assert [len(training.history) for training in trainings] == [1, 0, 0]
    method.crews.clear()
    stack = student_stack(trainings[0].settings, 3, inputs)
    assert train_to_the_end(stack, trainings) == [None] * 3
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
    errors = train_to_the_end(stack, trainings)
    assert isinstance(errors[0], TrialDiverged)
    assert errors[1] is None
    assert trainings[1].done
