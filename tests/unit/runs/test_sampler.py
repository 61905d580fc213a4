"""Of a long search TPE looks at a part, and suggests in about the same time."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.config.dimensions import Choice, Dimension, Fixed, Float
from kdsearch.config.space_file import SearchSettings
from kdsearch.runs import sampler
from kdsearch.runs.study import Study

SPACE = {"x": FloatDistribution(-10, 10), "y": FloatDistribution(-10, 10)}


def study_of(count: int, running: int = 0) -> optuna.Study:
    """Random trials whose value is best near (3, -4), and some that run at the start."""
    study = optuna.create_study(direction="maximize")
    for number in range(running + count):
        x, y = (10 * math.sin(n * (number + 1)) for n in (1.3, 2.7))
        value = -math.hypot(x - 3, y + 4)
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING if number < running else TrialState.COMPLETE,
                value=None if number < running else value,
                params={"x": x, "y": y},
                distributions=SPACE,
                intermediate_values={} if number < running else {1: value},
            )
        )
    return study


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "LEARNS_FROM", 60)


def test_the_window_keeps_the_best_the_newest_and_what_runs(small_window: None) -> None:
    trials = study_of(200, running=3).get_trials()
    kept = sampler.window(trials)
    assert kept == [t for t in trials if t in kept], "in their order"
    assert len(kept) == 60 + 3
    assert {t.number for t in kept} >= {0, 1, 2} | set(range(158, 203))
    older = sorted((t for t in trials[3:158]), key=lambda t: t.value or 0, reverse=True)
    assert {t.number for t in older[:15]} <= {t.number for t in kept}


def test_short_searches_are_seen_whole(small_window: None) -> None:
    trials = study_of(60).get_trials()
    assert sampler.window(trials) == trials


def suggest(study: optuna.Study, number: int) -> FrozenTrial:
    study.sampler = sampler.new_sampler(SearchSettings(startup_trials=8), number)
    return study.ask(dict(SPACE))._get_latest_trial()


def test_a_window_changes_nothing_while_it_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = suggest(study_of(40, running=2), 42).params
    monkeypatch.setattr(sampler, "LEARNS_FROM", 41)
    monkeypatch.setattr(sampler, "window", list)
    assert suggest(study_of(40, running=2), 42).params == plain


def test_it_finds_the_best_region_through_the_window(small_window: None) -> None:
    study = study_of(300)
    found = [suggest(study, 300 + n).params for n in range(20)]
    near = [math.hypot(p["x"] - 3, p["y"] + 4) for p in found]
    # A uniform suggestion lies 9 away on average.
    assert sum(near) / len(near) < 5


@pytest.mark.parametrize(
    ("dimension", "trials", "expected"),
    [
        (Float(0, 1), 24, "gp"),
        (Choice((8, 16)), 250, "gp"),
        (Choice(("random", "teacher")), 24, "tpe"),
        (Choice((True, False)), 24, "tpe"),
        (Float(0, 1), 251, "tpe"),
    ],
)
def test_auto_picks_by_space_and_budget(dimension: Dimension, trials: int, expected: str):
    settings = SearchSettings(sampler="auto", num_samples=trials)
    space = {"lr": Float(0, 1), "x": dimension, "fixed": Fixed("word")}
    assert sampler.picked_sampler(settings, space).sampler == expected
    assert sampler.picked_sampler(settings.changed(sampler="qmc"), space).sampler == "qmc"
    assert Study(space, settings, []).sampler == expected


def test_a_gaussian_process_learns_from_stopped_trials() -> None:
    study = optuna.create_study(direction="maximize")
    for trial in study_of(30).get_trials():
        trial.state = TrialState.PRUNED
        study.add_trial(trial)
    settings = SearchSettings(sampler="gp", startup_trials=8)
    study.sampler = sampler.new_sampler(settings, 30)
    found = study.ask(dict(SPACE)).params
    assert math.hypot(found["x"] - 3, found["y"] + 4) < 3
