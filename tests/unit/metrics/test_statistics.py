"""Intervals and tests on cases with known answers: by hand, by other means, by simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import (
    Interval,
    bootstrap_difference,
    delong,
    judge,
    mean_and_sd,
    paired_by_seed,
    sentence,
)

# By hand: two abnormal beats and three normal ones, with a tie in the second score.
ABNORMAL = np.array([True, True, False, False, False])
FIRST = np.array([3.0, 5, 1, 2, 4])
SECOND = np.array([4.0, 2, 1, 2, 3])


def binormal(
    rng: np.random.Generator, kinds: int, means: tuple[float, float] = (1.2, 0.8)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two correlated normal scores, abnormal beats shifted by the means."""
    abnormal = np.arange(2 * kinds) < kinds
    common = rng.normal(size=2 * kinds)
    first, second = (
        (common + rng.normal(size=2 * kinds)) / math.sqrt(2) + mean * abnormal for mean in means
    )
    return first, second, abnormal


def true_auc(mean: float) -> float:
    return NormalDist().cdf(mean / math.sqrt(2))


def in_patients(
    rng: np.random.Generator, patients: int, beats_each: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of equal quality whose errors are a patient's rather than a beat's."""
    patient = np.repeat(np.arange(patients), beats_each)
    abnormal = np.tile(np.arange(beats_each) < beats_each // 2, patients)
    shape = (2, patients, 2)
    shift = 1.5 * rng.normal(size=shape)[:, patient, abnormal.astype(int)]
    first, second = shift + 0.3 * rng.normal(size=shift.shape) + abnormal
    return first, second, abnormal, np.array([f"p{number}" for number in patient])


def by_all_pairs(
    first: np.ndarray, second: np.ndarray, abnormal: np.ndarray
) -> tuple[float, float]:
    """DeLong's difference and its variance as written in 1988: every pair, full covariances."""
    wins = []
    for scores in (first, second):
        positives, negatives = scores[abnormal][:, None], scores[~abnormal][None]
        wins.append((positives > negatives) + 0.5 * (positives == negatives))
    v10 = np.array([win.mean(axis=1) for win in wins])
    v01 = np.array([win.mean(axis=0) for win in wins])
    s = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    contrast = np.array([1, -1])
    return float(contrast @ v10.mean(axis=1)), float(contrast @ s @ contrast)


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


# --- DeLong ---------------------------------------------------------------------------------


def test_delong_by_hand():
    # Parts of normals below 3 and 5 are 2/3 and 1, below 4 and 2 they are 1 and 1/2: the
    # differences -1/3 and 1/2 have variance 25/72. Parts of abnormal beats above the normals
    # differ by 0, 1/4 and 0: variance 1/48. 25/72/2 + 1/48/3 = 26/144.
    found = delong(FIRST, SECOND, ABNORMAL)
    assert (found.auc_a, found.auc_b) == pytest.approx((5 / 6, 3 / 4))
    assert found.difference.estimate == pytest.approx(1 / 12)
    reach = 1.959964 * math.sqrt(26) / 12
    assert found.difference.low == pytest.approx(1 / 12 - reach, abs=1e-6)
    assert found.difference.high == pytest.approx(1 / 12 + reach, abs=1e-6)
    assert found.p_value == pytest.approx(2 * NormalDist().cdf(-1 / math.sqrt(26)))


@pytest.mark.parametrize("digits", [3, 0], ids=["few ties", "many ties"])
@pytest.mark.parametrize("seed", range(3))
def test_delong_agrees_with_all_pairs(seed: int, digits: int):
    first, second, abnormal = binormal(np.random.default_rng(seed), 60)
    mixed = np.random.default_rng(seed).permutation(120)
    first, second = np.round(first, digits)[mixed], np.round(second, digits)[mixed]
    found = delong(first, second, abnormal[mixed], confidence=0.9)
    difference, variance = by_all_pairs(first, second, abnormal[mixed])
    assert found.auc_a == pytest.approx(rank(first, abnormal[mixed]).roc_auc())
    assert found.auc_b == pytest.approx(rank(second, abnormal[mixed]).roc_auc())
    assert found.difference.estimate == pytest.approx(difference)
    reach = NormalDist().inv_cdf(0.95) * math.sqrt(variance)
    assert found.difference.high - difference == pytest.approx(reach)
    assert found.p_value == pytest.approx(
        2 * NormalDist().cdf(-abs(difference) / math.sqrt(variance))
    )


def test_delong_covers_at_its_nominal_rate():
    rng = np.random.default_rng(1)
    truth = true_auc(1.2) - true_auc(0.8)
    covered = [holds(delong(*binormal(rng, 60)).difference, truth) for _ in range(500)]
    assert 0.925 <= np.mean(covered) <= 0.975


def test_delong_calls_equal_models_indistinguishable_95_times_in_100():
    rng = np.random.default_rng(2)
    found = [delong(*binormal(rng, 60, (1, 1))) for _ in range(500)]
    equal = [judge(one.difference) == "not distinguishable" for one in found]
    assert 0.925 <= np.mean(equal) <= 0.975
    # The p-value and the interval never disagree, and p-values are spread evenly.
    assert equal == [one.p_value >= 0.05 for one in found]
    assert np.mean([one.p_value for one in found]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("second", [FIRST, np.exp(FIRST)], ids=["same", "same order"])
def test_delong_of_equal_orders_is_exactly_no_difference(second: np.ndarray):
    found = delong(FIRST, second, ABNORMAL)
    assert found.difference == Interval(0.0, 0.0, 0.0, 0.95)
    assert found.p_value == 1


def test_delong_of_all_ties_and_of_perfect_separation():
    found = delong(ABNORMAL.astype(float), np.zeros(5), ABNORMAL)
    assert (found.auc_a, found.auc_b) == (1, 0.5)
    assert found.difference == Interval(0.5, 0.5, 0.5, 0.95)
    assert found.p_value == 0


def test_delong_with_a_single_abnormal_beat_has_no_interval():
    found = delong(FIRST, SECOND, np.arange(5) == 1)
    assert found.difference.estimate == pytest.approx(1 - 1.5 / 4)
    assert not found.difference.known
    assert math.isnan(found.p_value)
    assert judge(found.difference) == "not distinguishable"


# --- Bootstrap ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["auc", "ap"])
def test_weights_do_what_drawing_the_beats_again_does(metric):
    first, second, abnormal = binormal(np.random.default_rng(3), 20)
    first = np.round(first)
    rng = np.random.default_rng(5)
    name = {"auc": "roc_auc", "ap": "average_precision"}[metric]

    def difference(rows):
        a, b = (rank(scores[rows], abnormal[rows]) for scores in (first, second))
        return getattr(a, name)() - getattr(b, name)()

    drawn = [difference(rng.integers(0, 40, 40)) for _ in range(50)]
    found = bootstrap_difference(
        first, second, abnormal, metric=metric, resamples=50, seed=5, confidence=0.8
    )
    assert found.estimate == pytest.approx(difference(np.arange(40)))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.1, 0.9])))


