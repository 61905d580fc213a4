"""Sections about the search: leaderboard, curves, space, importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdsearch.analysis.leaderboard import STATES, best_record
from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import (
    Axis,
    Cell,
    Chart,
    Group,
    Label,
    Section,
    Series,
    Table,
)
from kdsearch.analysis.report.contents import Contents
from kdsearch.analysis.run import Run
from kdsearch.metrics.ranking import METRICS, Metric
from kdsearch.runs.trial_folder import TrialRecord

NO_TRIALS = "No trial has finished an epoch yet."


def leaderboard_section(contents: Contents) -> Section:
    """A table of all trials that can be sorted and filtered."""
    run = contents.run
    table = run.leaderboard()
    rows = [
        [_cell(str(column), value) for column, value in zip(table.columns, row, strict=True)]
        for row in table.astype(object).itertuples(index=False)
    ]
    best = best_record(run.records)
    marked = frozenset({0}) if best is not None else frozenset[int]()
    teacher = run.teacher
    text = "A trial is ranked by its best epoch. Click on a heading to sort."
    if teacher:
        text += f" The teacher reached {teacher[run.metric]:.4f} on the same beats."
    return Section(
        "leaderboard",
        "Leaderboard",
        text=text if rows else "",
        tables=[Table(list(table.columns), rows, searchable=True, marked=marked)]
        if rows
        else (),
        missing="" if rows else "No trial has begun yet.",
    )


def _cell(column: str, value: Any) -> Cell:
    if pd.isna(value):
        # A failed trial has no rank and is sorted last.
        return Cell("–", math.inf if column == "rank" else -math.inf)
    if column == "state":
        return Cell(STATES[value])
    if isinstance(value, bool | str):
        return Cell(str(value))
    if isinstance(value, float):
        form = ".4f" if column in METRICS else {"seconds": ".1f"}.get(column, ".3g")
        return Cell(f"{value:{form}}", value)
    return Cell(str(value), float(value))


def learning_curves(contents: Contents) -> Section:
    """The search's metric by epoch, a line per trial."""
    run = contents.run
    name = METRICS[run.metric]
    drawn = [
        Series(
            STATES[record.state],
            [float(report.epoch) for report in history],
            [report.value(run.metric) for report in history],
            palette.COLOURS[record.state],
            width=1.8,
            opacity=0.75,
            hover=f"trial {record.number}, {STATES[record.state]}",
        )
        for record in run.records
        if (history := contents.histories.get(record.number))
    ]
    # Completed trials on top: they are what one looks for among many stopped ones.
    drawn.sort(key=lambda one: one.name == STATES["completed"])
    if run.teacher.get("history") and "origin" not in run.teacher:
        history = run.teacher["history"]
        drawn.append(
            Series(
                "teacher",
                [float(report["epoch"]) for report in history],
                [report[run.metric] for report in history],
                palette.INK,
                dash=True,
                hover="teacher",
            )
        )
    longest = math.ceil(max((one.x[-1] for one in drawn), default=1))
    chart = Chart(
        f"Validation {name} by epoch",
        Axis("epoch", ticks=_whole(longest)),
        Axis(f"validation {name}"),
        drawn,
    )
    return Section(
        "learning-curves",
        "Learning curves",
        text="Every trial by its state. Epochs are judged on the validation beats.",
        groups=[Group([chart])] if drawn else (),
        missing="" if drawn else NO_TRIALS,
    )


def losses_section(contents: Contents) -> Section:
    """Every term of the loss by epoch, of the best student and of the teacher."""
    run, best = contents.run, contents.run.best
    student = [] if best is None else contents.histories.get(best.trial, [])
    histories = {
        "teacher": {r["epoch"]: r.get("losses", {}) for r in run.teacher.get("history", ())},
        f"student (trial {best.trial})" if best else "": {r.epoch: r.losses for r in student},
    }
    terms = list(dict.fromkeys(t for h in histories.values() for r in h.values() for t in r))
    charts = [_losses(name, h, terms) for name, h in histories.items() if any(h.values())]
    return Section(
        "losses",
        "Losses by term",
        text="Means over the mini-batches of an epoch, or since the rung before. The terms are "
        "not weighted yet; the generator minimises their weighted sum.",
        groups=[Group(charts)] if charts else (),
        missing="" if charts else NO_TRIALS,
    )


