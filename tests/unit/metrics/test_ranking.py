from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from kdsearch.metrics.ranking import Confusion, evaluate, rank

# By hand, highest first: 0.9 abnormal; 0.7 one of each (a tie); 0.4 normal, 0.2 abnormal,
# 0.1 normal.
SCORES = np.array([0.1, 0.7, 0.9, 0.2, 0.7, 0.4])
ABNORMAL = np.array([False, True, True, True, False, False])


def random_case(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    abnormal = rng.random(300) < 0.3
    scores = np.round(rng.normal(size=300) + abnormal, 3 if levels == 0 else 0)
    return scores.astype(np.float32), abnormal


def test_hand_made_ranking_with_a_tie() -> None:
    ranking = rank(SCORES, ABNORMAL)
    # Nine pairs: 0.9 beats 3; 0.7 beats 2 and ties with 1; 0.2 beats 1.
    assert ranking.roc_auc() == pytest.approx((3 + 2.5 + 1) / 9)
    # Recall rises at 0.9 (precision 1), 0.7 (2/3) and 0.2 (3/5).
    assert ranking.average_precision() == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # F1 is 1/2, 2/3, 4/7, 3/4, 2/3 from the highest threshold to the lowest.
    assert ranking.best_f1() == pytest.approx((0.75, 0.2))
    # The curve passes (1/3, 2/3): as many false alarms as misses.
    assert ranking.equal_error_rate() == pytest.approx(1 / 3)


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(seed: int, levels: int) -> None:
    scores, abnormal = random_case(seed, levels)
    ranking = rank(scores, abnormal)
    assert ranking.roc_auc() == pytest.approx(roc_auc_score(abnormal, scores))
    assert ranking.average_precision() == pytest.approx(
        average_precision_score(abnormal, scores)
    )
    precision, recall, _ = precision_recall_curve(abnormal, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert ranking.best_f1()[0] == pytest.approx(f1.max())


def test_best_f1_is_what_the_confusion_at_its_threshold_gives() -> None:
    scores, abnormal = random_case(0, 1)
    f1, threshold = rank(scores, abnormal).best_f1()
    at = rank(scores, abnormal).confusion(threshold)
    assert f1 == pytest.approx(at.f1)


@pytest.mark.parametrize(
    ("threshold", "counts"),
    [
        (1.0, (0, 0, 3, 3)),
        (0.9, (1, 0, 3, 2)),
        (0.7, (2, 1, 2, 1)),
        (0.5, (2, 1, 2, 1)),
        (0.0, (3, 3, 0, 0)),
    ],
)
def test_a_score_equal_to_the_threshold_is_abnormal(
    threshold: float, counts: tuple[int, int, int, int]
) -> None:
    assert rank(SCORES, ABNORMAL).confusion(threshold) == Confusion(threshold, *counts)


def test_perfect_and_reversed_rankings() -> None:
    perfect, reversed_ = rank(ABNORMAL * 1.0, ABNORMAL), rank(-1.0 * ABNORMAL, ABNORMAL)
    assert (perfect.roc_auc(), perfect.equal_error_rate()) == (1, 0)
    assert (reversed_.roc_auc(), reversed_.equal_error_rate()) == (0, 1)


def test_constant_scores_are_chance() -> None:
    constant = rank(np.zeros(6), ABNORMAL)
    assert constant.roc_auc() == 0.5
    assert constant.average_precision() == 0.5
    assert constant.equal_error_rate() == 0.5


def test_figures_by_class() -> None:
    classes = np.array(["N", "S", "V", "S", "N", "N"])
    metrics = evaluate(SCORES, classes, threshold=0.5)
    assert list(metrics.classes) == ["N", "S", "V"]
    assert metrics.classes["N"].as_dict() == pytest.approx({"n": 3, "specificity": 2 / 3})
    assert metrics.classes["S"].as_dict() == pytest.approx(
        {"n": 2, "roc_auc": 3.5 / 6, "sensitivity": 0.5}
    )
    assert metrics.classes["V"].as_dict() == {"n": 1, "roc_auc": 1.0, "sensitivity": 1.0}


def test_threshold_defaults_to_that_of_the_best_f1() -> None:
    metrics = evaluate(SCORES, np.where(ABNORMAL, "V", "N"))
    assert metrics.confusion.threshold == pytest.approx(0.2)


def test_figures_at_a_threshold_by_hand() -> None:
    at = Confusion(
        0.5, true_positives=6, false_positives=2, true_negatives=8, false_negatives=4
    )
    assert at.ppv == pytest.approx(6 / 8)
    assert at.accuracy == pytest.approx(14 / 20)
    assert at.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    none = Confusion(2.0, 0, 0, 10, 10)
    assert none.ppv is None
    assert none.f1 == 0
    assert "ppv" not in none.as_dict()


def test_as_dict_is_plain() -> None:
    plain = evaluate(SCORES, np.where(ABNORMAL, "V", "N"), threshold=0.5).as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["n"] == 6
    assert plain["confusion"]["specificity"] == pytest.approx(2 / 3)
    assert plain["confusion"]["ppv"] == pytest.approx(2 / 3)
    assert plain["classes"]["V"]["sensitivity"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("scores", "abnormal", "message"),
    [
        ([1.0, 2.0], [False, False], "2 normal and 0 abnormal"),
        ([1.0, 2.0], [True, True], "0 normal and 2 abnormal"),
        ([], [], "0 normal and 0 abnormal"),
        ([1.0, np.nan], [True, False], "1 of 2 scores are not finite"),
        ([np.inf, np.nan], [True, False], "2 of 2 scores are not finite"),
        ([1.0, 2.0, 3.0], [True, False], r"scores of shape \(3,\) for \(2,\) labels"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    scores: list[float], abnormal: list[bool], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank(np.array(scores), np.array(abnormal, dtype=bool))
