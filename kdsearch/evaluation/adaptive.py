"""Adaptive confirmation: train with more seeds only where they can change the verdict.

The results are looked at several times, first with `FIRST_LOOK` seeds. After each look the
candidates that are worse than the leader are dropped, and a comparison of the leader ends when
its interval excludes 0, or when the seeds that are left would hardly change that.

Intervals stay valid although one looks repeatedly: they are wider than those of a single look,
so that all looks together miss the truth in 5 % of cases at most. Each look spends the same
part of that error (alpha spending), the nominal level of Pocock (Biometrika 64(2), 1977),
which holds for Student's t as well (Jennison and Turnbull, Group Sequential Methods, 2000,
sections 2.4 and 4.4). So the intervals are repeated confidence intervals (Jennison and
Turnbull, Journal of the Royal Statistical Society B 51(3), 1989): any rule may say when to
stop. The level is that of looks that are evenly spaced; these are closer together, and the
patients are the same in all of them, so that the intervals are a little too wide.
``benchmarks/adaptive.py`` simulates how often they contain the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from kdsearch.metrics.ranking import Metric
from kdsearch.metrics.statistics import (
    NOT_DISTINGUISHABLE,
    WORSE,
    Area,
    Comparison,
    compare_areas,
    judge,
    paired_by_seed,
)

FIRST_LOOK = 3
ERROR = 0.05
# A comparison ends when the seeds that are left decide it with less than this probability.
HOPELESS = 0.1
# Of the numerical integration.
POINTS = 301


@dataclass(frozen=True)
class SeedResult:
    """The figures of one network on both sets of beats.

    Attributes:
        test: Area under the ROC curve of the test beats, by patient.
        validation: Likewise of the validation beats; None where it was not measured.
        best_epoch: None for scores that do not depend on a seed.
    """

    val_auc: float
    test: Area
    val_ap: float = math.nan
    test_auc: float = math.nan
    test_ap: float = math.nan
    best_epoch: float | None = None
    validation: Area | None = None

    def value(self, metric: Metric) -> float:
        """What the search maximises."""
        return self.val_auc if metric == "val_auc" else self.val_ap

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of all patients together."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("test", "validation")
        }


# The result of a network with the seed of this position, or why its training failed, or None
# while it is not trained.
Read = Callable[[str, int], SeedResult | str | None]


@dataclass(frozen=True)
class Plan:
    """How far a confirmation is.

    Attributes:
        seeds: How many seeds each network is to be trained with, by name.
        leader: The candidate with the best mean on validation; None if none was trained.
        reasons: Why networks get no more seeds, by name.
        ended: Why no network does, as a sentence; empty while some are to be trained.
    """

    seeds: Mapping[str, int]
    leader: str | None
    reasons: Mapping[str, str]
    ended: str = ""


def looks(most: int) -> list[int]:
    """Numbers of seeds at which the results are looked at, each half as many more."""
    found = [min(FIRST_LOOK, most)]
    while found[-1] < most:
        found.append(min(found[-1] + max(1, found[-1] // 2), most))
    return found


@cache
def error_of_look(most: int) -> float:
    """The chance of an error that each look may use, so that all together use `ERROR`."""
    low, high = ERROR / len(looks(most)), ERROR
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _of_all(middle, len(looks(most))) > ERROR else (middle, high)
        )
    return low


def _of_all(error: float, count: int) -> float:
    """Probability that any of some evenly spaced looks has an error.

    The sum of standard normal numbers is followed from look to look, as far as no look had an
    error (Armitage, McPherson and Rowe, Journal of the Royal Statistical Society A 132(2),
    1969).
    """
    limit = float(ndtri(1 - error / 2))
    before, density = np.zeros(1), np.ones(1)
    for look in range(1, count + 1):
        sums = np.linspace(-limit, limit, POINTS) * math.sqrt(look)
        steps = np.exp(-0.5 * (sums[:, None] - before) ** 2) / math.sqrt(2 * math.pi)
        weights = np.full(POINTS, sums[1] - sums[0])
        weights[[0, -1]] /= 2
        before, density = sums, (steps @ density) * weights
    return 1 - float(density.sum())


def plan(roles: Mapping[str, str], most: int, read: Read, metric: Metric = "val_auc") -> Plan:
    """Return what to train next, given what is trained; the same results give the same plan.

    Args:
        roles: ``candidate``, ``control`` or ``teacher`` by name, the search's best first.
        most: The largest number of seeds of a network.
        read: Called for planned networks only.
        metric: By which candidates are compared with each other, on validation.
    """
    return _Confirmation(roles, most, read, metric).plan()


@dataclass
class _Confirmation:
    roles: Mapping[str, str]
    most: int
    read: Read
    metric: Metric
    seeds: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    ended: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a pair of networks is compared no further."""

    def plan(self) -> Plan:
        self.seeds = dict.fromkeys(self.roles, 0)
        playing = [name for name, role in self.roles.items() if role == "candidate"]
        leader: str | None = playing[0]
        for look in looks(self.most):
            self._train([*playing, *self._open(leader)], look)
            if self._untrained():
                return self._so_far(leader)
            leader = self._best(playing)
            playing = [name for name in playing if self._stays(name, leader, look)]
            # The control of a new leader has fewer seeds.
            self._train(self._open(leader), look)
            if self._untrained():
                return self._so_far(leader)
            for other in self._open(leader):
                assert leader is not None
                if why := self._settled(leader, other, look):
                    self.ended[leader, other] = why
            if not self._open(leader):
                return self._so_far(leader, self._sentence(leader, look))
        return self._so_far(leader, f"The budget of {self.most} seeds is used up.")

    def _so_far(self, leader: str | None, ended: str = "") -> Plan:
        reasons = dict(self.reasons)
        if ended and leader:
            reasons |= {
                name: f"not needed, because {leader.replace('-', ' ')} leads"
                for name, count in self.seeds.items()
                if count == 0
            }
        return Plan(self.seeds, leader, reasons, ended)

    def _sentence(self, leader: str | None, look: int) -> str:
        if leader is None:
            return "Every candidate failed."
        why = [self.ended.get((leader, other), "") for other in self._others(leader)]
        hopeless = any(one == "hopeless" for one in why)
        rest = "more would hardly change the verdict" if hopeless else "the verdict is decided"
        return f"At most {look} of {self.most} seeds were needed: {rest}."

    def _train(self, names: list[str], look: int) -> None:
        for name in names:
            self.seeds[name] = max(self.seeds[name], look)

    def _untrained(self) -> bool:
        return any(
            self.read(name, position) is None
            for name, count in self.seeds.items()
            for position in range(count)
        )

    def _others(self, leader: str) -> list[str]:
        names = (f"control-of-{leader}", "teacher")
        return [name for name in names if name in self.roles]

    def _open(self, leader: str | None) -> list[str]:
        if leader is None:
            return []
        return [name for name in self._others(leader) if (leader, name) not in self.ended]

    def _results(self, name: str) -> dict[int, SeedResult]:
        """By position of the seed, without those that failed."""
        read = ((position, self.read(name, position)) for position in range(self.seeds[name]))
        return {position: found for position, found in read if isinstance(found, SeedResult)}

    def _best(self, playing: list[str]) -> str | None:
        means = {
            name: float(np.mean([result.value(self.metric) for result in found.values()]))
            for name in playing
            if (found := self._results(name))
        }
        return max(means, key=lambda name: means[name], default=None)

    def _stays(self, name: str, leader: str | None, look: int) -> bool:
        """Whether another seed may still make this candidate the chosen one."""
        if name == leader:
            return True
        mine = self._results(name)
        if leader is None or not mine:
            self.reasons[name] = str(self.read(name, 0))
            return False
        best = self._results(leader)
        shared = [position for position in mine if position in best]
        if not shared:
            return True
        difference = paired_by_seed(
            [mine[position].value(self.metric) for position in shared],
            [best[position].value(self.metric) for position in shared],
            error=error_of_look(self.most),
        )
        if judge(difference) != WORSE:
            return True
        self.reasons[name] = (
            f"dropped after {look} seeds, because {leader.replace('-', ' ')} is better"
        )
        return False

    def _settled(self, leader: str, other: str, look: int) -> str:
        first, second = self._results(leader), self._results(other)
        shared = [position for position in first if position in second]
        if not shared:
            return "hopeless"
        comparison = compare_areas(
            [first[position].test for position in shared],
            [second[position].test for position in shared],
            error=error_of_look(self.most),
        )
        if judge(comparison.difference) != NOT_DISTINGUISHABLE:
            return "decided"
        chance = chance_to_decide(comparison, len(shared), self.most)
        return "hopeless" if look < self.most and chance < HOPELESS else ""


def chance_to_decide(comparison: Comparison, seeds: int, most: int) -> float:
    """Probability that the interval of the last look will exclude 0.

    Predictive power (Spiegelhalter, Freedman and Blackburn, Controlled Clinical Trials 7(1),
    1986): the mean of all seeds, given those so far, is normal around the present one; the
    patients' part of the variance stays.

    Args:
        comparison: Of the seeds so far.
        seeds: How many these are.
        most: How many the last look has.
    """
    if not comparison.difference.known:
        return 0.0
    of_one = comparison.of_seeds * seeds
    error = error_of_look(most)
    reach = float(stdtrit(most - 1, 1 - error / 2))
    reach *= math.sqrt(of_one / most + comparison.of_patients)
    moves = math.sqrt(of_one * max(1 / seeds - 1 / most, 0.0))
    distance = abs(comparison.difference.estimate) - reach
    if moves == 0:
        return float(distance > 0)
    return float(ndtr(distance / moves))
