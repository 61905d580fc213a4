"""The first section: the chosen configuration and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from kdsearch.metrics.ranking import METRICS
from kdsearch.metrics.statistics import mean_and_sd

FIGURES = {
    "validation AUC": "val_auc",
    "validation AP": "val_ap",
    "test AUC": "test_auc",
    "test AP": "test_ap",
}
COLOURS = {
    "better": palette.BLUE,
    "worse": palette.VERMILION,
    "not distinguishable": palette.GREY,
}
KEY, TITLE = "verdict", "The verdict"


def verdict_section(contents: Contents) -> Section:
    """Sentences, figures over seeds, and differences with their intervals."""
    verdict, path = contents.run.verdict, contents.run.folder.verdict_file
    if not verdict:
        damage = [line for line in contents.run.damaged if line.startswith(str(path))]
        nothing = (
            "Nothing was confirmed: no configuration was trained again with new seeds, so the "
            "leaderboard's first trial may be first by chance."
        )
        return Section(KEY, TITLE, missing=next(iter(damage), nothing))
    # A single seed has a difference, but no interval.
    differences = [d for d in verdict["differences"] if d["low"] is not None]
    adaptive = verdict.get("adaptive", {}).get("ended", "")
    return Section(
        KEY,
        TITLE,
        lead=[str(sentence) for sentence in verdict["sentences"]],
        text=f"Chosen by validation {METRICS[contents.run.metric]} only; test figures are not "
        "used for the choice. Mean ± standard deviation over seeds. Baselines are fitted once, "
        "on the same training beats. The 95 % intervals cover other seeds and, where patients "
        f"are known, other patients. {adaptive}".rstrip(),
        tables=[_table(verdict)],
        groups=[Group([_forest(differences, verdict["chosen"])])] if differences else (),
    )


def _table(verdict: Mapping[str, Any]) -> Table:
    chosen = verdict["chosen"]
    # Those that could not be trained come last.
    configurations = sorted(verdict["configurations"], key=lambda c: not c["seeds"])
    rows = [_configuration(c, chosen=c["name"] == chosen) for c in configurations]
    marked = frozenset(i for i, c in enumerate(configurations) if c["name"] == chosen)
    for baseline in verdict["baselines"]:
        figures = [Cell(f"{baseline[key]:.4f}", baseline[key]) for key in FIGURES.values()]
        rows.append([Cell(str(baseline["name"])), Cell("baseline"), Cell("–", -1.0), *figures])
    columns = ["network", "role", "seeds", *FIGURES]
    return Table(columns, rows, searchable=True, marked=marked)


def _configuration(configuration: Mapping[str, Any], *, chosen: bool) -> list[Cell]:
    role = str(configuration["role"]) + (", chosen" if chosen else "")
    if configuration["reason"]:
        role += f": {configuration['reason']}"
    cells = [Cell(words(str(configuration["name"]))), Cell(role)]
    results = configuration["seeds"].values()
    cells.append(Cell(str(len(results)), float(len(results))))
    if not results:
        return [*cells, *[Cell("–", -1.0)] * len(FIGURES)]
    for key in FIGURES.values():
        mean, deviation = mean_and_sd([result[key] for result in results])
        cells.append(Cell(f"{mean:.4f} ± {deviation:.4f}", mean))
    return cells


def words(name: str) -> str:
    """Return a configuration's name in words."""
    if name.startswith("control-of-"):
        return f"{words(name.removeprefix('control-of-'))} without distillation"
    return name.replace("trial-", "trial ") if name.startswith("trial-") else name


def _forest(differences: Sequence[Mapping[str, Any]], chosen: Any) -> Chart:
    """Draw one row per difference, those of the chosen configuration at the top."""
    in_order = sorted(differences, key=lambda d: d["of"] != chosen)
    heights = [float(len(in_order) - 1 - row) for row in range(len(in_order))]
    reach = 1.05 * max(
        abs(float(end)) for d in in_order for end in (d["low"], d["high"], d["estimate"])
    )
    series = []
    for judgement in dict.fromkeys(d["judgement"] for d in in_order):
        rows = [(p, d) for p, d in zip(heights, in_order, strict=True)]
        rows = [(p, d) for p, d in rows if d["judgement"] == judgement]
        series.append(intervals(str(judgement), rows, COLOURS.get(str(judgement), palette.INK)))
    series.append(_seeds(list(zip(heights, in_order, strict=True)), reach))
    labels = [
        Label(-reach, at + 0.34, f"{words(str(d['of']))} against {words(str(d['against']))}",
              align="left")
        for at, d in zip(heights, in_order, strict=True)
    ]  # fmt: skip
    return Chart(
        "Differences in test AUC",
        Axis("test AUC: left is worse, right is better", limits=(-reach, reach)),
        Axis(limits=(-0.5, len(in_order) - 0.3), hidden=True),
        series,
        lines=[(0.0, "")],
        labels=labels,
        height=130 + 58 * len(in_order),
    )


def intervals(
    name: str, rows: Sequence[tuple[float, Mapping[str, Any]]], colour: str
) -> Series:
    """Return differences with their intervals, each at its height."""
    return Series(
        name,
        [float(d["estimate"]) for _, d in rows],
        [height for height, _ in rows],
        colour,
        kind="points",
        size=11,
        symbol="square",
        low=[float(d["low"]) for _, d in rows],
        high=[float(d["high"]) for _, d in rows],
        hover=[
            f"{d['estimate']:+.4f}, from {d['low']:+.4f} to {d['high']:+.4f}" for _, d in rows
        ],
    )


def _seeds(rows: Sequence[tuple[float, Mapping[str, Any]]], reach: float) -> Series:
    """Draw the differences of the single seeds below their mean."""
    points = [
        (float(one["estimate"]), height - 0.22, one["seed"])
        for height, d in rows
        for one in d["per_seed"]
        if one["estimate"] is not None and abs(one["estimate"]) <= reach
    ]
    return Series(
        "single seeds",
        [x for x, _, _ in points],
        [y for _, y, _ in points],
        palette.INK,
        kind="points",
        size=5,
        opacity=0.55,
        hover=[f"seed {seed}: {x:+.4f}" for x, _, seed in points],
    )
