"""The study in memory: what it learns from records, and that interruptions change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from search_cases import SPACE

from kdsearch.config.dimensions import Choice, Float, Integer
from kdsearch.config.space_file import SearchSettings
from kdsearch.runs.learned import Learned
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
    early = replace(record, curve={0.25: 0.25, **curve})
    assert frozen_trial(early, SPACE).intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}
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


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "qmc"])
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
        assert again.take(number).params == asked.params
        records.append(train(again, asked, states[number % 3]))


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "qmc"])
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


# Points that are tried first, grids, and spaces of few points.


def small(**settings: object) -> Study:
    space = {"width": Choice((8, 16, 32)), "depth": Integer(1, 2)}
    return Study(space, SearchSettings(**{**vars(SETTINGS), **settings}), [])


def test_points_are_tried_first_and_completed_by_the_sampler():
    points = ({"temperature": 4.0, "target": "score"}, {"w_adv": 2.0})
    study = opened(points=points)
    for given in points:
        params = study.ask().params
        assert params.keys() == SPACE.keys()
        assert given.items() <= params.items()
    plain = opened()
    assert study.ask().params == [plain.ask().params for _ in range(3)][2]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_small_space_is_tried_point_by_point(sampler: str):
    study = small(sampler=sampler, startup_trials=1, seed=1)
    suggestions = [study.ask() for _ in range(6)]
    tried = {tuple(sorted(s.params.items())) for s in suggestions}
    assert len(tried) == 6
    assert sum(s.repeats for s in suggestions) > 0, "random suggestions repeat themselves"
    repeated = small(sampler=sampler, startup_trials=1, seed=1, repeats=True)
    suggestions = [repeated.ask() for _ in range(12)]
    assert {s.repeats for s in suggestions} == {0}
    assert len({tuple(sorted(s.params.items())) for s in suggestions}) < 12


def test_a_grid_is_tried_in_all_combinations():
    space = {
        "width": Choice((8, 16, 32), grid=True),
        "lr": Float(0.0, 1.0),
        "target": Choice(("score", "none"), grid=True),
    }
    study = Study(space, SETTINGS, [])
    asked = [study.ask().params for _ in range(12)]
    combinations = [(p["width"], p["target"]) for p in asked]
    every = [(w, t) for w in (8, 16, 32) for t in ("score", "none")]
    assert combinations == every * 2
    assert len({p["lr"] for p in asked}) == 12


def test_a_point_takes_the_place_of_its_combination():
    space = {"a": Choice((1, 2), grid=True), "b": Choice((1, 2), grid=True)}
    study = Study(space, SETTINGS.changed(points=({"a": 2, "b": 2},)), [])
    asked = [tuple(study.ask().params.values()) for _ in range(4)]
    assert asked[0] == (2, 2)
    assert sorted(asked) == [(1, 1), (1, 2), (2, 1), (2, 2)]


# Earlier runs.


def earlier(values: list[float], run: str = "a") -> Learned:
    """Trials of a run that was the better the higher w_adv was."""
    records = []
    for number, auc in enumerate(values):
        params = {**PARAMS, "w_adv": 5 * auc}
        records.append(TrialRecord(number, "completed", params, {3: auc}))
    return Learned(run, tuple(records))


def test_the_best_points_of_earlier_runs_are_tried_after_the_users_own():
    learned = earlier([0.5, 0.9, 0.7, 0.8])
    study = Study(SPACE, SETTINGS.changed(points=({"w_adv": 3.0},)), [], [learned])
    assert len(study) == 0
    asked = [study.ask() for _ in range(4)]
    assert [s.number for s in asked] == [0, 1, 2, 3]
    assert asked[0].params["w_adv"] == 3.0
    assert [s.params for s in asked[1:]] == [learned.trials[n].params for n in (1, 3, 2)]


def test_tpe_learns_from_earlier_runs_from_its_first_suggestion():
    values = [0.1 + n / 25 for n in range(20)]

    def fourth(seed: int, learned: list[Learned]) -> float:
        study = Study(SPACE, SETTINGS.changed(seed=seed, startup_trials=4), [], learned)
        return float([study.ask() for _ in range(4)][-1].params["w_adv"])

    informed = [fourth(seed, [earlier(values)]) for seed in range(8)]
    alone = [fourth(seed, []) for seed in range(8)]
    assert np.median(informed) > 3.5 > np.median(alone)


def test_suggestions_after_earlier_runs_do_not_depend_on_interruptions():
    learned = [earlier([0.5, 0.9, 0.7]), earlier([0.6, 0.4], run="b")]
    settings = SETTINGS.changed(startup_trials=2)
    uninterrupted, records = Study(SPACE, settings, [], learned), []
    for number in range(8):
        expected = uninterrupted.ask()
        train(uninterrupted, expected)
        again = Study(SPACE, settings, records, learned)
        assert again.unfinished() == []
        asked = again.ask()
        assert asked == expected
        assert asked.number == number
        records.append(train(again, asked))
