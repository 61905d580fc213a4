"""Rules for the threshold on scores made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdsearch.metrics.ranking import rank
from kdsearch.metrics.threshold import Rule, parse_rule

# From the highest: A A n A n n n A n n, ten beats of which four are abnormal.
SCORES = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
ABNORMAL = np.array([True, True, False, True, False, False, False, True, False, False])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("f1", 6),
        ({"sensitivity": 0.5}, 8),
        ({"sensitivity": 0.51}, 6),
        ({"sensitivity": 0.75}, 6),
        ({"sensitivity": 1}, 2),
        ({"specificity": 1}, 8),
        ({"specificity": 0.83}, 6),
        ({"specificity": 0.5}, 4),
        (3.5, 3.5),
    ],
)
def test_the_threshold_by_hand(rule: Any, threshold: float):
    ranking = rank(SCORES, ABNORMAL)
    found = parse_rule(rule).threshold(ranking)
    assert found == threshold
    if isinstance(rule, dict):
        ((kind, part),) = rule.items()
        assert getattr(ranking.confusion(found), kind) >= part


def test_no_beat_is_called_where_the_highest_score_is_a_normal_beats():
    ranking = rank(-SCORES, ABNORMAL)
    threshold = parse_rule({"specificity": 1}).threshold(ranking)
    assert threshold > 0
    assert ranking.confusion(threshold).false_positives == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_part_is_just_reached(seed: int):
    rng = np.random.default_rng(seed)
    abnormal = rng.random(300) < 0.3
    ranking = rank(np.round(rng.normal(size=300) + abnormal, 1), abnormal)
    for kind in ("sensitivity", "specificity"):
        found = parse_rule({kind: 0.9}).threshold(ranking)
        assert getattr(ranking.confusion(found), kind) >= 0.9
        index = int(np.flatnonzero(ranking.thresholds == found)[0])
        beside = ranking.thresholds[index - 1 if kind == "sensitivity" else index + 1]
        assert getattr(ranking.confusion(float(beside)), kind) < 0.9


@pytest.mark.parametrize(
    "raw", ["f1", {"sensitivity": 0.95}, {"specificity": 1.0}, 0.02, -3.0], ids=str
)
def test_a_rule_is_read_back_as_it_was(raw: Any):
    assert parse_rule(raw).as_plain() == raw
    assert parse_rule(parse_rule(raw).as_plain()) == parse_rule(raw)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("f1", Rule()),
        ("sensitivity=0.95", Rule("sensitivity", 0.95)),
        ("specificity = 1e-1", Rule("specificity", 0.1)),
        ("0.02", Rule("score", 0.02)),
    ],
)
def test_a_rule_of_the_command_line(text: str, rule: Rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("f2", "expected f1, {sensitivity: 0.95}.*, but found 'f2'"),
        ({"sensitivity": 0}, "sensitivity must be above 0 and at most 1, but found 0"),
        ({"specificity": 1.01}, "specificity must be above 0 and at most 1, but found 1.01"),
        ({"sensitivity": True}, "at most 1, but found True"),
        ({"sensitivity": 0.9, "specificity": 0.9}, "expected f1, "),
        ({"ppv": 0.9}, "expected f1, .* but found {'ppv': 0.9}"),
        (float("nan"), "expected f1, .* but found nan"),
        (True, "expected f1, .* but found True"),
        (None, "expected f1, .* but found None"),
        ([0.1], "expected f1, "),
        ("sensitivity=", "expected f1, .* but found 'sensitivity='"),
    ],
)
def test_what_is_no_rule(raw: Any, message: str):
    with pytest.raises(ValueError, match=message):
        parse_rule(raw)
