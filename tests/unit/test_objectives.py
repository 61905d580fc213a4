"""Searches with costs as objectives and limits, on an analytic problem."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kdsearch.analysis.leaderboard import front
from kdsearch.config.dimensions import Choice, Dimension, Float, Integer, Value, finite_points
from kdsearch.config.space_file import SearchSettings
from kdsearch.errors import RunError
from kdsearch.runs.learned import Learned
from kdsearch.runs.study import Study, Suggestion, trials_in_all
from kdsearch.runs.trial_folder import TrialRecord, TrialState

SPACE: dict[str, Dimension] = {"width": Integer(1, 100), "lr": Float(0.0, 1.0)}
COSTS = {"objectives": ("val_auc", "parameters")}


def cost_of(params: Mapping[str, Value]) -> dict[str, float]:
    return {"parameters": 10.0 * float(params["width"]), "multiply_adds": 1.0}


def opened(
    records: list[TrialRecord] | None = None,
    space: dict[str, Dimension] = SPACE,
    learned: tuple[Learned, ...] = (),
    **settings: object,
) -> Study:
    given = SearchSettings.model_validate({"startup_trials": 5, **settings})
    return Study(space, given, records or [], learned, cost_of)


def train(study: Study, asked: Suggestion, state: TrialState = "completed") -> TrialRecord:
    """The AUC grows with the width, and is best at lr = 0.3."""
    width, lr = float(asked.params["width"]), float(asked.params["lr"])
    auc = 0.5 + 0.4 * (width / 100) ** 0.3 - 0.3 * abs(lr - 0.3)
    study.report(asked.number, 1, auc)
    study.finish(asked.number, state)
    curve = {1: auc}
    more = {"costs": asked.costs, "refused": asked.refused, "order": asked.number}
    return TrialRecord(asked.number, state, asked.params, curve, **more)  # type: ignore[arg-type]


def search(trials: int, **settings: object) -> list[TrialRecord]:
    study = opened(**settings)
    return [train(study, study.ask()) for _ in range(trials)]


def test_no_trial_breaks_a_limit_and_what_was_refused_is_recorded():
    records = search(20, constraints={"parameters": {"max": 300}})
    assert all(record.costs["parameters"] <= 300 for record in records)
    refused = [params for record in records for params in record.refused]
    assert refused
    assert all(cost_of(params)["parameters"] > 300 for params in refused)


def test_the_sampler_learns_from_what_was_refused():
    def refused(sampler: str) -> int:
        limit = {"parameters": {"max": 150}}
        return sum(
            len(record.refused)
            for seed in range(3)
            for record in search(25, sampler=sampler, seed=seed, constraints=limit)
        )

    assert refused("tpe") < refused("random") / 2


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_suggestions_do_not_depend_on_interruptions(sampler: str):
    settings = {**COSTS, "sampler": sampler, "constraints": {"parameters": {"max": 400}}}
    study, records = opened(**settings), list[TrialRecord]()
    for number in range(20):
        resumed = opened(records, **settings).ask()
        asked = study.ask()
        assert asked == resumed
        records.append(train(study, asked, "stopped" if number % 3 else "completed"))


def test_a_gaussian_process_searches_the_front_and_a_resume_changes_nothing():
    settings = {**COSTS, "sampler": "gp", "startup_trials": 6, "seed": 1}
    study, records = opened(**settings), list[TrialRecord]()
    for number in range(9):
        asked = study.ask()
        if number in (6, 8):
            assert asked == opened(records, **settings).ask()
        records.append(train(study, asked, "stopped" if number % 3 else "completed"))


def test_a_search_of_the_front_covers_more_of_it_than_a_random_one():
    def area(**settings: object) -> float:
        """Below the fronts of three searches, from 1,000 parameters and an AUC of 0.4."""
        total = 0.0
        for seed in range(3):
            records = search(40, seed=seed, **settings)
            best = 0.4
            for number in reversed(front(records, ["parameters"])):
                record = records[number]
                total += (1000 - record.costs["parameters"]) * max(record.value - best, 0)
                best = max(best, record.value)
        return total

    assert area(**COSTS) > area(**COSTS, sampler="random")


def test_limits_that_nothing_keeps_are_named():
    study = opened(constraints={"parameters": {"max": 5}})
    with pytest.raises(RunError, match=r"at most 5 parameters, but the smallest of 200 .* has"):
        study.ask()


def test_a_point_of_the_user_that_breaks_a_limit_is_replaced():
    limit = {"parameters": {"max": 300}}
    asked = opened(constraints=limit, points=({"width": 90, "lr": 0.5},)).ask()
    assert asked.refused[0] == {"width": 90, "lr": 0.5}
    assert asked.costs["parameters"] <= 300


FINITE: dict[str, Dimension] = {"width": Choice((10, 20, 30, 40, 50)), "lr": Choice((0.1, 0.3))}


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_finite_space_ends_with_its_last_point_within_the_limits(sampler: str, resumed: bool):
    """Points that break a limit are not trained, and none is trained twice in their place."""
    settings = {"sampler": sampler, "constraints": {"parameters": {"max": 300}}}
    study, records = opened(space=FINITE, **settings), list[TrialRecord]()
    while not study.used_up:
        records.append(train(study, study.ask()))
        if resumed:
            study = opened(records, FINITE, **settings)
    points = [(record.params["width"], record.params["lr"]) for record in records]
    assert sorted(points) == [(w, lr) for w in (10, 20, 30) for lr in (0.1, 0.3)]
    # As a resume and `analyze.py` count them.
    assert trials_in_all(24, finite_points(FINITE), records) == 6
    assert trials_in_all(24, None, records) == 24


def test_a_finite_space_of_which_nearly_all_breaks_a_limit_is_searched():
    space: dict[str, Dimension] = {"width": Integer(1, 2000), "lr": Choice((0.3,))}
    study = opened(space=space, constraints={"parameters": {"max": 10}}, sampler="random")
    assert study.ask().params == {"width": 1, "lr": 0.3}
    assert study.used_up


def test_a_search_with_costs_learns_from_earlier_trials_within_its_limits():
    points = [{"width": 90, "lr": 0.3}, {"width": 35, "lr": 0.3}, {"width": 20, "lr": 0.4}]
    trials = (
        TrialRecord(n, "completed", point, {1: 0.7 - n / 10}, costs=cost_of(point))
        for n, point in enumerate(points)
    )
    learned = (Learned("earlier", tuple(trials)),)
    settings = {**COSTS, "constraints": {"parameters": {"max": 400}}}
    study, records = opened(learned=learned, **settings), list[TrialRecord]()
    for number in range(12):
        resumed = opened(records, learned=learned, **settings).ask()
        asked = study.ask()
        assert asked == resumed
        records.append(train(study, asked, "stopped" if number % 3 else "completed"))
    assert records[0].refused[0] == points[0]
    assert [record.params for record in records[1:3]] == points[1:]
    assert all(record.costs["parameters"] <= 400 for record in records)
    plain, found = (
        opened(records[:11], **settings),
        opened(records[:11], learned=learned, **settings),
    )
    assert plain.ask().params != found.ask().params
