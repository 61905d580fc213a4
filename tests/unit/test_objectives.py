"""Searches with costs as objectives and limits, on an analytic problem."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kdsearch.analysis.leaderboard import front
from kdsearch.config.dimensions import Dimension, Float, Integer, Value
from kdsearch.config.space_file import SearchSettings
from kdsearch.errors import RunError
from kdsearch.runs.study import Study, Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState

SPACE: dict[str, Dimension] = {"width": Integer(1, 100), "lr": Float(0.0, 1.0)}
COSTS = {"objectives": ("val_auc", "parameters")}


def cost_of(params: Mapping[str, Value]) -> dict[str, float]:
    return {"parameters": 10.0 * float(params["width"]), "multiply_adds": 1.0}


def opened(records: list[TrialRecord] | None = None, **settings: object) -> Study:
    given = SearchSettings.model_validate({"startup_trials": 5, **settings})
    return Study(SPACE, given, records or [], cost_of=cost_of)


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
