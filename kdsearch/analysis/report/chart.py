"""Description of a report: sections with charts and tables.

A chart describes what is shown, not how it is drawn. The page and the pictures for a paper
are rendered from the same description, so that they always agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: What it shows, with its unit.
        log: Logarithmic.
        limits: Its two ends, or None to fit the data.
        ticks: Positions and their texts, instead of numbers.
        hidden: Draw neither ticks nor title.
    """

    title: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None
    ticks: tuple[tuple[float, str], ...] | None = None
    hidden: bool = False


def log_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Return round tick values of a logarithmic axis, with their texts."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 1.1 else (1, 3) if decades < 2.2 else (1,)
    values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return tuple((value, f"{value:g}") for value in values)


@dataclass(frozen=True)
class Series:
    """Data of one line or one set of points.

    Attributes:
        name: Its entry in the legend; series of one name share one entry.
        kind: ``bars`` are horizontal, from 0 to ``x``; ``area`` is a line over a light surface.
        hover: A text per point, or one for all.
        values: Colour each point by a figure, on the scale that the chart names.
        low: Lower end of an interval around each point; ``high`` is the upper one.
        upright: Whether the intervals are of ``y``; otherwise of ``x``.
        in_legend: Whether the legend has it.
    """

    name: str
    x: Numbers
    y: Numbers
    colour: str
    kind: Literal["line", "points", "bars", "area"] = "line"
    dash: bool = False
    width: float = 2
    opacity: float = 1
    symbol: Literal["circle", "square", "x", "star"] = "circle"
    size: float = 9
    hover: str | Sequence[str] = ""
    values: Numbers | None = None
    low: Numbers | None = None
    high: Numbers | None = None
    upright: bool = False
    in_legend: bool = True


@dataclass(frozen=True)
class Label:
    """A text at a position of the chart."""

    x: float
    y: float
    text: str
    align: Literal["left", "center"] = "center"


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        title: Above it.
        series: Later ones are drawn on top.
        lines: Vertical lines, each with a text.
        labels: Texts inside.
        shade: A figure from 0 to 1 per x of the first series, drawn as depth of colour behind
            everything.
        scale: Title, lowest and highest figure of the colour scale, if the points have one.
        height: In pixels of the page.
        legend: Whether there is a legend.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    lines: Sequence[tuple[float, str]] = ()
    labels: Sequence[Label] = ()
    shade: Numbers | None = None
    scale: tuple[str, float, float] | None = None
    height: int = 380
    legend: bool = True

    def ticks(self, which: Literal["x", "y"]) -> tuple[tuple[float, str], ...] | None:
        """Return the ticks of the axis; a logarithmic axis has those of its data."""
        axis = self.x if which == "x" else self.y
        if axis.ticks is not None or not axis.log:
            return axis.ticks
        values = np.concatenate([np.asarray(getattr(one, which)) for one in self.series])
        return log_ticks(float(values.min()), float(values.max()))


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is shown, and what it is sorted by where that differs."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class Table:
    """Columns and rows; with ``searchable`` the reader can sort and filter it.

    Attributes:
        marked: Numbers of the highlighted rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    searchable: bool = False
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Group:
    """Charts side by side under one heading; ``small`` ones are several in a row."""

    charts: Sequence[Chart]
    title: str = ""
    small: bool = False

    @property
    def dense(self) -> bool:
        """Whether they are small enough for two in a row on a phone."""
        return self.small and all(chart.y.hidden for chart in self.charts)

    def legend(self) -> list[Series]:
        """Return one legend for small charts: the first series of each name."""
        if not self.small:
            return []
        found: dict[str, Series] = {}
        for chart in self.charts:
            for series in chart.series if chart.legend else ():
                if series.in_legend:
                    found.setdefault(series.name, series)
        return list(found.values())


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        key: Its anchor in the page and its file name among the pictures.
        lead: Sentences at the top, in large type.
        text: How to read what follows.
        missing: Why the section is empty, or an empty text.
    """

    key: str
    title: str
    lead: Sequence[str] = ()
    text: str = ""
    tables: Sequence[Table] = ()
    groups: Sequence[Group] = field(default_factory=tuple)
    missing: str = ""
