"""The study in memory: what it learns from records, and that interruptions change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from search_cases import SPACE

from kdsearch.config.space_file import SearchSettings
from kdsearch.runs.study import Study, Suggestion, frozen_trial, sound
from kdsearch.runs.trial_folder import TrialRecord, TrialState

SETTINGS = SearchSettings(startup_trials=3, seed=5)
PARAMS = {"temperature": 2.0, "w_adv": 1.0, "epochs": 3, "target": "score"}


def opened(records: list[TrialRecord] | None = None, **settings: object) -> Study:
    return Study(SPACE, SearchSettings(**{**vars(SETTINGS), **settings}), records or [])


def train(study: Study, suggestion: Suggestion, state: TrialState = "completed") -> TrialRecord:
    """Train a trial whose curve its settings determine, and return its record."""
    curve = {e: 1 - 1 / (e + float(suggestion.params["temperature"])) for e in (1, 2, 3)}
    for epoch, best_so_far in curve.items():
        study.report(suggestion.number, epoch, best_so_far)
    study.finish(suggestion.number, state)
    return TrialRecord(suggestion.number, state, suggestion.params, curve)


def test_numbers_are_given_in_order():
    study = opened()
    assert [study.ask().number for _ in range(3)] == [0, 1, 2]
    assert len(study) == 3
    assert study.unfinished() == [0, 1, 2]
    study.report(1, 1, 0.5)
    study.finish(1, "stopped")
    assert study.unfinished() == [0, 2]


def test_unfinished_trials_keep_their_settings():
    running = TrialRecord(1, "running", PARAMS, {1: 0.5})
    study = opened([TrialRecord(0, "completed", PARAMS, {1: 0.5}), running])
    assert study.unfinished() == [1]
    assert study.take(1) == Suggestion(1, PARAMS)
    study.report(1, 1, 0.5)
    study.finish(1, "completed")
    assert study.ask().number == 2


def test_lost_settings_are_suggested_again():
    lost = TrialRecord(1, "running", {}, reason="trial.json is missing")
    records = [TrialRecord(0, "completed", PARAMS, {1: 0.5}), lost]
    records.append(TrialRecord(3, "completed", PARAMS, {1: 0.5}))
    study = opened(records)
    assert study.unfinished() == [1, 2], "a number without a record is unfinished"
    for number in (1, 2):
        assert study.take(number).params.keys() == SPACE.keys()
    assert study.ask().number == 4


@pytest.mark.parametrize(
    "params",
    [
        {**PARAMS, "w_adv": 50.0},
        {**PARAMS, "target": "other"},
        {**PARAMS, "temperature": "hot"},
        {key: value for key, value in PARAMS.items() if key != "w_adv"},
        {**PARAMS, "width": 3},
        {},
    ],
)
def test_a_record_that_contradicts_the_space_is_unfinished(params: dict):
    checked = sound(TrialRecord(4, "completed", params, {1: 0.5}), SPACE)
    assert (checked.number, checked.state, checked.params) == (4, "running", {})
    assert checked.reason.startswith("trial.json is damaged: ")
    assert "\n" not in checked.reason


def test_a_sound_record_is_left_as_it_is():
    record = TrialRecord(4, "completed", PARAMS, {1: 0.5})
    assert sound(record, SPACE) is record


def test_optuna_sees_states_values_and_times():
    curve = {1: 0.5, 2: 0.75}
    record = TrialRecord(0, "completed", PARAMS, curve, 3.5)
    record = replace(
        record, began="2026-11-27T10:00:00+00:00", ended="2026-11-27T10:01:00+00:00"
    )
    completed = frozen_trial(record, SPACE)
    assert completed.value == 0.75
    assert completed.intermediate_values == curve
    assert completed.user_attrs == {"seconds": 3.5}
    assert completed.duration is not None
    assert completed.duration.total_seconds() == 60
    stopped = frozen_trial(replace(record, state="stopped"), SPACE)
    failed = frozen_trial(replace(record, state="failed", reason="boom"), SPACE)
    running = frozen_trial(replace(record, state="running", ended=""), SPACE)
    assert [t.state.name for t in (completed, stopped, failed, running)] == [
        *("COMPLETE", "PRUNED", "FAIL", "RUNNING")
    ]
    assert [t.value for t in (stopped, failed, running)] == [0.75, None, None]
    assert failed.user_attrs["reason"] == "boom"


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_suggestions_do_not_depend_on_interruptions(sampler: str):
    settings = {"sampler": sampler, "startup_trials": 3, "seed": 11}
    states: list[TrialState] = ["completed", "stopped", "failed"]
    uninterrupted, records, expected = opened(**settings), [], []
    for number in range(9):
        expected.append(uninterrupted.ask())
        train(uninterrupted, expected[-1], states[number % 3])
    for number in range(9):
        # Killed while the trial runs, and once more after it.
        asked = opened(records, **settings).ask()
        assert asked == expected[number]
        again = opened([*records, TrialRecord(number, "running", asked.params)], **settings)
        assert again.take(number) == asked
        records.append(train(again, asked, states[number % 3]))


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_trials_that_run_at_the_same_time_differ(sampler: str):
    study = opened(sampler=sampler, startup_trials=2)
    asked = [study.ask() for _ in range(4)]
    for number, suggestion in enumerate(asked):
        study.report(suggestion.number, 1, 0.5 + number / 10)
        study.finish(suggestion.number, "completed")
    asked += [study.ask() for _ in range(4)]
    assert len({suggestion.params["temperature"] for suggestion in asked}) == 8
    assert {suggestion.params["target"] for suggestion in asked} == {"score", "attention"}


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_another_seed_suggests_otherwise(sampler: str):
    asked = [opened(sampler=sampler, seed=seed).ask().params for seed in (0, 1)]
    assert asked[0]["temperature"] != asked[1]["temperature"]
