"""CMA-ES that is restored from the trials: it searches, and a resume changes nothing."""

from __future__ import annotations

import statistics

import pytest

from kdsearch.config.dimensions import Choice, Dimension, Float, Integer
from kdsearch.config.space_file import SearchSettings
from kdsearch.runs.study import Study, Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState

SPACE: dict[str, Dimension] = {
    "lr": Float(1e-5, 1e-1, log=True),
    "alpha": Float(0.0, 4.0, step=0.25),
    "width": Integer(8, 64, log=True),
    "depth": Integer(1, 9, step=2),
    "target": Choice(("score", "attention")),
}


def opened(
    records: list[TrialRecord], space: dict[str, Dimension] = SPACE, **more: object
) -> Study:
    settings = {"sampler": "cmaes", "startup_trials": 4, **more}
    return Study(space, SearchSettings.model_validate(settings), records)


def finish(study: Study, asked: Suggestion, order: int, state: TrialState) -> TrialRecord:
    curve = {1: float(asked.params["width"]) / (1 + float(asked.params["alpha"]))}
    study.report(asked.number, 1, curve[1])
    study.finish(asked.number, state)
    record = TrialRecord(asked.number, state, asked.params, curve, order=order)
    return (
        record
        if state != "failed"
        else TrialRecord(asked.number, state, asked.params, {}, order=order)
    )


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_a_resumed_search_suggests_what_an_uninterrupted_one_does(at_a_time: int):
    """Trials finish in another order than they begin, and some are stopped or fail."""
    study, records = opened([]), list[TrialRecord]()
    running: list[Suggestion] = []
    states: list[TrialState] = ["completed", "stopped", "completed", "failed"]
    for number in range(36):
        asked = study.ask()
        left = [TrialRecord(one.number, "running", one.params) for one in running]
        known = sorted([*records, *left], key=lambda record: record.number)
        assert opened(known).ask() == asked
        running.append(asked)
        if len(running) == at_a_time:
            ended = running.pop(2 * number % at_a_time)
            records.append(finish(study, ended, len(records), states[number % 4]))


def test_every_suggestion_is_in_the_space():
    study = opened([])
    for number in range(30):
        asked = study.ask()
        for key, value in asked.params.items():
            assert SPACE[key].canonical(value) == value  # type: ignore[union-attr]
        finish(study, asked, number, "completed")


def test_it_finds_more_than_random_trials():
    space: dict[str, Dimension] = {key: Float(0.0, 1.0) for key in "abcd"}

    def best(sampler: str, seed: int) -> float:
        study = opened([], space, sampler=sampler, seed=seed, startup_trials=8)
        values = []
        for _ in range(80):
            asked = study.ask()
            numbers = [float(asked.params[key]) for key in "abcd"]
            values.append(-sum((x - 0.3) ** 2 for x in numbers))
            study.report(asked.number, 1, values[-1])
            study.finish(asked.number, "completed")
        return max(values)

    found = {
        s: statistics.median(best(s, seed) for seed in range(5)) for s in ("cmaes", "random")
    }
    assert found["cmaes"] > found["random"] / 4, found


@pytest.mark.parametrize("space", [{"lr": SPACE["lr"]}, {"target": SPACE["target"]}])
def test_one_number_or_choices_alone_are_searched_too(space: dict[str, Dimension]):
    study = opened([], space, repeats=True)
    for _ in range(15):
        asked = study.ask()
        study.report(asked.number, 1, 0.5)
        study.finish(asked.number, "completed")
        assert asked.params.keys() == space.keys()
