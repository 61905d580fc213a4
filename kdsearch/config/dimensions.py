"""The search space: one dimension per searched setting, parsed from YAML."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.texts import short

Value = float | int | str | bool


@dataclass(frozen=True)
class Float:
    """A real number from ``low`` to ``high``; ``log`` samples its logarithm.

    With a ``step``, only ``low``, ``low + step`` and so on to ``high``.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def candidates(self) -> tuple[Value, ...]:
        """Return representative values: if a setting accepts these, it accepts all values.

        They include a fraction between the bounds, which an integer setting refuses.
        """
        if self.step is not None:
            return tuple(dict.fromkeys((self.low, self.low + self.step, self.high)))
        fraction = math.floor(self.low) + 0.5
        between = (fraction,) if self.low < fraction < self.high else ()
        return (self.low, *between, self.high)

    def count(self) -> int | None:
        """How many values there are; None without a step."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def points(self) -> tuple[Value, ...]:
        """Every value of a dimension with a step."""
        step = self.step or 0.0
        return tuple(self.low + k * step for k in range(self.count() or 0))

    def canonical(self, value: Value) -> Value:
        """The value as a trial has it.

        Raises:
            ValueError: It is none of this dimension.
        """
        number = _number(value)
        if not self.low <= number <= self.high:
            raise ValueError(f"expected a number from {self.low:g} to {self.high:g}")
        if self.step is None:
            return number
        nearest = self.low + round((number - self.low) / self.step) * self.step
        if not math.isclose(nearest, number, rel_tol=1e-9, abs_tol=1e-9 * self.step):
            raise ValueError(f"expected steps of {self.step:g} from {self.low:g} on")
        return nearest


@dataclass(frozen=True)
class Integer:
    """A whole number between ``low`` and ``high``, both included.

    ``log`` samples its logarithm; with a ``step``, only ``low``, ``low + step`` and so on.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def candidates(self) -> tuple[Value, ...]:
        """Return the two bounds."""
        return (self.low, self.high)

    def count(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def points(self) -> range:
        """Every value."""
        return range(self.low, self.high + 1, self.step)

    def canonical(self, value: Value) -> Value:
        """As of `Float`."""
        number = _number(value)
        if number != int(number) or int(number) not in self.points():
            steps = f" in steps of {self.step}" if self.step > 1 else ""
            raise ValueError(f"expected a whole number from {self.low} to {self.high}{steps}")
        return int(number)


@dataclass(frozen=True)
class Choice:
    """One of a few values; of a ``grid``, all are tried in all combinations."""

    options: tuple[Value, ...]
    grid: bool = False

    def candidates(self) -> tuple[Value, ...]:
        """Every option."""
        return self.options

    def count(self) -> int:
        """How many options there are."""
        return len(self.options)

    def points(self) -> tuple[Value, ...]:
        """Every option."""
        return self.options

    def canonical(self, value: Value) -> Value:
        """As of `Float`."""
        for option in self.options:
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return option
        raise ValueError(f"expected one of {', '.join(map(str, self.options))}")


@dataclass(frozen=True)
class Fixed:
    """A setting that is the same in every trial."""

    value: Value

    def candidates(self) -> tuple[Value, ...]:
        """The value."""
        return (self.value,)


Searched = Float | Integer | Choice
Dimension = Searched | Fixed

FORMS = (
    "{uniform: [lo, hi]}, {loguniform: [lo, hi]}, {int: [lo, hi]}, {choice: [...]}, "
    "{grid: [...]} or a value"
)
# The keys that are allowed beside the key that names the form.
EXTRAS = {"uniform": {"step"}, "int": {"log", "step"}}


def parse_dimension(raw: object) -> Dimension:
    """Read one entry of the YAML's section ``space``.

    Raises:
        ValueError: The entry has none of the known forms, or its bounds are impossible;
            the message says which rule it breaks and what it found.
    """
    if isinstance(raw, bool | int | float | str):
        return Fixed(as_number(raw))
    if isinstance(raw, dict):
        for form, read in _READERS.items():
            extras = EXTRAS.get(form, set())
            if form in raw and raw.keys() <= {form} | extras:
                return read(raw[form], **{key: raw[key] for key in extras & raw.keys()})
    raise ValueError(f"expected {FORMS}, but found {short(raw)}")


def _uniform(raw: object, step: object = None) -> Float:
    low, high = _bounds(raw)
    if step is None:
        return Float(low, high)
    width = _finite(step)
    if width <= 0 or not math.isclose(
        (high - low) / width, round((high - low) / width), rel_tol=1e-9
    ):
        raise ValueError(
            f"step must be above 0 and divide high - low = {high - low:g}, but step={width:g}"
        )
    return Float(low, high, step=width)


def _loguniform(raw: object) -> Float:
    low, high = _bounds(raw)
    if low <= 0:
        raise ValueError(f"loguniform needs a low above 0, but low={low:g}")
    return Float(low, high, log=True)


def _int(raw: object, log: object = False, step: object = 1) -> Integer:
    low, high = _bounds(raw)
    if low != int(low) or high != int(high):
        raise ValueError(f"int needs whole numbers, but low={low:g} and high={high:g}")
    if not isinstance(log, bool):
        raise ValueError(f"log must be true or false, but found {short(log)}")
    if log and low < 1:
        raise ValueError(f"log needs a low of at least 1, but low={low:g}")
    if isinstance(step, bool) or not isinstance(step, int) or step < 1 or (high - low) % step:
        raise ValueError(
            f"step must be a whole number that divides high - low = {high - low:g}, but "
            f"found {short(step)}"
        )
    if log and step > 1:
        raise ValueError("log and step exclude each other, but found both")
    return Integer(int(low), int(high), log, step)


_READERS: dict[str, Callable[..., Dimension]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "int": _int,
    "choice": lambda raw: Choice(_options(raw, "choice")),
    "grid": lambda raw: Choice(_options(raw, "grid"), grid=True),
}


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


def _number(value: Value) -> float:
    number = as_number(value)
    if isinstance(number, bool | str) or not math.isfinite(number):
        raise ValueError("expected a number")
    return float(number)


def _options(raw: object, form: str) -> tuple[Value, ...]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{form} needs a list of values, but found {short(raw)}")
    if not all(isinstance(option, str | int | float | bool) for option in raw):
        raise ValueError(f"{form} takes numbers and words, but found {short(raw)}")
    options = tuple(as_number(option) for option in raw)
    if len(set(options)) < len(options):
        raise ValueError(f"{form} names a value twice: {short(raw)}")
    return options


def to_yaml(dimension: Dimension) -> Any:
    """Return the plain form that `parse_dimension` reads."""
    match dimension:
        case Float(low, high, log, step):
            form = {"loguniform" if log else "uniform": [low, high]}
            return form | ({} if step is None else {"step": step})
        case Integer(low, high, log, whole):
            extras = {"log": True} if log else {} if whole == 1 else {"step": whole}
            return {"int": [low, high]} | extras
        case Choice(options, grid):
            return {"grid" if grid else "choice": list(options)}
        case Fixed(value):
            return value


def finite_points(space: Mapping[str, Dimension]) -> int | None:
    """Return the number of different trials of a space; None if it is infinite.

    A space in which nothing is searched has none either: its trials differ by their seeds.
    """
    searched = [d for d in space.values() if not isinstance(d, Fixed)]
    counts = [dimension.count() for dimension in searched]
    known = [count for count in counts if count is not None]
    return math.prod(known) if searched and len(known) == len(counts) else None
