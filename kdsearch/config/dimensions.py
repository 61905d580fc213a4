"""The search space: one dimension per searched setting, parsed from YAML."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from kdsearch.texts import short

Value = float | int | str | bool


@dataclass(frozen=True)
class Float:
    """A real number from ``low`` to ``high``; ``log`` samples its logarithm."""

    low: float
    high: float
    log: bool = False

    def candidates(self) -> tuple[Value, ...]:
        """Values that stand for all: if a setting accepts these, it accepts every one.

        Between the two ends stands a fraction, which a setting in whole numbers refuses.
        """
        fraction = math.floor(self.low) + 0.5
        between = (fraction,) if self.low < fraction < self.high else ()
        return (self.low, *between, self.high)


@dataclass(frozen=True)
class Integer:
    """A whole number between ``low`` and ``high``, both included."""

    low: int
    high: int

    def candidates(self) -> tuple[Value, ...]:
        """The two ends."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[Value, ...]

    def candidates(self) -> tuple[Value, ...]:
        """Every option."""
        return self.options


@dataclass(frozen=True)
class Fixed:
    """A setting that is the same in every trial."""

    value: Value

    def candidates(self) -> tuple[Value, ...]:
        """The value."""
        return (self.value,)


Dimension = Float | Integer | Choice | Fixed

FORMS = (
    "{uniform: [lo, hi]}, {loguniform: [lo, hi]}, {int: [lo, hi]}, {choice: [...]} or a value"
)


def parse_dimension(raw: object) -> Dimension:
    """Read one entry of the YAML's section ``space``.

    Raises:
        ValueError: The entry has none of the known forms, or its bounds are impossible;
            the message says which rule it breaks and what it found.
    """
    match raw:
        case {"uniform": bounds} if _one_key(raw):
            return Float(*_bounds(bounds))
        case {"loguniform": bounds} if _one_key(raw):
            low, high = _bounds(bounds)
            if low <= 0:
                raise ValueError(f"loguniform needs a low above 0, but low={low:g}")
            return Float(low, high, log=True)
        case {"int": bounds} if _one_key(raw):
            low, high = _bounds(bounds)
            if low != int(low) or high != int(high):
                raise ValueError(f"int needs whole numbers, but low={low:g} and high={high:g}")
            return Integer(int(low), int(high))
        case {"choice": options} if _one_key(raw):
            return Choice(_options(options))
        case bool() | int() | float() | str():
            return Fixed(as_number(raw))
    raise ValueError(f"expected {FORMS}, but found {short(raw)}")


def _one_key(raw: object) -> bool:
    return isinstance(raw, dict) and len(raw) == 1


def as_number(raw: Value) -> Value:
    """Read ``1e-3`` as a number, though YAML 1.1 calls it a string; leave other text alone."""
    if not isinstance(raw, str):
        return raw
    try:
        return float(raw)
    except ValueError:
        return raw


def _bounds(raw: object) -> tuple[float, float]:
    if not isinstance(raw, list) or len(raw) != 2:
        raise ValueError(f"expected two bounds [low, high], but found {short(raw)}")
    low, high = (_finite(bound) for bound in raw)
    if low >= high:
        raise ValueError(f"low must be below high, but low={low:g} and high={high:g}")
    return low, high


def _finite(raw: object) -> float:
    number = as_number(raw) if isinstance(raw, str | int | float) else raw
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"a bound must be a number, but found {short(raw)}")
    # Compared and not converted: a whole number may have more digits than a float can hold.
    if not abs(number) <= sys.float_info.max:
        raise ValueError(f"a bound must be finite, but found {short(raw)}")
    return float(number)


def _options(raw: object) -> tuple[Value, ...]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"choice needs a list of values, but found {short(raw)}")
    if not all(isinstance(option, str | int | float | bool) for option in raw):
        raise ValueError(f"choice takes numbers and words, but found {short(raw)}")
    options = tuple(as_number(option) for option in raw)
    if len(set(options)) < len(options):
        raise ValueError(f"choice names a value twice: {short(raw)}")
    return options


def to_yaml(dimension: Dimension) -> Any:
    """The plain form that `parse_dimension` reads back."""
    match dimension:
        case Float(low, high, log):
            return {"loguniform" if log else "uniform": [low, high]}
        case Integer(low, high):
            return {"int": [low, high]}
        case Choice(options):
            return {"choice": list(options)}
        case Fixed(value):
            return value
