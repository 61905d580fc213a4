"""Summaries of finished, running and killed searches, as the commands print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from kdsearch.analysis.comparison import over_compute, over_trials, pareto_front
from kdsearch.analysis.leaderboard import (
    GENERATION,
    RUN,
    STATES,
    Format,
    best_record,
    best_yaml,
    leaderboard,
    ranked_together,
    render,
    rounded,
)
from kdsearch.analysis.run import Run
from kdsearch.analysis.terminal import Screen, draw, judged
from kdsearch.errors import ConfigError
from kdsearch.metrics.ranking import METRICS
from kdsearch.metrics.statistics import mean_and_sd
from kdsearch.texts import did_you_mean, in_unit, printable

# A pipe or a file: no colours, and no limit of the width.
PIPE = Screen()
# Columns that are left out on a narrow terminal, in this order.
DISPENSABLE = ("seconds", "best_epoch", "epochs")
# Sorted in ascending order; all other columns in descending order.
ASCENDING = ("rank", "trial", "state", "reason", "run")
# Figures of the best student at its own threshold.
TEST_FIGURES = {"AUC": "roc_auc", "AP": "average_precision"}
AT_THRESHOLD = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "PPV": "ppv",
    "F1": "f1",
}
COVERS = {
    ("seeds", "patients"): "The intervals are for other seeds and other patients.",
    (
        "seeds",
        "beats",
    ): "The intervals are for other seeds and other beats; the patients are not known.",
}


def summarise(
    runs: Sequence[Run],
    *,
    top: int | None = None,
    sort: str | None = None,
    states: Sequence[str] | None = None,
    form: Format = "table",
    screen: Screen = PIPE,
) -> str:
    """Return the leaderboard of one or several runs with verdict, costs and hints.

    Args:
        runs: With several, all trials are ranked together.
        top: Maximum number of rows.
        sort: Column to sort by instead of the rank.
        states: Only trials in these states.
        form: ``csv`` and ``json`` hold the trials alone, for other programs.
        screen: The terminal that shows a ``table``.

    Raises:
        ConfigError: There is no such column or state, or the runs are over different data.
    """
    _refuse_incomparable(runs)
    for run in runs:
        # The folder may be another person's, and not writable.
        with suppress(OSError):
            run.folder.write_leaderboard(run.leaderboard().to_csv(index=False))
    if len(runs) == 1 and runs[0].generations:
        return _of_generations(runs[0], form, screen, top=top, sort=sort, states=states)
    table = _select(_table(runs), top=top, sort=sort, states=states)
    if form in ("csv", "json"):
        return render(table, form)
    columns = list(table.columns)
    table = pd.concat([table.astype(object), *map(_teacher_row, runs)], ignore_index=True)
    table = table[[c for c in columns if c != "reason" or table[c].astype(bool).any()]]
    heads = [printable(_headline(run)) for run in runs]
    tails = [_best(run, form, screen) for run in runs]
    if len(runs) > 1:
        tails = [*_compared(runs, form), *tails]
    best = [index for index, rank in enumerate(table["rank"]) if pd.notna(rank) and rank == 1]
    shown = _shown(table, form, screen, marked=best, dispensable=DISPENSABLE)
    # All runs are over the same data.
    return in_unit("\n\n".join([*heads, shown, *filter(None, tails)]), runs[0].unit)


def _of_generations(
    run: Run,
    form: Format,
    screen: Screen,
    *,
    top: int | None,
    sort: str | None,
    states: Sequence[str] | None,
) -> str:
    """The trials of all generations, the line of descent, and the result as a search."""
    table = _select(run.leaderboard(), top=top, sort=sort, states=states)
    if form in ("csv", "json"):
        return render(table, form)
    parts = [
        f"{run.folder.path}: {len(run.generations)} of {run.planned_generations} generations",
        _shown(table, form, screen, dispensable=DISPENSABLE),
    ]
    if run.descent:
        rows = [
            {
                GENERATION: one["generation"],
                "trial": one["trial"],
                run.metric: one[run.metric],
                "test_auc": one["test_auc"],
                "test_ap": one["test_ap"],
                "seeds": one["seeds"],
            }
            for one in run.descent["generations"]
        ]
        parts.append("the best student of each generation, means over new seeds")
        parts.append(_shown(pd.DataFrame(rows), form, screen))
        parts.append("\n".join(map(printable, run.descent["sentences"])))
        parts.append(printable(run.descent["ended"]))
    result = run.result
    parts.append(f"generation {result.generation}, the result:")
    parts += filter(None, [printable(_headline(result)), _best(result, form, screen)])
    return in_unit("\n\n".join(parts), run.unit)


def _shown(
    table: pd.DataFrame,
    form: Format,
    screen: Screen,
    *,
    marked: Sequence[int] = (),
    dispensable: Sequence[str] = (),
) -> str:
    if form == "markdown":
        return render(table, form)
    return draw(rounded(table), screen, marked=marked, dispensable=dispensable)


def _refuse_incomparable(runs: Sequence[Run]) -> None:
    """Refuse runs on different data, or by other metrics: their figures cannot be compared."""
    for run in runs:
        if run.metric != runs[0].metric:
            raise ConfigError(
                f"{runs[0].folder.path} and {run.folder.path}: a search by {runs[0].metric} "
                f"and one by {run.metric} cannot be ranked together: analyze each alone"
            )
    known = {
        str(run.folder.path): str(run.teacher["data"]["fingerprint"])
        for run in runs
        if run.teacher
    }
    for path, fingerprint in known.items():
        first, of_first = next(iter(known.items()))
        if fingerprint != of_first:
            raise ConfigError(
                f"{first} and {path}: searches over different data cannot be ranked together "
                f"(fingerprints {of_first[:12]} and {fingerprint[:12]}): analyze each alone"
            )


def _compared(runs: Sequence[Run], form: Format) -> list[str]:
    """Return the best value of each run by number of trials and by training time."""
    metric = runs[0].metric
    records = {str(run.folder.path): run.records for run in runs}
    blocks = {
        f"best {metric} so far, by trials": over_trials(records),
        f"best {metric} so far, by seconds of training": over_compute(records).round(
            {"seconds": 0}
        ),
    }
    return [f"{title}\n\n{_figures(table, form)}" for title, table in blocks.items()]


def _figures(table: pd.DataFrame, form: Format) -> str:
    shown = table.astype(object)
    for column in table.columns[1:]:
        shown[column] = [f"{v:.4f}" if pd.notna(v) else "-" for v in table[column]]
    shown[table.columns[0]] = [f"{v:.0f}" for v in table[table.columns[0]]]
    return render(shown, form)


def _table(runs: Sequence[Run]) -> pd.DataFrame:
    if len(runs) == 1:
        return runs[0].leaderboard()
    metric = runs[0].metric
    searched = list(dict.fromkeys(key for run in runs for key in run.searched))
    tables = []
    for run in runs:
        table = leaderboard(run.records, searched, metric=metric)
        table.insert(0, RUN, str(run.folder.path))
        tables.append(table)
    return ranked_together(tables, metric)


def _select(
    table: pd.DataFrame, *, top: int | None, sort: str | None, states: Sequence[str] | None
) -> pd.DataFrame:
    for state in states or ():
        _refuse_unknown("--state", state, list(STATES))
    if states:
        table = table[table["state"].isin(states)]
    if sort is not None:
        _refuse_unknown("--sort", sort, list(table.columns))
        table = table.sort_values(
            sort, ascending=sort in ASCENDING, kind="stable", key=_comparable
        )
    if top is not None:
        if top < 1:
            raise ConfigError(f"--top: must be at least 1, but found {top}")
        table = table.head(top)
    return table.reset_index(drop=True)


def _comparable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return the values, or their texts if words and numbers are mixed."""
    kinds = {isinstance(value, str) for value in column.dropna()}
    return column.map(str, na_action="ignore") if len(kinds) > 1 else column


