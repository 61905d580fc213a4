"""The leaderboard: pandas tables of the trials of a study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import yaml

from kdsearch.metrics.ranking import METRICS, Metric
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.texts import one_line, printable

# The columns in order, with that of the search's metric behind the state. The searched settings
# are between these two groups.
LEADING = ("rank", "trial", "state", "best_epoch", "epochs")
TRAILING = ("seconds", "reason")
# Marks the trials that no other beats in all objectives.
FRONT = "front"
# With several runs a first column names the run.
RUN = "run"
# A search of several generations has this column behind the rank.
GENERATION = "generation"
# What people read for the state of a trial.
STATES: dict[TrialState, str] = {
    "completed": "completed",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "running or interrupted",
}

Format = Literal["table", "csv", "markdown", "json"]


def leading(metric: Metric) -> list[str]:
    """Return the first columns, where ``metric`` is what trials are ranked by."""
    return [*LEADING[:3], metric, *LEADING[3:]]


def ranked(table: pd.DataFrame, metric: Metric) -> pd.Series[Any]:
    """Return the rank of each row; failed trials and those without an epoch have none."""
    counts = (table["state"] != "failed") & table[metric].notna()
    values = table[metric].astype(float).where(counts)
    return values.rank(method="min", ascending=False).astype("Int64")


def ranked_together(tables: Sequence[pd.DataFrame], metric: Metric) -> pd.DataFrame:
    """Return the rows of several leaderboards as one."""
    table = pd.concat(tables, ignore_index=True)
    table["rank"] = ranked(table, metric)
    return table.sort_values("rank", na_position="last", kind="stable", ignore_index=True)


def leaderboard(
    records: Sequence[TrialRecord],
    searched: Sequence[str],
    costs: Sequence[str] = (),
    metric: Metric = "val_auc",
) -> pd.DataFrame:
    """Return one row per trial, the best on validation first.

    Failed trials and trials without an epoch have no rank and come last. Equal trials share
    the better rank, in the order of their numbers.

    Args:
        records: Of one study, in any order.
        searched: Names of the searched settings, in the order of their columns.
        costs: Objectives beside the metric: a column each, and one that marks the trials on
            the `front`.
        metric: The records' own, by which they are ranked.
    """
    of_costs = [*costs, FRONT] if costs else []
    columns = [*leading(metric), *map(column_of, searched), *of_costs, *TRAILING]
    on_front = set(front(records, costs))
    rows = [
        {
            "trial": record.number,
            "state": record.state,
            metric: record.value,
            "best_epoch": record.best_epoch,
            "epochs": record.epochs,
            **{column_of(key): record.params.get(key) for key in searched},
            **{name: record.costs.get(name) for name in costs},
            FRONT: "yes" if record.number in on_front else "",
            "seconds": record.seconds,
            "reason": one_line(record.reason),
        }
        for record in records
    ]
    table = pd.DataFrame(rows, columns=columns)
    table["rank"] = ranked(table, metric)
    return table.sort_values(
        ["rank", "trial"], na_position="last", ignore_index=True, kind="stable"
    )


def leaderboard_of_generations(
    generations: Mapping[int, Sequence[TrialRecord]],
    searched: Sequence[str],
    costs: Sequence[str] = (),
    metric: Metric = "val_auc",
) -> pd.DataFrame:
    """A row per trial of any generation, the best on validation first.

    Args:
        generations: The trials of each generation, by its number.
        searched: As of `leaderboard`.
        costs: Likewise; each generation has its own front.
        metric: Likewise.
    """
    tables = []
    for number, records in generations.items():
        table = leaderboard(records, searched, costs, metric)
        table.insert(1, GENERATION, number)
        tables.append(table)
    return ranked_together(tables, metric)


def front(records: Sequence[TrialRecord], costs: Sequence[str]) -> list[int]:
    """Numbers of the trials that no other beats, the best on validation first.

    One trial beats another if none of its objectives is worse and one is better.
    """
    points = {
        record.number: (-record.value, *(record.costs[name] for name in costs))
        for record in records
        if record.state != "failed" and record.curve and record.costs.keys() >= set(costs)
    }

    def beaten(point: tuple[float, ...]) -> bool:
        return any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )

    found = [number for number, point in points.items() if not beaten(point)]
    return sorted(found, key=lambda number: (points[number], number))


def column_of(setting: str) -> str:
    """Return the column of a searched setting: ``space.epochs`` if ``epochs`` is taken."""
    taken = (*LEADING, *METRICS, *TRAILING, RUN, GENERATION)
    return f"space.{setting}" if setting in taken else setting


def best_record(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the first trial of the leaderboard, or None if no trial has a rank."""
    ranked = [r for r in records if r.state != "failed" and not math.isnan(r.value)]
    return max(ranked, key=lambda r: (r.value, -r.number), default=None)


def render(table: pd.DataFrame, form: Format) -> str:
    """Return the table as text.

    ``json`` is a list of objects with the columns as keys; a missing figure is null.
    """
    if form == "csv":
        return table.to_csv(index=False).rstrip("\n")
    if form == "json":
        # Not `to_json`, which truncates numbers after fifteen decimal places.
        plain = table.astype(object)
        return json.dumps(plain.where(table.notna(), None).to_dict("records"))
    shown = rounded(table)
    if form == "table":
        return str(shown.to_string(index=False))
    rows = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows
    )


def best_yaml(config: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return the best configuration as sections ``student`` and ``space`` in YAML."""
    space = {**config["space"], **params}
    return yaml.safe_dump({"student": config["student"], "space": space}, sort_keys=False)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as rounded texts, without control codes."""
    return pd.DataFrame(
        {
            _clean(column): [_text(str(column), value) for value in table[column]]
            for column in table.columns
        }
    )


def _text(column: str, value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        if column.endswith(("auc", "ap")):
            return f"{value:.4f}"
        return f"{value:.1f}" if column == "seconds" else f"{value:.3g}"
    return _clean(value)


def _clean(value: object) -> str:
    return printable(str(value)).replace("\n", " ")
