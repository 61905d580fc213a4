"""The number of seeds of an adaptive confirmation, on networks made by hand and simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import adaptive as simulation
from benchmarks.adaptive import ROLES
from kdsearch.evaluation.adaptive import SeedResult, error_of_look, looks, plan
from kdsearch.metrics.statistics import Area


class Networks:
    """Areas by name: a mean, and how much seeds and patients differ."""

    def __init__(self, means: dict[str, float], seeds: float, patients: float = 0.001) -> None:
        self.means, self.seeds, self.patients = means, seeds, patients
        self.trained: set[tuple[str, int]] = set()
        self.fail: set[str] = set()

    def read(self, name: str, position: int) -> SeedResult | str | None:
        if (name, position) not in self.trained:
            return None
        if name in self.fail:
            return "generator is nan in epoch 1"
        number = list(ROLES).index(name)
        rng = np.random.default_rng([number, position])
        area = self.means[name] + self.seeds * rng.normal()
        patients = self.patients * np.random.default_rng(number).normal(size=22)
        return SeedResult(area, Area(area, area + patients))

    def train(self, most: int) -> tuple[dict[str, int], str | None, dict[str, str], str]:
        """Train what the plans say until they end."""
        for _ in range(100):
            found = plan(ROLES, most, self.read)
            left = {(n, p) for n, count in found.seeds.items() for p in range(count)}
            left -= self.trained
            assert bool(left) == (found.ended == ""), "it ends when nothing is left to train"
            if not left:
                return dict(found.seeds), found.leader, dict(found.reasons), found.ended
            self.trained |= left
        raise AssertionError("the plans do not end")


MEANS = {
    "teacher": 0.8,
    "trial-1": 0.9,
    "control-of-trial-1": 0.8,
    "trial-2": 0.9,
    "control-of-trial-2": 0.8,
}


def test_looks_are_few_and_end_with_the_most_seeds():
    assert looks(12) == [3, 4, 6, 9, 12]
    assert looks(3) == [3]
    assert looks(1000)[-3:] == [474, 711, 1000]


# Pocock 1977, table 1, for 1, 2, 3, 4 and 5 looks.
@pytest.mark.parametrize(
    ("most", "level"), [(3, 0.05), (4, 0.0294), (6, 0.0221), (9, 0.0182), (12, 0.0158)]
)
def test_the_level_of_a_look_is_pococks(most: int, level: float):
    assert error_of_look(most) == pytest.approx(level, abs=6e-5)


def test_clear_differences_take_the_fewest_seeds():
    counts, leader, reasons, ended = Networks(MEANS, seeds=0.001).train(12)
    assert leader in ("trial-1", "trial-2")
    assert counts.pop(f"control-of-{leader}") == 3
    other = "trial-2" if leader == "trial-1" else "trial-1"
    if leader == "trial-1":
        assert counts == {"teacher": 3, "trial-1": 3, "trial-2": 3, f"control-of-{other}": 0}
        assert reasons[f"control-of-{other}"] == "not needed, because trial 1 leads"
    assert ended == "At most 3 of 12 seeds were needed: the verdict is decided."


def test_a_new_leader_gets_its_control():
    networks = Networks({**MEANS, "trial-1": 0.85}, seeds=0.001)
    counts, leader, reasons, _ = networks.train(12)
    assert leader == "trial-2"
    assert counts["control-of-trial-2"] == 3
    assert reasons["trial-1"] == "dropped after 3 seeds, because trial 2 is better"


def test_only_what_is_undecided_gets_more_seeds():
    networks = Networks({**MEANS, "teacher": 0.89, "trial-2": 0.7}, seeds=0.006)
    counts, leader, _, _ = networks.train(12)
    assert leader == "trial-1"
    assert counts["trial-1"] == counts["teacher"] > 3
    assert counts["control-of-trial-1"] == counts["trial-2"] == 3


def test_seeds_that_cannot_decide_are_not_trained():
    """The patients differ far more than the networks: no seed changes that."""
    means = {**MEANS, "teacher": 0.8999, "control-of-trial-1": 0.8999, "trial-2": 0.8}
    counts, _, _, ended = Networks(means, seeds=0.0001, patients=0.1).train(12)
    assert max(counts.values()) == 3
    assert ended == "At most 3 of 12 seeds were needed: more would hardly change the verdict."


def test_the_budget_is_the_end():
    means = {**MEANS, "teacher": 0.88, "control-of-trial-1": 0.88, "trial-2": 0.7}
    counts, _, _, ended = Networks(means, seeds=0.008).train(4)
    assert max(counts.values()) == 4
    assert ended == "The budget of 4 seeds is used up."


def test_a_candidate_that_fails_is_dropped_with_its_reason():
    networks = Networks(MEANS, seeds=0.001)
    networks.fail = {"trial-1"}
    counts, leader, reasons, _ = networks.train(12)
    assert leader == "trial-2"
    assert counts["trial-1"] == 3
    assert reasons["trial-1"] == "generator is nan in epoch 1"


def test_nothing_leads_where_all_fail():
    networks = Networks(MEANS, seeds=0.001)
    networks.fail = set(ROLES)
    counts, leader, _, ended = networks.train(12)
    assert (leader, ended) == (None, "Every candidate failed.")
    assert max(counts.values()) == 3


def test_intervals_hold_and_seeds_are_saved():
    """The small form of ``benchmarks/adaptive.py``: 95 to 98 in 100, with 59 % of the seeds."""
    rows, equal, _ = simulation.simulate(repeats=60)
    for row in rows:
        error = math.sqrt(0.05 * 0.95 / 60)
        assert row.coverage > 0.95 - 2 * error
    part = simulation.mean(rows, "trainings") / simulation.mean(equal, "trainings")
    assert part < 0.7
