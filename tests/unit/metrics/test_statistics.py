"""Intervals and tests on cases with known answers: by hand, by other means, by simulation."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student_t

from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import (
    Interval,
    compare,
    judge,
    mean_and_sd,
    paired_by_seed,
    sentence,
)

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks import coverage

# By hand: two abnormal beats and three normal ones, with a tie in the second score.
ABNORMAL = np.array([True, True, False, False, False])
FIRST = np.array([3.0, 5, 1, 2, 4])
SECOND = np.array([4.0, 2, 1, 2, 3])


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def auc(scores: np.ndarray, abnormal: np.ndarray) -> float:
    return rank(scores, abnormal).roc_auc()


# --- Seeds and patients ---------------------------------------------------------------------


def by_leaving_out(drawn: coverage.Draw) -> tuple[float, float, float, float]:
    """Estimate, ends and p-value from areas that are measured again without each patient."""
    every = np.ones(len(drawn.abnormal), dtype=bool)
    kept = [every, *(drawn.patients != patient for patient in np.unique(drawn.patients))]
    areas = np.array(
        [
            [
                auc(a[rows], drawn.abnormal[rows]) - auc(b[rows], drawn.abnormal[rows])
                for rows in kept
            ]
            for a, b in zip(drawn.first, drawn.second, strict=True)
        ]
    )
    seeds, patients = len(areas), areas.shape[1] - 1
    pseudo = patients * areas[:, :1] - (patients - 1) * areas[:, 1:]
    parts = [
        (pseudo.mean(axis=1).var(ddof=1) / seeds, seeds - 1),
        (pseudo.mean(axis=0).var(ddof=1) / patients, patients - 1),
    ]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    estimate, error = areas[:, 0].mean(), math.sqrt(variance)
    reach = student_t.ppf(0.975, freedom) * error
    p_value = 2 * student_t.sf(abs(estimate) / error, freedom)
    return estimate, estimate - reach, estimate + reach, p_value


@pytest.mark.parametrize("digits", [6, 0], ids=["few ties", "many ties"])
def test_the_interval_is_that_of_measuring_again_without_each_patient(digits: int):
    drawn = coverage.draw(coverage.SCENARIOS[0], 3, np.random.default_rng(0))
    drawn = coverage.Draw(
        drawn.first.round(digits), drawn.second.round(digits), drawn.abnormal, drawn.patients
    )
    found = compare(drawn.first, drawn.second, drawn.abnormal, drawn.patients)
    expected = by_leaving_out(drawn)
    ends = found.difference.estimate, found.difference.low, found.difference.high
    assert (*ends, found.p_value) == pytest.approx(expected)


def test_without_patients_every_beat_is_left_out_by_itself():
    rng = np.random.default_rng(1)
    abnormal = np.arange(40) < 15
    first, second = rng.normal(size=(2, 3, 40)) + abnormal
    alone = compare(first, second, abnormal)
    numbered = compare(first, second, abnormal, np.arange(40).astype(str))
    assert alone.p_value == pytest.approx(numbered.p_value)
    assert alone.difference.known


# True differences of the first three scenarios, from 4,000 draws.
TRUTHS = (0.048, 0.052, 0.0)


@pytest.mark.parametrize(
    ("scenario", "truth"),
    list(zip(coverage.SCENARIOS, TRUTHS, strict=False)),
    ids=[scenario.name for scenario in coverage.SCENARIOS[: len(TRUTHS)]],
)
def test_the_interval_contains_the_truth_19_times_in_20(
    scenario: coverage.Scenario, truth: float
):
    """The small form of ``benchmarks/coverage.py``, which found 93 to 98 in 100."""
    rng = np.random.default_rng(2)
    drawn = [coverage.draw(scenario, 3, rng) for _ in range(40)]
    covered = [
        holds(compare(d.first, d.second, d.abnormal, d.patients).difference, truth)
        for d in drawn
    ]
    assert np.mean(covered) >= 0.88


def test_seeds_alone_and_beats_alone_promise_too_much_where_patients_differ():
    scenario = coverage.SCENARIOS[1]
    rng = np.random.default_rng(3)
    with_patients, beats, seeds = coverage.coverage(scenario, 3, TRUTHS[1], rng, 20)
    assert with_patients > 0.85
    assert beats < 0.6
    assert seeds < 0.6


def test_a_baseline_has_the_variance_of_the_patients():
    """The same scores for every seed: the seeds of the other method are not all there is."""
    drawn = coverage.draw(coverage.SCENARIOS[0], 3, np.random.default_rng(4))
    baseline = np.broadcast_to(drawn.second[0], drawn.first.shape)
    found = compare(drawn.first, baseline, drawn.abnormal, drawn.patients).difference
    areas = [auc(row, drawn.abnormal) for row in drawn.first]
    seeds_alone = paired_by_seed(areas, [auc(drawn.second[0], drawn.abnormal)] * 3)
    assert found.estimate == pytest.approx(seeds_alone.estimate)
    assert found.high - found.low > 0.02


def test_the_p_value_is_that_of_the_interval():
    rng = np.random.default_rng(5)
    drawn = [coverage.draw(coverage.SCENARIOS[2], 4, rng) for _ in range(20)]
    found = [compare(d.first, d.second, d.abnormal, d.patients) for d in drawn]
    distinguished = [judge(one.difference) != "not distinguishable" for one in found]
    assert distinguished == [one.p_value < 0.05 for one in found]
    wide = [compare(d.first, d.second, d.abnormal, d.patients, error=0.5) for d in drawn]
    assert 0 < sum(judge(one.difference) != "not distinguishable" for one in wide) < 20
    assert [judge(one.difference) != "not distinguishable" for one in wide] == [
        one.p_value < 0.5 for one in found
    ]


@pytest.mark.parametrize("second", [FIRST, np.exp(FIRST)], ids=["same", "same order"])
def test_equal_orders_are_exactly_no_difference(second: np.ndarray):
    found = compare([FIRST] * 3, [second] * 3, ABNORMAL)
    assert found.difference == Interval(0.0, 0.0, 0.0)
    assert found.p_value == 1


def test_all_ties_against_perfect_separation():
    abnormal = np.arange(8) < 4
    found = compare([abnormal.astype(float)] * 2, [np.zeros(8)] * 2, abnormal)
    assert found.difference == Interval(0.5, 0.5, 0.5)
    assert found.p_value == 0


def test_areas_never_differ_by_more_than_one():
    abnormal = np.arange(8) < 4
    first = np.array([abnormal + 0.0, np.linspace(0, 1, 8)])
    found = compare(first, -first, abnormal).difference
    assert (found.low, found.high) == (-1, 1)


@pytest.mark.parametrize(
    ("seeds", "patients"),
    [(1, None), (3, ["a"] * 5), (3, ["a", "a", "b", "b", "c"])],
    ids=["one seed", "one patient", "a patient with all abnormal beats"],
)
def test_too_little_for_an_interval(seeds: int, patients: list[str] | None):
    records = None if patients is None else np.array(patients)
    found = compare([FIRST] * seeds, [SECOND] * seeds, ABNORMAL, records)
    assert found.difference.estimate == pytest.approx(1 / 12)
    assert not found.difference.known
    assert math.isnan(found.p_value)
    assert judge(found.difference) == "not distinguishable"


# --- Seeds ----------------------------------------------------------------------------------


def test_paired_by_seed_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, t(2 degrees of freedom, 97.5 %) = 4.302653.
    found = paired_by_seed([2, 4, 6], [1, 2, 3])
    assert found.estimate == 2
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3))
    assert 2 - found.low == pytest.approx(4.302653 / math.sqrt(3))
    assert judge(found) == "not distinguishable"
    assert judge(paired_by_seed([2, 4, 6], [1, 2, 3], error=0.2)) == "better"


@pytest.mark.parametrize("truth", [0.0, 0.02])
def test_paired_by_seed_covers_at_its_nominal_rate(truth: float):
    rng = np.random.default_rng(11)

    def once() -> Interval:
        of_the_seed = rng.normal(0.9, 0.03, size=4)
        return paired_by_seed(
            of_the_seed + truth + rng.normal(0, 0.01, 4), of_the_seed + rng.normal(0, 0.01, 4)
        )

    covered = np.mean([holds(once(), truth) for _ in range(2000)])
    assert 0.935 <= covered <= 0.965


def test_one_seed_has_no_interval_and_says_so():
    found = paired_by_seed([0.92], [0.90])
    assert found.estimate == pytest.approx(0.02)
    assert not found.known
    assert str(found) == "+0.020 (no interval: too few to calculate one)"


def test_equal_figures_are_exactly_no_difference():
    assert paired_by_seed([0.9, 0.8], [0.9, 0.8]) == Interval(0.0, 0.0, 0.0)


def test_mean_and_sd():
    assert mean_and_sd([1, 2, 3, 4]) == pytest.approx((2.5, math.sqrt(5 / 3)))
    mean, sd = mean_and_sd([0.9])
    assert mean == 0.9
    assert math.isnan(sd)


# --- Words ----------------------------------------------------------------------------------


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, low, high)


@pytest.mark.parametrize(
    ("low", "high", "judgement"),
    [
        (0.01, 0.02, "better"),
        (-0.02, -0.01, "worse"),
        (-0.01, 0.02, "not distinguishable"),
        (0.0, 0.02, "not distinguishable"),
        (-0.02, 0.0, "not distinguishable"),
        (math.nan, math.nan, "not distinguishable"),
    ],
)
def test_judge(low: float, high: float, judgement: str):
    assert judge(interval((low + high) / 2, low, high)) == judgement


SENTENCES = {
    "better": (
        (interval(0.0123, 0.0041, 0.0205), {"seeds": 5, "beats": 27111, "patients": 22}),
        "The student is better than the teacher: its AUC is 0.012 higher (95 % confidence "
        "interval 0.004 to 0.021 for other seeds and other patients; from 5 seeds and 22 "
        "patients with 27,111 beats).",
    ),
    "worse, patients not known": (
        (interval(-0.012, -0.02, -0.004), {"seeds": 3, "beats": 900}),
        "The student is worse than the teacher: its AUC is 0.012 lower (95 % confidence "
        "interval 0.004 to 0.020 for other seeds and other beats; the patients are not known; "
        "from 3 seeds and 900 beats).",
    ),
    "not distinguishable": (
        (interval(0.004, -0.003, 0.011), {"seeds": 2, "beats": 1, "patients": 3}),
        "The student and the teacher are not distinguishable: the AUC of the student was "
        "measured 0.004 higher, but may really be anything from 0.003 lower to 0.011 higher "
        "(95 % confidence interval for other seeds and other patients; from 2 seeds and 3 "
        "patients with 1 beat).",
    ),
    "the same": (
        (interval(0, 0, 0), {"seeds": 2, "beats": 5}),
        "The student and the teacher are not distinguishable: their AUC is the same "
        "(2 seeds and 5 beats).",
    ),
    "digits where the interval is narrow or ends near 0": (
        (interval(0.00500, 0.00004, 0.00996), {"seeds": 9, "beats": 7, "patients": 2}),
        "The student is better than the teacher: its AUC is 0.00500 higher (95 % confidence "
        "interval 0.00004 to 0.00996 for other seeds and other patients; from 9 seeds and 2 "
        "patients with 7 beats).",
    ),
    "too few seeds": (
        (paired_by_seed([0.92], [0.90]), {"seeds": 1, "beats": 8}),
        "The student and the teacher are not distinguishable: the AUC of the student is 0.020 "
        "higher, but there are too few trainings with other seeds to tell this from chance "
        "(1 seed and 8 beats).",
    ),
    "too few patients": (
        (interval(-0.1, math.nan, math.nan), {"seeds": 3, "beats": 5, "patients": 1}),
        "The student and the teacher are not distinguishable: the AUC of the student is 0.100 "
        "lower, but there are too few patients with beats of both kinds to tell this from "
        "chance (3 seeds and 1 patient with 5 beats).",
    ),
}


@pytest.mark.parametrize(("case", "text"), SENTENCES.values(), ids=SENTENCES.keys())
def test_sentence(case, text: str):
    found, evidence = case
    assert sentence("the student", "the teacher", found, **evidence) == text


def test_an_interval_in_figures():
    assert str(interval(0.004, -0.003, 0.011)) == "+0.004 (95 % interval -0.003 to +0.011)"
    assert str(interval(-1e-9, -0.003, 0)) == "+0.000 (95 % interval -0.003 to +0.000)"


# --- What is refused ------------------------------------------------------------------------


def with_nan(scores: np.ndarray) -> np.ndarray:
    return np.where(scores == 3, np.nan, scores)


@pytest.mark.parametrize(
    ("first", "second", "abnormal", "options", "message"),
    [
        ([FIRST], [SECOND] * 2, ABNORMAL, {}, r"of shapes \(1, 5\) and \(2, 5\): expected \(s"),
        (
            FIRST,
            SECOND,
            ABNORMAL,
            {},
            r"of shapes \(5,\) and \(5,\): expected \(seeds, beats\)",
        ),
        ([FIRST], [SECOND], ABNORMAL[:4], {}, r"scores of shape \(5,\) for \(4,\) labels"),
        ([FIRST], [with_nan(SECOND)], ABNORMAL, {}, "1 of 5 scores are not finite"),
        ([FIRST], [SECOND], ABNORMAL & False, {}, "5 normal and 0 abnormal"),
        (
            [FIRST],
            [SECOND],
            ABNORMAL,
            {"patients": np.array(["a", "b"])},
            r"patients of shape \(2,\) for 5 beats",
        ),
    ],
)
def test_scores_that_cannot_be_compared(first, second, abnormal, options, message: str):
    with pytest.raises(ValueError, match=message):
        compare(first, second, abnormal, **options)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1, 2, 3], "2 seeds against 3: pairs need the same seeds"),
        ([], [], r"one figure per seed is needed, but the shape is \(0,\)"),
        ([[1, 2]], [[1, 2]], r"but the shape is \(1, 2\)"),
        ([1, math.nan], [1, 2], "not all figures are finite numbers"),
    ],
)
def test_seeds_that_cannot_be_paired(a, b, message: str):
    with pytest.raises(ValueError, match=message):
        paired_by_seed(a, b)


def test_no_figures_have_no_mean():
    with pytest.raises(ValueError, match="one figure per seed"):
        mean_and_sd([])