def test_bootstrap_agrees_with_delong_where_beats_are_independent():
    first, second, abnormal = binormal(np.random.default_rng(4), 500)
    one = delong(first, second, abnormal).difference
    other = bootstrap_difference(first, second, abnormal)
    assert other.estimate == pytest.approx(one.estimate)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.003)


def test_bootstrap_covers_at_its_nominal_rate():
    rng = np.random.default_rng(6)
    truth = true_auc(1.2) - true_auc(0.8)
    covered = [
        holds(bootstrap_difference(*binormal(rng, 40), resamples=100, seed=seed), truth)
        for seed in range(120)
    ]
    assert 0.89 <= np.mean(covered) <= 0.99


def test_drawing_patients_is_honest_where_drawing_beats_is_not():
    rng = np.random.default_rng(7)
    equal = {"patients": [], "beats": []}
    for seed in range(60):
        *scores, abnormal, records = in_patients(rng, 20, 10)
        for way, drawn in (("patients", records), ("beats", None)):
            found = bootstrap_difference(*scores, abnormal, drawn, resamples=80, seed=seed)
            equal[way].append(judge(found) == "not distinguishable")
    assert np.mean(equal["patients"]) >= 0.85
    assert np.mean(equal["beats"]) <= 0.7


def test_the_interval_by_patient_is_wider_where_a_patients_beats_are_alike():
    first, second, abnormal, records = in_patients(np.random.default_rng(8), 20, 50)
    by_beat = bootstrap_difference(first, second, abnormal, resamples=200)
    by_patient = bootstrap_difference(first, second, abnormal, records, resamples=200)
    assert by_patient.estimate == by_beat.estimate
    assert by_patient.high - by_patient.low > 3 * (by_beat.high - by_beat.low)


