"""ASHA's decisions by hand, and that a resumed search decides as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler

from kdsearch.config.space_file import SchedulerSettings
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.tuning.rungs import Rungs


def rungs(grace: float = 1, factor: float = 3, epochs: int = 9) -> Rungs:
    return Rungs(SchedulerSettings(grace_period=grace, reduction_factor=factor), epochs)


def test_only_the_best_third_passes_a_rung():
    # The mark is the 2/3 quantile of those before, between two values by linear
    # interpolation: none; 0.6; 0.6 + 2/3 * 0.1; 0.66 + 1/3 * 0.04; 0.66 + 0 * 0.04.
    asha = rungs()
    assert not asha.lags(0, 1, 0.6)
    assert not asha.lags(1, 1, 0.7)
    assert asha.lags(2, 1, 0.66)
    assert asha.lags(3, 1, 0.61)
    assert not asha.lags(4, 1, 0.8)


def test_equal_trials_pass():
    asha = rungs()
    assert not any(asha.lags(number, 1, 0.7) for number in range(6))


def test_between_rungs_nobody_is_stopped():
    asha = rungs(grace=1, factor=3, epochs=9)
    for number, auc in enumerate((0.9, 0.9, 0.9)):
        for epoch in (1, 2, 3):
            assert not asha.lags(number, epoch, auc)
    assert not asha.lags(3, 1, 0.9)
    assert not asha.lags(3, 2, 0.1)
    assert asha.lags(3, 3, 0.1)


def test_nobody_is_stopped_within_the_grace_period():
    asha = rungs(grace=4)
    assert not asha.lags(0, 4, 0.9)
    assert not any(asha.lags(1, epoch, 0.1) for epoch in (1, 2, 3))
    assert asha.lags(1, 4, 0.1)


def test_the_reduction_factor_says_how_many_pass():
    values = np.random.default_rng(0).permutation(200) / 200
    for factor in (2, 4):
        asha = rungs(factor=factor)
        passed = sum(not asha.lags(n, 1, float(value)) for n, value in enumerate(values))
        assert passed == pytest.approx(200 / factor, rel=0.2)


def test_an_epoch_told_twice_is_decided_once():
    asha = rungs()
    assert not asha.lags(0, 1, 0.6)
    assert not asha.lags(1, 1, 0.9)
    assert not asha.lags(0, 1, 0.6), "it passed; what came later does not change that"


def test_rungs_may_be_within_the_first_epoch():
    asha = rungs(grace=0.25, factor=3, epochs=5)
    for number, auc in enumerate((0.9, 0.8)):
        assert asha.lags(number, 0.25, auc) == (number == 1)
    # The others are at 0.75 and 2.25 epochs, which is the third one.
    for epoch in (0.75, 1, 2, 3):
        assert not asha.lags(0, epoch, 0.9)
    assert not asha.lags(2, 0.25, 0.95)
    assert asha.lags(2, 0.75, 0.85)
    assert not asha.lags(3, 0.25, 0.95)
    assert not any(asha.lags(3, epoch, 0.9) for epoch in (0.75, 1, 2))
    assert asha.lags(3, 3, 0.8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"grace_period": 2.5}, []),
        ({"grace_period": 0.25}, [0.25, 0.75]),
        ({"grace_period": 0.25, "reduction_factor": 2}, [0.25, 0.5]),
        ({"grace_period": 0.25, "name": "none"}, []),
    ],
)
def test_the_rungs_within_the_first_epoch(settings: dict, expected: list[float]):
    assert SchedulerSettings(**settings).early_rungs() == expected


# Of a simulated trial: when it reports.
REPORTS = [0.25, 0.75, *range(1, 8)]
Endings = dict[int, tuple[float, bool]]


class Simulation:
    """A search over given curves, one trial after the other, whose driver may be killed."""

    def __init__(self, curves: Sequence[Sequence[float]], grace: float) -> None:
        self.curves = curves
        self.reports = REPORTS if grace < 1 else list(range(1, 10))
        self.grace = grace
        self.asha = self._new_rungs()
        self.seen: dict[int, dict[float, float]] = {}
        self.endings: Endings = {}

    def run(self, kill_every: int | None = None) -> Endings:
        """Number of each trial: its last epoch and whether it was stopped there."""
        reports = 0
        while len(self.endings) < len(self.curves):
            number = len(self.endings)
            seen = self.seen.setdefault(number, {})
            epoch = self.reports[len(seen)]
            seen[epoch] = self.curves[number][len(seen)]
            reports += 1
            if kill_every and reports % kill_every == 0:
                # The driver dies between the report and the decision.
                self._resume(number)
            else:
                self._decide(number, epoch)
        return self.endings

    def _new_rungs(self) -> Rungs:
        return rungs(self.grace, epochs=int(self.reports[-1]))

    def _decide(self, number: int, epoch: float) -> None:
        if epoch == self.reports[-1]:
            self.endings[number] = (epoch, False)
        elif self.asha.lags(number, epoch, self.seen[number][epoch]):
            self.endings[number] = (epoch, True)

    def _resume(self, unfinished: int) -> None:
        """A new driver: refilled rungs, and the unfinished trial tells its epochs again."""
        self.asha = self._new_rungs()
        self.asha.refill(
            TrialRecord(
                number, "completed" if number in self.endings else "running", {}, dict(curve)
            )
            for number, curve in self.seen.items()
        )
        for epoch in self.seen[unfinished]:
            self._decide(unfinished, epoch)


def curves(seed: int, trials: int = 24, epochs: int = 9) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    values = np.maximum.accumulate(rng.random((trials, epochs)) ** 0.3, axis=1)
    return [[float(value) for value in row] for row in values]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kill_every", [1, 2, 5, 7])
@pytest.mark.parametrize(("grace", "ends"), [(1, {1, 3, 9}), (0.25, {0.25, 0.75, 7})])
def test_refilled_rungs_decide_as_if_nothing_had_happened(
    seed: int, kill_every: int, grace: float, ends: set[float]
):
    expected = Simulation(curves(seed), grace).run()
    assert {stopped for _, stopped in expected.values()} == {True, False}
    assert {epoch for epoch, _ in expected.values()} >= ends
    assert Simulation(curves(seed), grace).run(kill_every) == expected


def test_unfilled_rungs_would_decide_otherwise():
    refilled, empty = rungs(), rungs()
    refilled.refill([TrialRecord(0, "completed", {}, {1: 0.9, 2: 0.9, 3: 0.9})])
    assert refilled.lags(1, 1, 0.5)
    assert not empty.lags(1, 1, 0.5)


@pytest.mark.parametrize("state", ["completed", "stopped", "failed"])
def test_every_finished_trial_counts_with_its_last_epoch(state: TrialState):
    asha = rungs()
    asha.refill([TrialRecord(0, state, {}, {1: 0.9})])
    assert asha.lags(1, 1, 0.5)


def test_the_last_epoch_of_an_unfinished_trial_is_still_to_be_decided():
    asha = rungs()
    asha.refill(
        [
            TrialRecord(0, "completed", {}, {1: 0.8, 2: 0.8, 3: 0.8}),
            TrialRecord(1, "running", {}, {1: 0.9, 2: 0.9, 3: 0.9}),
            TrialRecord(2, "running", {}, {1: 0.7}),
            TrialRecord(3, "running", {}),
        ]
    )
    assert not asha.lags(1, 1, 0.9)
    assert not asha.lags(1, 3, 0.9)
    assert asha.lags(2, 1, 0.7), "its driver had died before it could stop it"
    assert asha.lags(3, 1, 0.6)


def test_a_run_with_rungs_beyond_its_last_epoch_never_stops():
    asha = rungs(grace=2, factor=3, epochs=2)
    assert not asha.lags(0, 1, 0.9)
    assert not asha.lags(1, 1, 0.1)


@pytest.mark.parametrize("factor", [2.0, 3.0, 4.5])
def test_decisions_are_rays_own(factor: float) -> None:
    """The rungs keep their values in order; Ray sorts them anew for each decision."""
    settings = SchedulerSettings(grace_period=1, reduction_factor=factor)
    ours, rays = Rungs(settings, 27), Rungs(settings, 27)
    plain = ASHAScheduler(
        time_attr="epoch",
        metric="best_so_far",
        mode="max",
        max_t=27,
        grace_period=1,
        reduction_factor=factor,
        stop_last_trials=False,
    )
    rays._asha = {(): plain}
    rng = np.random.default_rng(0)
    stopped: set[int] = set()
    for epoch in range(1, 28):
        for trial in range(60):
            if trial not in stopped:
                value = float(rng.random())
                decision = ours.lags(trial, epoch, value)
                assert decision == rays.lags(trial, epoch, value)
                if decision:
                    stopped.add(trial)
    assert 20 < len(stopped) < 60


def test_trials_of_like_cost_are_compared():
    """A small student is not stopped because large ones are better."""
    asha = Rungs(SchedulerSettings(reduction_factor=3), 9, alike=["parameters"])
    for number in range(6):
        assert not asha.lags(number, 1, 0.9, {"parameters": 9000})
    assert not asha.lags(6, 1, 0.6, {"parameters": 2100})
    assert asha.lags(7, 1, 0.5, {"parameters": 4000}), "between the same powers of two"
    assert asha.lags(8, 1, 0.6, {"parameters": 8200})