def _losses(
    name: str, losses: Mapping[float, Mapping[str, float]], terms: Sequence[str]
) -> Chart:
    """A line per term, in the same colour in every chart."""
    colours = (palette.BLUE, palette.ORANGE, palette.GREEN, palette.VERMILION, palette.PURPLE)
    series = []
    for number, term in enumerate(terms):
        points = [(float(e), r[term]) for e, r in losses.items() if term in r]
        if not points:
            continue
        series.append(
            Series(
                term,
                [x for x, _ in points],
                [y for _, y in points],
                colours[number % len(colours)],
                dash=number >= len(colours),
                hover=term,
            )
        )
    positive = all(value > 0 for one in series for value in one.y)
    return Chart(
        name,
        Axis("epoch", ticks=_whole(math.ceil(max(losses)))),
        Axis("loss", log=positive),
        series,
    )


def _whole(last: int) -> tuple[tuple[float, str], ...]:
    """Return at most ten ticks at whole epochs."""
    step = -(-last // 10)
    return tuple((float(epoch), str(epoch)) for epoch in range(1, last + 1, step))


@dataclass(frozen=True)
class _Dimension:
    """A searched setting as an axis: words become positions."""

    key: str
    log: bool
    options: tuple[Any, ...] | None

    def position(self, value: Any) -> float:
        if self.options is None:
            return float(value)
        return float(self.options.index(value))

    def axis(self) -> Axis:
        if self.options is None:
            return Axis(self.key, log=self.log)
        ticks = tuple((float(i), str(option)) for i, option in enumerate(self.options))
        return Axis(self.key, ticks=ticks, limits=(-0.5, len(ticks) - 0.5))


def _dimensions(run: Run) -> list[_Dimension]:
    found = []
    for key in run.searched:
        entry = run.config["space"][key]
        values = [r.params[key] for r in run.records if key in r.params]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        plain = len(numbers) == len(values)
        log = "loguniform" in entry and plain and min(numbers, default=0) > 0
        options = None if plain else tuple(sorted(set(values), key=str))
        found.append(_Dimension(key, log, options))
    return found


def _ranked(run: Run) -> list[TrialRecord]:
    """Trials that have a result and every searched value, the worst first."""
    ranked = [
        r
        for r in run.records
        if r.state != "failed"
        and not math.isnan(r.value)
        and r.params.keys() >= {*run.searched}
    ]
    return sorted(ranked, key=lambda r: r.value)


def space_section(contents: Contents) -> Section:
    """Parallel coordinates, and a slice of the space along each setting."""
    records, dimensions = _ranked(contents.run), _dimensions(contents.run)
    missing = NO_TRIALS if not records else ""
    if not dimensions:
        missing = "This space has no searched settings."
    if missing:
        return Section("space", "The space", missing=missing)
    metric = contents.run.metric
    slices = [_slice(dimension, records, metric) for dimension in dimensions]
    return Section(
        "space",
        "The space",
        text="One line is one trial, from its settings on the left to its result on the "
        "right. Below: the result against each setting. Trials that were stopped early "
        "are shown with their best epoch.",
        groups=[Group([_parallel(dimensions, records, metric)]), Group(slices, small=True)],
    )


def _parallel(
    dimensions: Sequence[_Dimension], records: Sequence[TrialRecord], metric: Metric
) -> Chart:
    low, high = records[0].value, records[-1].value
    columns = [
        _column(dimension, [r.params[dimension.key] for r in records])
        for dimension in dimensions
    ]
    columns.append(_scaled([r.value for r in records], "{:.3f}"))
    xs = [float(i) for i in range(len(columns))]
    lines = [
        Series(
            "",
            xs,
            [column[0][row] for column in columns],
            palette.on_scale(record.value, low, high),
            width=2,
            opacity=0.8,
            hover=_words(record, metric),
            in_legend=False,
        )
        for row, record in enumerate(records)
    ]
    labels = [
        Label(x, y, text)
        for x, (_, bottom, top) in zip(xs, columns, strict=True)
        for y, text in ((-0.07, bottom), (1.07, top))
    ]
    names = (*(d.key for d in dimensions), metric)
    return Chart(
        "Parallel coordinates",
        Axis(ticks=tuple(zip(xs, names, strict=True)), limits=(-0.35, len(xs) - 0.65)),
        Axis(limits=(-0.14, 1.14), hidden=True),
        lines,
        lines=[(x, "") for x in xs],
        labels=labels,
        scale=(f"validation {METRICS[metric]}", low, high),
        legend=False,
    )


def _column(dimension: _Dimension, values: Sequence[Any]) -> tuple[list[float], str, str]:
    if dimension.options is not None:
        positions, _, _ = _scaled([dimension.position(v) for v in values], "{}")
        return positions, str(dimension.options[0]), str(dimension.options[-1])
    numbers = [float(v) for v in values]
    positions, bottom, top = _scaled(numbers, "{:.2g}")
    if dimension.log:
        positions, _, _ = _scaled([math.log(v) for v in numbers], "{}")
    return positions, bottom, top


def _scaled(values: Sequence[float], form: str) -> tuple[list[float], str, str]:
    """Values between 0 and 1, and their two ends as texts."""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return [(v - low) / span for v in values], form.format(low), form.format(high)


def _words(record: TrialRecord, metric: Metric) -> str:
    settings = ", ".join(
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.params.items()
    )
    return (
        f"trial {record.number}, {STATES[record.state]}: {metric} {record.value:.4f}; "
        f"{settings}"
    )


def _slice(dimension: _Dimension, records: Sequence[TrialRecord], metric: Metric) -> Chart:
    series = []
    for state, word in STATES.items():
        members = [r for r in records if r.state == state]
        if members:
            series.append(
                Series(
                    word,
                    [dimension.position(r.params[dimension.key]) for r in members],
                    [r.value for r in members],
                    palette.COLOURS[state],
                    kind="points",
                    symbol=palette.SYMBOLS[state],
                    opacity=0.8,
                    hover=[_words(r, metric) for r in members],
                )
            )
    axis = Axis(f"validation {METRICS[metric]}")
    return Chart(dimension.key, dimension.axis(), axis, series, height=280)


def importance_section(contents: Contents) -> Section:
    """Importance of each setting."""
    found = contents.importance
    title = "Importance of the settings"
    if isinstance(found, str):
        return Section("importance", title, missing=f"Not shown: {found}.")
    names = list(found)[::-1]
    positions = [float(i) for i in range(len(names))]
    values = [found[name] for name in names]
    series = Series(
        "importance",
        values,
        positions,
        palette.BLUE,
        kind="bars",
        hover=[f"{value:.2f}" for value in values],
    )
    chart = Chart(
        "Share of what sets the best quarter apart",
        Axis("importance", limits=(0, max(1.1 * max(values), 0.1))),
        Axis(ticks=tuple(zip(positions, names, strict=True))),
        [series],
        height=130 + 40 * len(names),
        legend=False,
    )
    return Section(
        "importance",
        title,
        text="PED-ANOVA: how differently each setting is distributed among the best quarter "
        "of the trials and among all. With few trials, small differences are chance.",
        groups=[Group([chart])],
    )


def plane_section(contents: Contents) -> Section:
    """The search's metric over alpha and temperature."""
    key, title = "alpha-temperature", "Alpha and temperature"
    run, records = contents.run, _ranked(contents.run)
    dimensions = {dimension.key: dimension for dimension in _dimensions(run)}
    if not {"alpha", "temperature"} <= dimensions.keys():
        return Section(key, title, missing="This search does not vary both of them.")
    if not records:
        return Section(key, title, missing=NO_TRIALS)
    x, y = dimensions["temperature"], dimensions["alpha"]
    low, high = records[0].value, records[-1].value
    name = METRICS[run.metric]
    series = [
        Series(
            STATES[state],
            [x.position(r.params[x.key]) for r in members],
            [y.position(r.params[y.key]) for r in members],
            palette.GREY,
            kind="points",
            size=13,
            symbol=palette.SYMBOLS[state],
            hover=[_words(r, run.metric) for r in members],
            values=[r.value for r in members],
        )
        for state in STATES
        if (members := [r for r in records if r.state == state])
    ]
    chart = Chart(
        f"Validation {name} over temperature and alpha",
        x.axis(),
        y.axis(),
        series,
        scale=(f"validation {name}", low, high),
        height=420,
    )
    return Section(
        key,
        title,
        text="alpha is the weight of the distillation term; temperature is the divisor that "
        "softens the scores.",
        groups=[Group([chart])],
    )
