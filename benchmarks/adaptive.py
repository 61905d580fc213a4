"""Adaptive confirmation against a fixed number of seeds, by simulation.

    python benchmarks/adaptive.py --repeats 2000

Each confirmation has two candidates, their controls and the teacher's recipe. A network's area
under the ROC curve for a patient is the sum of its own mean, of the patient's effect on it,
and of the seed's effects on all networks and on this one. Their sizes are those measured on
MIT-BIH (docs/results.md, experiments/results/confirmations.csv and comparisons.csv). The plans
of `kdsearch.evaluation.adaptive` say which networks are trained.

The fixed design trains all five networks with the same number of seeds. It has to choose that
number before the noise is known: the smallest one that decides at least as many comparisons of
the chosen candidate rightly, over all kinds of noise, and chooses the better candidate as
often.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from kdsearch.evaluation.adaptive import SeedResult, error_of_look, plan
from kdsearch.metrics.statistics import NOT_DISTINGUISHABLE, Area, compare_areas, judge

ROLES = {
    "teacher": "teacher",
    "trial-1": "candidate",
    "control-of-trial-1": "control",
    "trial-2": "candidate",
    "control-of-trial-2": "control",
}
MOST = 12


@dataclass(frozen=True)
class Noise:
    """What was measured; all figures are AUCs.

    Attributes:
        control: How much worse the controls are than the better candidate.
        teacher: How much worse the teacher's recipe is.
        rival: How much worse the other candidate is.
        own: Standard deviation of a seed's effect on one network: candidate, control, teacher.
        shared: Of its effect on all networks.
        patient: Of a patient's effect on the difference of two networks.
        patients: Of the test beats.
    """

    name: str
    control: float
    teacher: float
    rival: float
    own: tuple[float, float, float]
    shared: float
    patient: float
    patients: int

    def mean(self, network: str) -> float:
        """The true area of a network, less that of the better candidate."""
        role = ROLES[network]
        if role == "candidate":
            return 0.0 if network == "trial-1" else -self.rival
        return -self.control if role == "control" else -self.teacher


TAUGHT = Noise(
    "BeatGAN taught by neighbours, known patients",
    control=0.020,
    teacher=0.020,
    rival=0.007,
    own=(0.008, 0.009, 0.009),
    shared=0.007,
    patient=0.020,
    patients=44,
)
NO_EFFECT = "BeatGAN taught by its teacher: no effect"
NOISE = (
    TAUGHT,
    replace(TAUGHT, name=NO_EFFECT, control=0.0, teacher=0.0, rival=0.0),
    Noise(
        "memory, known patients",
        control=0.0119,
        teacher=0.0035,
        rival=0.0051,
        own=(0.0013, 0.0032, 0.0),
        shared=0.0005,
        patient=0.010,
        patients=44,
    ),
    Noise(
        "memory, new patients",
        control=0.195,
        teacher=-0.0044,
        rival=0.0037,
        own=(0.0023, 0.0197, 0.0),
        shared=0.001,
        patient=0.036,
        patients=22,
    ),
)


class Simulated:
    """One confirmation; results of a network with a seed are computed when they are read."""

    def __init__(self, noise: Noise, rng: np.random.Generator) -> None:
        self.noise = noise
        spread = noise.patient / np.sqrt(2)
        self._means = {
            name: noise.mean(name) + spread * rng.normal(size=noise.patients) for name in ROLES
        }
        order = ("candidate", "control", "teacher")
        own = {name: noise.own[order.index(role)] for name, role in ROLES.items()}
        self._seeds = {
            name: 0.9 + noise.shared * shared + own[name] * rng.normal(size=MOST)
            for shared in [rng.normal(size=MOST)]
            for name in ROLES
        }
        # Validation beats are of the same seeds, and of a mean of their own.
        self.read = cache(self._result)

    def _result(self, name: str, position: int) -> SeedResult:
        seed = float(self._seeds[name][position])
        values = self._means[name] + seed
        return SeedResult(self.noise.mean(name) + seed, Area(float(values.mean()), values))

    def areas(self, name: str, seeds: int) -> list[Area]:
        return [self.read(name, position).test for position in range(seeds)]


@dataclass
class Tally:
    """The figures of one confirmation."""

    trained: int
    chosen_right: bool
    decided: int
    wrong: int
    covered: list[bool]


def adaptive(drawn: Simulated) -> Tally:
    """The adaptive form, with the intervals that its verdict shows."""
    found = plan(ROLES, MOST, drawn.read)
    assert found.leader is not None
    return _tally(drawn, found.leader, found.seeds, sequential=True)


def fixed(drawn: Simulated, seeds: int) -> Tally:
    """The same number of seeds for all."""
    means = {
        name: np.mean([drawn.read(name, p).val_auc for p in range(seeds)])
        for name, role in ROLES.items()
        if role == "candidate"
    }
    leader = max(means, key=lambda name: means[name])
    return _tally(drawn, leader, dict.fromkeys(ROLES, seeds), sequential=False)


def _tally(
    drawn: Simulated, leader: str, seeds: Mapping[str, int], *, sequential: bool
) -> Tally:
    tally = Tally(sum(seeds.values()), drawn.noise.mean(leader) == 0, 0, 0, [])
    for name, other in _pairs(seeds):
        shared = min(seeds[name], seeds[other])
        interval = compare_areas(
            drawn.areas(name, shared),
            drawn.areas(other, shared),
            error=error_of_look(MOST) if sequential else None,
        ).difference
        truth = drawn.noise.mean(name) - drawn.noise.mean(other)
        tally.covered.append(interval.low <= truth <= interval.high)
        if name == leader and judge(interval) != NOT_DISTINGUISHABLE:
            right = (interval.low > 0) == (truth > 0) and truth != 0
            tally.decided += right
            tally.wrong += not right
    return tally


def _pairs(seeds: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for name in ("trial-1", "trial-2"):
        for other in (f"control-of-{name}", "teacher"):
            if seeds[name] and seeds[other]:
                yield name, other


@dataclass(frozen=True)
class Row:
    """Means over all confirmations of one kind."""

    trainings: float
    chosen: float
    decided: float
    wrong: float
    coverage: float

    @classmethod
    def of(cls, tallies: list[Tally]) -> Row:
        """Average the figures of some confirmations."""
        return cls(
            float(np.mean([t.trained for t in tallies])),
            float(np.mean([t.chosen_right for t in tallies])),
            float(np.mean([t.decided for t in tallies])),
            float(np.mean([t.wrong for t in tallies])),
            float(np.mean([covered for t in tallies for covered in t.covered])),
        )


def simulate(repeats: int) -> tuple[list[Row], list[Row], int]:
    """Each kind of noise by the adaptive form and by the fixed one, and the latter's seeds."""
    drawn = [
        [Simulated(noise, np.random.default_rng([7, n])) for n in range(repeats)]
        for noise in NOISE
    ]
    found = [Row.of([adaptive(one) for one in kind]) for kind in drawn]
    for seeds in range(2, MOST + 1):
        equal = [Row.of([fixed(one, seeds) for one in kind]) for kind in drawn]
        if all(mean(equal, what) >= mean(found, what) for what in ("decided", "chosen")):
            break
    return found, equal, seeds


def mean(rows: list[Row], what: str) -> float:
    """Over all kinds of noise."""
    return float(np.mean([getattr(row, what) for row in rows]))


def main() -> None:
    """Print a row per kind of noise and form, and the part of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    rows, equal, seeds = simulate(options.repeats)
    figures = ("coverage", "wrong", "decided", "chosen", "trainings")
    print(
        "| noise as of | form | coverage | wrongly decided | rightly decided, of 2 | "
        "right candidate | trainings |\n|---|---|---|---|---|---|---|"
    )
    for noise, *both in zip(NOISE, rows, equal, strict=True):
        for form, row in zip(("adaptive", f"{seeds} seeds"), both, strict=True):
            cells = " | ".join(f"{getattr(row, name):.3f}" for name in figures)
            print(f"| {noise.name} | {form} | {cells} |")
    part = mean(rows, "trainings") / mean(equal, "trainings")
    print(f"\nThe adaptive form needs {part:.0%} of the trainings of the fixed one.")


if __name__ == "__main__":
    main()
