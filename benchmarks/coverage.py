"""How often the verdict's interval contains the true difference, by simulation.

    python benchmarks/coverage.py --repeats 1000

22 patients with as many normal and abnormal beats as the test patients of MIT-BIH have (a
twentieth of them), two methods, 3, 5 and 10 seeds. A beat's score is the sum of its class, of
its patient's effect on both methods and on this one, of what a seed does to all beats and to
one patient's, and of its own noise. A scenario says how large these are. The truth is the mean
difference over other patients and seeds. Three 95 % intervals: that of the verdict,
the same with every beat as a patient of its own, and Student's t over the seeds alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import Interval, compare, paired_by_seed

# Beats of the 22 records of DS2 (de Chazal et al., 2004), by record.
NORMAL = np.array(
    [
        *(2237, 2080, 2525, 2121, 1787, 1532, 1860, 1513, 1742, 2060, 2416),
        *(2746, 2638, 1997, 2080, 2029, 2055, 1686, 1564, 397, 2226, 2698),
    ]
)
ABNORMAL = np.array(
    [
        *(34, 2, 46, 1, 6, 1, 2, 3, 857, 75, 227),
        *(0, 610, 259, 72, 396, 421, 365, 3, 1383, 848, 53),
    ]
)
PART = 20
SEEDS = (3, 5, 10)


@dataclass(frozen=True)
class Scenario:
    """Standard deviations of what changes a score, beside a beat's own of 1.

    Attributes:
        quality: Of both methods: how far abnormal beats are above normal ones.
        patient: A patient's effect on one method's scores of each class.
        seed: A seed's effect on a method's quality.
        both: A seed's effect on one patient's scores.
    """

    name: str
    quality: tuple[float, float]
    patient: float
    seed: float
    both: float


SCENARIOS = (
    Scenario("patients and seeds alike", (1.5, 1.2), patient=0.6, seed=0.2, both=0.1),
    Scenario("patients differ most", (2.5, 2.0), patient=0.6, seed=0.0, both=0.0),
    Scenario("seeds differ most", (1.5, 1.5), patient=0.1, seed=0.4, both=0.0),
    Scenario("a seed differs by patient", (2.5, 2.2), patient=0.3, seed=0.05, both=0.2),
    Scenario("neither differs: beats alone", (1.5, 1.2), patient=0.0, seed=0.0, both=0.0),
)


@dataclass(frozen=True)
class Draw:
    """Scores of both methods, shape (seeds, n), and what is known of the beats."""

    first: np.ndarray
    second: np.ndarray
    abnormal: np.ndarray
    patients: np.ndarray


def draw(scenario: Scenario, seeds: int, rng: np.random.Generator) -> Draw:
    """One test set with new patients, scored by networks of new seeds."""
    numbers = np.arange(len(NORMAL))
    normal, abnormal = NORMAL // PART, ABNORMAL // PART
    patients = np.concatenate([np.repeat(numbers, normal), np.repeat(numbers, abnormal)])
    truth = np.arange(len(patients)) >= normal.sum()
    kind = truth.astype(int)
    shared = 0.7 * rng.normal(size=(len(numbers), 2))[patients, kind]
    shared = shared + 0.7 * rng.normal(size=len(patients))
    scores = []
    for quality in scenario.quality:
        own = scenario.patient * rng.normal(size=(len(numbers), 2))[patients, kind]
        rows = []
        for _ in range(seeds):
            better = quality + scenario.seed * rng.normal()
            both = scenario.both * rng.normal(size=(len(numbers), 2))[patients, kind]
            noise = 0.7 * rng.normal(size=len(patients))
            rows.append(shared + own + both + better * truth + noise)
        scores.append(np.array(rows))
    return Draw(scores[0], scores[1], truth, patients.astype(np.str_))


def true_difference(scenario: Scenario, rng: np.random.Generator, draws: int = 4000) -> float:
    """The mean difference over many draws of one seed each."""
    found = []
    for _ in range(draws):
        drawn = draw(scenario, 1, rng)
        areas = [rank(s[0], drawn.abnormal).roc_auc() for s in (drawn.first, drawn.second)]
        found.append(areas[0] - areas[1])
    return float(np.mean(found))


def intervals(drawn: Draw) -> Iterator[Interval]:
    """The three intervals that are judged."""
    yield compare(drawn.first, drawn.second, drawn.abnormal, drawn.patients).difference
    yield compare(drawn.first, drawn.second, drawn.abnormal).difference
    first, second = (
        [rank(row, drawn.abnormal).roc_auc() for row in scores]
        for scores in (drawn.first, drawn.second)
    )
    yield paired_by_seed(first, second)


def coverage(
    scenario: Scenario, seeds: int, truth: float, rng: np.random.Generator, repeats: int
) -> np.ndarray:
    """Part of the draws in which each interval contains the truth."""
    held = [
        [found.low <= truth <= found.high for found in intervals(draw(scenario, seeds, rng))]
        for _ in range(repeats)
    ]
    return np.asarray(np.mean(held, axis=0))


def main() -> None:
    """Print a row per scenario and number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    print("| scenario | truth | seeds | seeds and patients | seeds and beats | seeds alone |")
    print("|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        rng = np.random.default_rng(0)
        truth = true_difference(scenario, rng)
        for seeds in SEEDS:
            held = coverage(scenario, seeds, truth, rng, options.repeats)
            cells = " | ".join(f"{part:.3f}" for part in held)
            print(f"| {scenario.name} | {truth:+.3f} | {seeds} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
