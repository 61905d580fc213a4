"""One dimension: what the YAML may say, what it becomes, and that it comes back the same."""

import math

import pytest

from kdsearch.config.dimensions import (
    Choice,
    Dimension,
    Fixed,
    Float,
    Integer,
    as_number,
    finite_points,
    parse_dimension,
    to_yaml,
)

GOOD: dict[str, tuple[object, Dimension]] = {
    "uniform": ({"uniform": [0, 1.5]}, Float(0.0, 1.5)),
    "uniform below zero": ({"uniform": [-2, -1]}, Float(-2.0, -1.0)),
    "loguniform": ({"loguniform": [0.25, 8]}, Float(0.25, 8.0, log=True)),
    "bounds that YAML calls text": ({"loguniform": ["1e-3", "1E0"]}, Float(0.001, 1, log=True)),
    "int": ({"int": [2, 9]}, Integer(2, 9)),
    "int of whole floats": ({"int": [2.0, 9]}, Integer(2, 9)),
    "choice of numbers": ({"choice": [1, 2.5, "1e-3"]}, Choice((1, 2.5, 0.001))),
    "uniform in steps": ({"uniform": [0, 1], "step": 0.1}, Float(0.0, 1.0, step=0.1)),
    "int on a log scale": ({"int": [8, 64], "log": True}, Integer(8, 64, log=True)),
    "int in steps": ({"int": [8, 64], "step": 8}, Integer(8, 64, step=8)),
    "grid": ({"grid": [1, "1e-3"]}, Choice((1, 0.001), grid=True)),
    "choice of words": ({"choice": ["score", "none"]}, Choice(("score", "none"))),
    "choice of one": ({"choice": [4]}, Choice((4,))),
    "fixed number": (0.5, Fixed(0.5)),
    "fixed number as text": ("1e-4", Fixed(0.0001)),
    "fixed word": ("teacher", Fixed("teacher")),
    "fixed zero": (0, Fixed(0)),
}

BAD: dict[str, tuple[object, str]] = {
    "low above high": (
        {"uniform": [0.1, 0.01]},
        r"low must be below high, but low=0\.1 and high=0\.01",
    ),
    "low equals high": ({"int": [3, 3]}, "low must be below high, but low=3 and high=3"),
    "loguniform from zero": ({"loguniform": [0, 1]}, "needs a low above 0, but low=0"),
    "loguniform below zero": ({"loguniform": [-1, 1]}, "needs a low above 0, but low=-1"),
    "int of fractions": (
        {"int": [1.5, 3]},
        r"int needs whole numbers, but low=1\.5 and high=3",
    ),
    "three bounds": (
        {"uniform": [1, 2, 3]},
        r"two bounds \[low, high\], but found \[1, 2, 3\]",
    ),
    "bounds by name": ({"uniform": {"low": 1, "high": 2}}, "two bounds .* found {'low': 1"),
    "one bound": ({"int": 3}, "two bounds .* found 3"),
    "nan": ({"uniform": [float("nan"), 1]}, "a bound must be finite, but found nan"),
    "nan as text": ({"uniform": ["nan", 1]}, "a bound must be finite, but found 'nan'"),
    "infinity": ({"uniform": [0, float("inf")]}, "a bound must be finite, but found inf"),
    "boolean bound": ({"uniform": [True, 3]}, "a bound must be a number, but found True"),
    "text bound": ({"int": ["few", 3]}, "a bound must be a number, but found 'few'"),
    "no bound": ({"uniform": [None, 3]}, "a bound must be a number, but found None"),
    "list as bound": ({"uniform": [[1], 3]}, r"a bound must be a number, but found \[1\]"),
    "choice of nothing": ({"choice": []}, r"choice needs a list of values, but found \[\]"),
    "choice that is no list": ({"choice": "abc"}, "choice needs a list of values, .* 'abc'"),
    "choice twice": ({"choice": [1, 1.0]}, r"choice names a value twice: \[1, 1\.0\]"),
    "choice twice as text": ({"choice": [0.001, "1e-3"]}, "choice names a value twice"),
    "choice of lists": ({"choice": [[1], [2]]}, r"choice takes numbers and words, .*\[\[1\]"),
    "choice of nulls": (
        {"choice": [None, 1]},
        r"choice takes numbers and words, .*\[None, 1\]",
    ),
    "unknown form": ({"lognormal": [0, 1]}, r"expected \{uniform: .* found \{'lognormal'"),
    "two forms": ({"uniform": [0, 1], "int": [0, 1]}, r"expected \{uniform: .* 'int'"),
    "form without a step": ({"loguniform": [1, 2], "step": 1}, r"expected \{uni.* 'step'"),
    "step that misses": (
        {"uniform": [0, 1], "step": 0.3},
        r"step must be above 0 and divide high - low = 1, but step=0\.3",
    ),
    "step of zero": ({"uniform": [0, 1], "step": 0}, "step must be above 0 .* step=0"),
    "int step that misses": (
        {"int": [8, 64], "step": 9},
        "step must be a whole number that divides high - low = 56, but found 9",
    ),
    "step and log": ({"int": [8, 64], "step": 8, "log": True}, "log and step exclude each"),
    "log from zero": ({"int": [0, 64], "log": True}, "log needs a low of at least 1, .*low=0"),
    "log of a word": ({"int": [1, 64], "log": "yes"}, "log must be true or false, .* 'yes'"),
    "grid of nothing": ({"grid": []}, r"grid needs a list of values, but found \[\]"),
    "empty mapping": ({}, r"expected \{uniform: .* found \{\}"),
    "bare list": ([0, 1], r"expected \{uniform: .* found \[0, 1\]"),
    "nothing": (None, r"expected \{uniform: .* found None"),
}