def test_bootstrap_of_equal_scores_is_exactly_no_difference():
    found = bootstrap_difference(FIRST, FIRST, ABNORMAL, resamples=20)
    assert found == Interval(0.0, 0.0, 0.0, 0.95)


def test_draws_without_both_kinds_are_repeated():
    # One abnormal beat in ten patients: a third of the draws would lack it.
    scores = np.arange(10.0)
    found = bootstrap_difference(
        scores, -scores, scores == 9, scores.astype(str), resamples=50, metric="ap"
    )
    assert found.known
    assert judge(found) == "better"


def test_bootstrap_of_one_patient_has_no_interval():
    found = bootstrap_difference(FIRST, SECOND, ABNORMAL, np.full(5, "100"))
    assert found.estimate == pytest.approx(1 / 12)
    assert not found.known


def test_the_same_seed_draws_the_same():
    case = binormal(np.random.default_rng(9), 30)
    once, again, other = (bootstrap_difference(*case, resamples=30, seed=s) for s in (1, 1, 2))
    assert once == again
    assert once != other


def test_bootstrap_of_a_whole_test_set_is_affordable(monkeypatch: pytest.MonkeyPatch):
    sorts = []
    real = np.argsort
    monkeypatch.setattr(np, "argsort", lambda *a, **k: sorts.append(1) or real(*a, **k))
    case = binormal(np.random.default_rng(10), 13_500)
    bootstrap_difference(*case, resamples=10)
    assert len(sorts) <= 4, "each score is checked and sorted once, not once per draw"


# --- Seeds ----------------------------------------------------------------------------------


def test_paired_by_seed_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, t(2 degrees of freedom, 97.5 %) = 4.302653.
    found = paired_by_seed([2, 4, 6], [1, 2, 3])
    assert found.estimate == 2
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3))
    assert 2 - found.low == pytest.approx(4.302653 / math.sqrt(3))
    assert judge(found) == "not distinguishable"
    assert judge(paired_by_seed([2, 4, 6], [1, 2, 3], confidence=0.8)) == "better"


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
    assert paired_by_seed([0.9, 0.8], [0.9, 0.8]) == Interval(0.0, 0.0, 0.0, 0.95)


def test_mean_and_sd():
    assert mean_and_sd([1, 2, 3, 4]) == pytest.approx((2.5, math.sqrt(5 / 3)))
    mean, sd = mean_and_sd([0.9])
    assert mean == 0.9
    assert math.isnan(sd)


