"""One dimension: what the YAML may say, what it becomes, and that it comes back the same."""

import pytest

from kdsearch.config.dimensions import (
    Choice,
    Dimension,
    Fixed,
    Float,
    Integer,
    as_number,
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
    "form with a step": ({"uniform": [0, 1], "step": 2}, r"expected \{uniform: .* 'step'"),
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
