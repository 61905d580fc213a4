"""The line of descent of a search with generations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import Axis, Cell, Chart, Group, Section, Series, Table
from kdsearch.analysis.report.verdict_section import FIGURES, intervals
from kdsearch.analysis.run import Run
from kdsearch.metrics.ranking import METRICS

KEY, TITLE = "descent", "The line of descent"


def descent_section(run: Run) -> Section:
    """Every generation's best student against the first teacher, with intervals."""
    descent = run.descent
    if not descent:
        return Section(KEY, TITLE, missing="No generation is finished yet.")
    rows = [
        [
            Cell(str(one["generation"]), float(one["generation"])),
            Cell(f"trial {one['trial']}", float(one["trial"])),
            Cell(str(one["seeds"]), float(one["seeds"])),
            *(_figure(one[key]) for key in FIGURES.values()),
        ]
        for one in descent["generations"]
    ]
    columns = ["generation", "student", "seeds", *FIGURES]
    return Section(
        KEY,
        TITLE,
        lead=[*map(str, descent["sentences"]), str(descent["ended"])],
        text="Each generation's best student, trained again with new seeds, taught the next "
        f"one. Generation {descent['result']} is the result; the sections below are its own. "
        f"Generations are chosen by validation {METRICS[run.metric]}.",
        tables=[Table(columns, rows, marked=frozenset({descent["result"] - 1}))],
        groups=[Group([_chart(descent)])],
    )


def _figure(value: float | None) -> Cell:
    return Cell("–", -1.0) if value is None else Cell(f"{value:.4f}", value)


def _chart(descent: Mapping[str, Any]) -> Chart:
    """Difference in test AUC from the first teacher, from top to bottom by generation."""
    entries = descent["against_first_teacher"]
    last = len(entries)
    known = [
        (float(last - index), entry)
        for index, entry in enumerate(entries)
        if entry["low"] is not None
    ]
    series = intervals("difference from the first teacher", known, palette.BLUE)
    line = Series(
        "line of descent",
        series.x,
        series.y,
        palette.GREY,
        width=1.2,
        in_legend=False,
    )
    ticks = tuple((float(last + 1 - n), f"generation {n}") for n in range(1, last + 1))
    return Chart(
        "Difference in test AUC from the first teacher, with 95 % intervals",
        Axis("test AUC: left is worse, right is better than the first teacher"),
        Axis(limits=(0.4, last + 0.6), ticks=ticks),
        [line, series],
        lines=[(0.0, "first teacher")],
        height=150 + 60 * last,
    )