# --- Words ----------------------------------------------------------------------------------


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, low, high, 0.95)


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
        "interval 0.004 to 0.021; 5 repetitions, 27,111 beats of 22 patients).",
    ),
    "worse": (
        (interval(-0.012, -0.02, -0.004), {"seeds": 3}),
        "The student is worse than the teacher: its AUC is 0.012 lower (95 % confidence "
        "interval 0.004 to 0.020; 3 repetitions).",
    ),
    "not distinguishable": (
        (interval(0.004, -0.003, 0.011), {"seeds": 2, "patients": 1}),
        "The student and the teacher are not distinguishable: the AUC of the student was "
        "measured 0.004 higher, but may really be anything from 0.003 lower to 0.011 higher "
        "(95 % confidence interval; 2 repetitions of 1 patient).",
    ),
    "the same": (
        (interval(0, 0, 0), {"seeds": 2}),
        "The student and the teacher are not distinguishable: their AUC is the same "
        "(2 repetitions).",
    ),
    "digits where the interval is narrow or ends near 0": (
        (interval(0.00500, 0.00004, 0.00996), {"seeds": 9}),
        "The student is better than the teacher: its AUC is 0.00500 higher (95 % confidence "
        "interval 0.00004 to 0.00996; 9 repetitions).",
    ),
    "one training each": (
        (interval(0.012, 0.004, 0.02), {"seeds": 1, "beats": 1}),
        "The student is better than the teacher: its AUC is 0.012 higher (95 % confidence "
        "interval 0.004 to 0.020; 1 repetition, 1 beat); trained once each, which is too few "
        "to say whether it would happen again.",
    ),
    "too few seeds": (
        (paired_by_seed([0.92], [0.90]), {"seeds": 1}),
        "The student and the teacher are not distinguishable: the AUC of the student is 0.020 "
        "higher, but there are too few trainings with other seeds to tell this from chance "
        "(1 repetition).",
    ),
    "too few beats": (
        (interval(-0.1, math.nan, math.nan), {"seeds": 3, "beats": 5}),
        "The student and the teacher are not distinguishable: the AUC of the student is 0.100 "
        "lower, but there are too few repetitions, beats or patients to tell this from chance "
        "(3 repetitions, 5 beats).",
    ),
}


@pytest.mark.parametrize(("case", "text"), SENTENCES.values(), ids=SENTENCES.keys())
def test_sentence(case, text: str):
    found, evidence = case
    assert sentence("the student", "the teacher", found, "AUC", **evidence) == text


def test_an_interval_in_figures():
    assert str(interval(0.004, -0.003, 0.011)) == "+0.004 (95 % interval -0.003 to +0.011)"
    assert str(interval(-1e-9, -0.003, 0)) == "+0.000 (95 % interval -0.003 to +0.000)"


# --- What is refused ------------------------------------------------------------------------


def with_nan(scores: np.ndarray) -> np.ndarray:
    return np.where(scores == 3, np.nan, scores)


@pytest.mark.parametrize("compare", [delong, bootstrap_difference])
@pytest.mark.parametrize(
    ("first", "second", "abnormal", "message"),
    [
        (FIRST[:4], SECOND, ABNORMAL, r"scores of shape \(4,\) for \(5,\) labels"),
        (FIRST, SECOND[:, None], ABNORMAL, r"scores of shape \(5, 1\) for \(5,\) labels"),
        (FIRST, with_nan(SECOND), ABNORMAL, "1 of 5 scores are not finite"),
        (FIRST, SECOND, np.zeros(5, dtype=bool), "5 normal and 0 abnormal"),
        (FIRST, SECOND, ABNORMAL.astype(int), "of type bool, but is int64"),
    ],
)
def test_scores_that_cannot_be_compared(compare, first, second, abnormal, message: str):
    with pytest.raises(ValueError, match=message):
        compare(first, second, abnormal)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": np.array(["a", "b"])}, r"records of shape \(2,\) for 5 beats"),
        ({"metric": "f1"}, "metric must be 'auc' or 'ap', but is 'f1'"),
        ({"resamples": 0}, "resamples must be at least 1, but is 0"),
        ({"confidence": 95}, "confidence must be between 0 and 1, but is 95"),
    ],
)
def test_draws_that_cannot_be_made(change, message: str):
    with pytest.raises(ValueError, match=message):
        bootstrap_difference(FIRST, SECOND, ABNORMAL, **change)


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


def test_other_refusals():
    with pytest.raises(ValueError, match="between 0 and 1, but is 0"):
        delong(FIRST, SECOND, ABNORMAL, confidence=0)
    with pytest.raises(ValueError, match="between 0 and 1, but is 1"):
        paired_by_seed([1, 2], [1, 2], confidence=1)
    with pytest.raises(ValueError, match="one figure per seed"):
        mean_and_sd([])
    with pytest.raises(ValueError, match="at least one repetition, but seeds=0"):
        sentence("a", "b", interval(0, 0, 0), "AUC", seeds=0)