@pytest.mark.parametrize(("raw", "expected"), GOOD.values(), ids=GOOD.keys())
def test_a_good_entry_is_read(raw: object, expected: Dimension):
    dimension = parse_dimension(raw)
    assert dimension == expected
    assert type(dimension) is type(expected)


@pytest.mark.parametrize(("raw", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_entry_is_refused_with_rule_and_value(raw: object, message: str):
    with pytest.raises(ValueError, match=message) as refused:
        parse_dimension(raw)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dimension", [e for _, e in GOOD.values()], ids=GOOD.keys())
def test_the_plain_form_is_read_back(dimension: Dimension):
    assert parse_dimension(to_yaml(dimension)) == dimension


def test_bounds_are_real_numbers_or_whole_ones_as_the_form_says():
    for dimension, kind in ((Float(2, 9), float), (parse_dimension({"int": [2, 9]}), int)):
        low, *_, high = (parse_dimension(to_yaml(dimension))).candidates()
        assert isinstance(low, kind)
        assert isinstance(high, kind)


@pytest.mark.parametrize(
    ("dimension", "candidates"),
    [
        (Float(2, 9), {2, 9, 2.5}),
        (Float(0.1, 0.4), {0.1, 0.4}),
        (Float(-1.75, -1), {-1.75, -1, -1.5}),
        (Integer(2, 9), {2, 9}),
        (Choice(("a", 1)), {"a", 1}),
        (Fixed("a"), {"a"}),
    ],
)
def test_candidates_hold_both_ends_and_a_fraction(dimension: Dimension, candidates: set):
    assert set(dimension.candidates()) == candidates


@pytest.mark.parametrize(
    ("raw", "number"),
    [("1e-3", 0.001), ("7", 7.0), ("score", "score"), ("", ""), (True, True), (3, 3)],
)
def test_only_text_that_is_a_number_becomes_one(raw, number):
    found = as_number(raw)
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    ("dimension", "points"),
    [
        (Float(0.0, 1.0), []),
        (Float(0.0, 1.0, step=0.25), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (Integer(2, 4), [2, 3, 4]),
        (Integer(8, 24, step=8), [8, 16, 24]),
        (Choice(("score", 3)), ["score", 3]),
    ],
)
def test_points_of_a_dimension(dimension: Float | Integer | Choice, points: list):
    assert list(dimension.points()) == points
    assert dimension.count() == (len(points) or None)


def test_the_points_of_a_space_are_counted():
    space = {"a": Integer(1, 3), "b": Choice((1, 2), grid=True), "c": Fixed(4)}
    assert finite_points(space) == 6
    assert finite_points({**space, "d": Float(0, 1)}) is None
    assert finite_points({"a": Float(0, 1, step=1e-9), "b": Integer(1, 10**9)}) > 10**17
    assert finite_points({"c": Fixed(4)}) is None, "its trials differ by their seeds"


@pytest.mark.parametrize(
    ("dimension", "value", "canonical"),
    [
        (Float(0.0, 1.0), "1e-3", 0.001),
        (Float(0.0, 1.0, step=0.1), 0.3, 3 * 0.1),
        (Integer(1, 4), 3.0, 3),
        (Choice((1, "score")), 1.0, 1),
    ],
)
def test_a_value_as_a_trial_has_it(dimension: Float | Integer | Choice, value, canonical):
    found = dimension.canonical(value)
    assert found == canonical
    assert type(found) is type(canonical)


@pytest.mark.parametrize(
    ("dimension", "value", "message"),
    [
        (Float(0.0, 1.0), 1.5, "expected a number from 0 to 1"),
        (Float(0.0, 1.0), math.nan, "expected a number"),
        (Float(0.0, 1.0), "few", "expected a number"),
        (Float(0.0, 1.0), True, "expected a number"),
        (Float(0.0, 1.0, step=0.5), 0.25, r"expected steps of 0\.5 from 0 on"),
        (Integer(8, 24, step=8), 9, "expected a whole number from 8 to 24 in steps of 8"),
        (Integer(1, 4), 2.5, "expected a whole number from 1 to 4"),
        (Choice((1, "score")), True, "expected one of 1, score"),
    ],
)
def test_a_value_outside_is_refused(dimension: Float | Integer | Choice, value, message: str):
    with pytest.raises(ValueError, match=message):
        dimension.canonical(value)