def _refuse_unknown(flag: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{flag}: there is no '{value}' ({did_you_mean(value, known)})")


def _teacher_row(run: Run) -> pd.DataFrame:
    if not run.teacher:
        return pd.DataFrame()
    row = {
        "run": str(run.folder.path),
        "trial": "teacher",
        "state": "",
        run.metric: run.teacher[run.metric],
        "best_epoch": run.teacher["best_epoch"],
        "epochs": run.teacher["epochs"],
        "seconds": run.teacher["seconds"],
        "reason": "",
    }
    return pd.DataFrame([row], dtype=object)


def _headline(run: Run) -> str:
    lines = [str(run.folder.path)]
    if run.teacher:
        lines[0] += f": {run.teacher['data']['description']}"
        if run.teacher["data"]["simulated"]:
            lines.append("The beats are simulated; the figures are not valid for patients.")
        lines += run.teacher["data"].get("notes", [])
        lines += run.about_teacher()
    lines += _hints(run)
    lines += [f"{text}; --resume computes it again" for text in run.damaged]
    lines += run.progress
    return "\n".join(lines)


def _hints(run: Run) -> list[str]:
    """Return hints for a best value of 1 or below chance."""
    best = best_record(run.records)
    if best is None:
        return []
    limit = run.config.get("data", {}).get("validation_limit")
    words = f"Hint: the best validation {METRICS[run.metric]} is"
    if best.value == 1:
        few = f" (data.validation_limit is {limit})" if limit else ""
        return [
            f"{words} 1, so the validation beats cannot rank the trials{few}: use more "
            "validation beats."
        ]
    # The expected value of scores that mean nothing; 0 where it is not known.
    chance = 0.5
    if run.metric != "val_auc":
        chance = float(run.teacher.get("data", {}).get("abnormal_in_validation", 0.0))
    if best.value < chance:
        return [
            f"{words} {best.value:.4f}, which is worse than chance ({chance:.4f}): check which "
            "beats are labelled abnormal, and search with more beats and epochs."
        ]
    return []


def _best(run: Run, form: Format, screen: Screen) -> str:
    best = best_record(run.records)
    if best is None:
        return ""
    blocks = []
    if run.verdict:
        blocks.append(_verdict(run.verdict, form, screen))
    if run.metrics:
        at = f"Sensitivity, specificity, PPV and F1 at {run.threshold_rule}."
        note = f"{at}{_of_new_patients(run.metrics)}"
        blocks.append(f"{_shown(_measured(run), form, screen)}\n{note}")
    if run.costs:
        blocks.append(_shown(_front(run), form, screen))
    blocks.append(
        f"# best configuration of {run.folder.path} (trial {best.number}), ready to paste\n"
        + best_yaml(run.config, best.params).rstrip()
    )
    return "\n\n".join([*blocks[:-1], printable(blocks[-1])])


def _front(run: Run) -> pd.DataFrame:
    """Return the Pareto front of the metric and parameters, and the teacher."""
    title = f"{METRICS[run.metric]} against cost"
    known = {str(r.number): r for r in run.records if r.state != "failed"}
    points = {
        int(number): (cost["parameters"], known[number].value)
        for number, cost in run.costs.items()
        if number in known and known[number].curve
    }
    names = [str(number) for number in pareto_front(points)]
    rows = [
        {
            title: "teacher" if name == "teacher" else f"trial {name}",
            run.metric: _figure(
                run.teacher[run.metric] if name == "teacher" else known[name].value
            ),
            "parameters": f"{run.costs[name]['parameters']:,}",
            "multiply-adds": f"{run.costs[name]['operations']:,}",
            "µs per beat": f"{run.costs[name]['microseconds']:.0f}",
        }
        for name in [*names, *(["teacher"] if "teacher" in run.costs else [])]
    ]
    return pd.DataFrame(rows)


def _verdict(verdict: Mapping[str, Any], form: Format, screen: Screen) -> str:
    """The chosen configuration against every other, and one sentence; more is in the report."""
    chosen = verdict["chosen"]
    if chosen is None:
        return "verdict: none, because no candidate could be trained again"
    differences = [d for d in verdict["differences"] if d["of"] == chosen]
    rows = [
        {
            "compared with": _words(d["against"]),
            "difference": "-" if d["estimate"] is None else f"{d['estimate']:+.4f}",
            "95 % interval": "-"
            if d["low"] is None
            else f"{d['low']:+.4f} to {d['high']:+.4f}",
            "verdict": "not compared" if d["estimate"] is None else d["judgement"],
        }
        for d in differences
    ]
    (trained,) = [c["seeds"] for c in verdict["configurations"] if c["name"] == chosen]
    mean, deviation = mean_and_sd([result["test_auc"] for result in trained.values()])
    seeds = len(trained)
    head = (
        f"verdict on {_words(chosen)}, chosen on validation alone: test AUC {mean:.4f} ± "
        f"{deviation:.4f} over {seeds} seed{'s' * (seeds != 1)}"
    )
    compared = {
        _words(d["against"]): printable(str(d["judgement"]))
        for d in differences
        if d["estimate"] is not None
    }
    # Why a control is left out, for example.
    reasons = [printable(d["sentence"]) for d in differences if d["estimate"] is None]
    said = judged(_words(chosen), compared)
    table = [_shown(pd.DataFrame(rows), form, screen)] if rows else []
    covers = {tuple(d["covers"]) for d in differences if d["low"] is not None}
    scope = [COVERS[c] for c in sorted(covers) if c in COVERS]
    smallest = printable(verdict.get("smallest", {}).get("sentence", ""))
    ended = printable(verdict.get("adaptive", {}).get("ended", ""))
    return "\n".join([head, *table, *filter(None, [smallest, said, *scope, *reasons, ended])])


def _words(name: str) -> str:
    """Return a configuration's name in words."""
    if name.startswith("control-of-"):
        return "the same without distillation"
    if name == "teacher":
        return "the teacher's recipe"
    return printable(name.replace("trial-", "trial "))


def _measured(run: Run) -> pd.DataFrame:
    """Best student and teacher on the test beats, side by side, at their own thresholds."""
    rows = []
    for name in ("student", "teacher"):
        test = run.metrics[name]["test"]
        row = {"test": f"trial {run.metrics['trial']}" if name == "student" else name}
        row |= {title: _figure(test[key]) for title, key in TEST_FIGURES.items()}
        row |= {
            title: _figure(test["confusion"].get(key)) for title, key in AT_THRESHOLD.items()
        }
        for label, of_class in test["classes"].items():
            if "roc_auc" in of_class:
                row[f"AUC {label}"] = _figure(of_class["roc_auc"])
        rows.append(row)
    return pd.DataFrame(rows)


def _of_new_patients(metrics: Mapping[str, Any]) -> str:
    """Return figures without patients in training; empty if there are none."""
    figures = [
        f"{name} AUC {_figure(new['roc_auc'])}, AP {_figure(new['average_precision'])}"
        for name in ("student", "teacher")
        if (new := metrics[name].get("test_new_patients"))
    ]
    if not figures:
        return ""
    return (
        "\nWithout the test records of patients who have another record in training or "
        f"validation: {'; '.join(figures)}."
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
