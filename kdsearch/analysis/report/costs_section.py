"""The section on costs: each student's score and its cost per beat."""

from __future__ import annotations

from typing import Any

from kdsearch.analysis.comparison import pareto_front
from kdsearch.analysis.leaderboard import STATES
from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import Axis, Chart, Group, Section, Series
from kdsearch.analysis.report.contents import NOT_YET, Contents
from kdsearch.metrics.ranking import METRICS
from kdsearch.metrics.statistics import paired_by_seed
from kdsearch.runs.trial_folder import TrialRecord


def costs_section(contents: Contents) -> Section:
    """The metric against parameters, and the trials that no other beats in both."""
    key, title = "costs", f"{METRICS[contents.run.metric]} against cost"
    costs = contents.run.costs
    records = [r for r in contents.run.records if str(r.number) in costs and r.curve]
    records = [r for r in records if r.state != "failed"]
    if not records:
        return Section(key, title, missing=NOT_YET)
    sizes = {costs[str(r.number)]["parameters"] for r in records}
    if len(sizes) == 1:
        each = _words(costs[str(records[0].number)])
        text = f"All students of this search cost the same: {each}. {_teacher(costs)}"
        return Section(key, title, text=text)
    again = ""
    if verdict := contents.run.verdict:
        smallest = verdict.get("smallest", {}).get("sentence", "")
        squares = "Black squares were trained again, with 95 % intervals for other seeds. "
        again = squares + (f"{smallest} " if smallest else "")
    return Section(
        key,
        title,
        text="Each point is a student. Those on the line are worth their cost: no other has "
        f"a better score with fewer parameters. {again}{_teacher(costs)}",
        groups=[Group([_chart(contents, records)])],
    )


def _chart(contents: Contents, records: list[TrialRecord]) -> Chart:
    costs, metric = contents.run.costs, contents.run.metric
    points = {r.number: (costs[str(r.number)]["parameters"], r.value) for r in records}
    front = [points[number] for number in pareto_front(points)]
    series = [
        Series("worth their cost", [x for x, _ in front], [y for _, y in front], palette.INK)
    ]
    series += [
        Series(
            word,
            [costs[str(r.number)]["parameters"] for r in members],
            [r.value for r in members],
            palette.COLOURS[state],
            kind="points",
            symbol=palette.SYMBOLS[state],
            hover=[
                f"trial {r.number}: {metric} {r.value:.4f}, {_words(costs[str(r.number)])}"
                for r in members
            ],
        )
        for state, word in STATES.items()
        if (members := [r for r in records if r.state == state])
    ]
    if confirmed := _confirmed(contents):
        series.append(confirmed)
    if "teacher" in costs and contents.run.teacher:
        cost, value = costs["teacher"], contents.run.teacher[metric]
        series.append(
            Series(
                "teacher",
                [cost["parameters"]],
                [value],
                palette.TEACHER,
                kind="points",
                symbol="star",
                size=14,
                hover=f"teacher: {metric} {value:.4f}, {_words(cost)}",
            )
        )
    return Chart(
        f"Validation {METRICS[metric]} against parameters",
        Axis("parameters", log=True),
        Axis(f"validation {METRICS[metric]}"),
        series,
        height=420,
    )


def _confirmed(contents: Contents) -> Series | None:
    """Candidates of the confirmation: mean over seeds, with its 95 % interval for seeds."""
    costs, metric = contents.run.costs, contents.run.metric
    found = []
    for configuration in contents.run.verdict.get("configurations", ()):
        number = configuration["name"].removeprefix("trial-")
        values = [result[metric] for result in configuration["seeds"].values()]
        if configuration["role"] == "candidate" and number in costs and len(values) > 1:
            interval = paired_by_seed(values, [0.0] * len(values))
            found.append((number, len(values), interval))
    if not found:
        return None
    return Series(
        "trained again",
        [costs[number]["parameters"] for number, _, _ in found],
        [interval.estimate for _, _, interval in found],
        palette.INK,
        kind="points",
        symbol="square",
        low=[interval.low for _, _, interval in found],
        high=[interval.high for _, _, interval in found],
        upright=True,
        hover=[
            f"trial {number}: mean {metric} of {seeds} seeds {interval.estimate:.4f}, from "
            f"{interval.low:.4f} to {interval.high:.4f}"
            for number, seeds, interval in found
        ],
    )


def _teacher(costs: dict[str, Any]) -> str:
    return f"The teacher: {_words(costs['teacher'])}." if "teacher" in costs else ""


def _words(cost: dict[str, Any]) -> str:
    return (
        f"{cost['parameters']:,} parameters, {cost['operations']:,} multiply-adds and "
        f"{cost['microseconds']:.0f} µs a beat"
    )
