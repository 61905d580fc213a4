"""Read access to a run folder, for notebooks and the command line."""

from __future__ import annotations

import html
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from kdsearch.analysis.leaderboard import (
    STATES,
    best_record,
    leaderboard,
    leaderboard_of_generations,
)
from kdsearch.config.dimensions import Dimension, Value, finite_points, parse_dimension
from kdsearch.config.space_file import read_yaml
from kdsearch.errors import RunError
from kdsearch.files.bucket import BucketPath, Place, parse_path
from kdsearch.metrics.ranking import Metric
from kdsearch.metrics.threshold import Rule, parse_rule
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.learned import Learned
from kdsearch.runs.study import trials_in_all
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.student.student import Student, load_student
from kdsearch.texts import BEAT

COSTS = ("parameters", "multiply_adds", "microseconds")
SHOWN_IN_NOTEBOOK = 10
# Columns of `Run.trials`; those of the method's losses follow.
EPOCH_COLUMNS = ("trial", "state", "epoch", "val_auc", "val_ap", "seconds")


@dataclass(frozen=True)
class Best:
    """The trial that a search ends with.

    Attributes:
        trial: Its number.
        params: Its searched values.
        value: The search's metric at its best epoch, on the validation beats.
        epoch: The epoch that reached it.
        metrics: Figures of this student on the validation and test beats, flat, by the name of
            the set; empty before the search's end.
    """

    trial: int
    params: dict[str, Value]
    value: float
    epoch: int | float
    metrics: dict[str, dict[str, float]] = field(repr=False)


@dataclass(frozen=True)
class Run:
    """The content of a run folder when it was read, at any state of the search.

    Attributes:
        config: The content of ``search.yaml``.
        records: The record of each trial, by number.
        teacher: The content of ``teacher.json``, empty before there is one.
        verdict: The content of ``verdict.json``, empty before there is one.
        costs: The content of ``costs.json``, empty before there is one.
        metrics: The content of ``best/metrics.json``, empty before the search's end.
        damaged: What is wrong with files that are left out because of it, a line each.
        learned: What its sampler took over from earlier runs.
    """

    folder: RunFolder
    config: dict[str, Any]
    records: list[TrialRecord]
    teacher: dict[str, Any]
    metrics: dict[str, Any]
    verdict: dict[str, Any]
    costs: dict[str, Any]
    damaged: list[str] = field(default_factory=list)
    generations: list[Run] = field(default_factory=list)
    descent: dict[str, Any] = field(default_factory=dict)
    learned: list[Learned] = field(default_factory=list)

    @property
    def generation(self) -> int | None:
        """Which generation of a search this is; None if it is a search of its own."""
        path = self.folder.path
        number = path.name if path.parent.name == "generations" else ""
        return int(number) if number.isdecimal() else None

    @property
    def planned_generations(self) -> int:
        """How many generations were asked for at most."""
        return int(self.config["search"].get("generations", 1))

    @property
    def result(self) -> Run:
        """The generation that is the result, or this run if it has no generations."""
        if not self.generations:
            return self
        number = int(self.descent.get("result", len(self.generations)))
        return self.generations[min(number, len(self.generations)) - 1]

    @property
    def path(self) -> Place:
        """The run folder."""
        return self.folder.path

    @property
    def unit(self) -> str:
        """What a beat is called, in the singular."""
        data = self.config.get("data")
        return str(data.get("unit", BEAT)) if isinstance(data, dict) else BEAT

    @property
    def threshold_rule(self) -> Rule:
        """How the student's threshold was chosen.

        Raises:
            RunError: That in ``search.yaml`` is not valid.
        """
        try:
            return parse_rule(self.config.get("threshold", "f1"))
        except ValueError as error:
            raise RunError(f"{self.folder.config_file}: damaged: threshold: {error}") from None

    @property
    def searched(self) -> list[str]:
        """Names of the searched settings, in the space file's order."""
        return [key for key, entry in self.config["space"].items() if isinstance(entry, dict)]

    @property
    def metric(self) -> Metric:
        """What the search maximises, on the validation beats."""
        return metric_of(self.config)

    @property
    def cost_objectives(self) -> list[str]:
        """Names of the objectives beside the metric."""
        objectives = self.config["search"].get("objectives", ())
        return [name for name in objectives if name in COSTS]

    @property
    def space(self) -> dict[str, Dimension]:
        """The searched settings.

        Raises:
            RunError: That in ``search.yaml`` is not valid.
        """
        try:
            return {key: parse_dimension(self.config["space"][key]) for key in self.searched}
        except ValueError as error:
            raise RunError(f"{self.folder.config_file}: damaged: space: {error}") from None

    @property
    def planned(self) -> int:
        """Trials in all: ``num_samples``, or fewer where the space has fewer within limits."""
        search = self.config["search"]
        points = None if search.get("repeats") else finite_points(self.space)
        return trials_in_all(int(search["num_samples"]), points, self.records)

    @property
    def progress(self) -> list[str]:
        """How far the search is, and what its sampler learned or suggested twice."""
        counts = Counter(record.state for record in self.records)
        parts = [f"{counts[state]} {word}" for state, word in STATES.items() if counts[state]]
        planned = self.planned
        if len(self.records) < planned:
            parts.append(f"{planned - len(self.records)} to come")
        lines = [f"{planned} trials: {', '.join(parts) or 'none yet'}"]
        if planned < self.config["search"]["num_samples"]:
            within = " within its limits" if self.config["search"].get("constraints") else ""
            lines[0] += f"; the space has no more{within}"
        if repeats := sum(record.repeats for record in self.records):
            lines.append(
                f"{repeats} suggestions repeated an earlier trial and were not trained"
            )
        return [*map(str, self.learned), *lines]

    @property
    def best(self) -> Best | None:
        """The trial whose student is in ``best/``; during the search, the leading trial.

        None before any trial has finished an epoch.
        """
        if self.generations:
            return self.result.best
        record = best_record(self.records)
        if self.metrics:
            chosen = {r.number: r for r in self.records}.get(self.metrics["trial"])
            record = chosen or record
        if record is None:
            return None
        figures = dict(self.metrics.get("student", {}))
        return Best(record.number, record.params, record.value, record.best_epoch, figures)

    def about_teacher(self) -> list[str]:
        """A line on a teacher that is not one network trained by this search."""
        origin = self.teacher.get("origin")
        if not origin:
            return []
        note = f"; {origin['note']}" if origin["note"] else ""
        return [f"The teacher: {origin['kind']}{note}."]

    def leaderboard(self) -> pd.DataFrame:
        """A row per trial, the best on validation first."""
        if self.generations:
            return leaderboard_of_generations(
                {number: one.records for number, one in enumerate(self.generations, start=1)},
                self.searched,
                self.cost_objectives,
                self.metric,
            )
        return leaderboard(self.records, self.searched, self.cost_objectives, self.metric)

    def trials(self) -> pd.DataFrame:
        """A row per trial and epoch: the epoch's own figures and every term of its loss."""
        rows = [
            {
                "trial": record.number,
                "state": record.state,
                "epoch": report.epoch,
                "val_auc": report.val_auc,
                "val_ap": report.val_ap,
                "seconds": report.seconds,
                **{f"loss.{name}": value for name, value in report.losses.items()},
            }
            for record in self.records
            for report in self.folder.trial(record.number).history()
        ]
        return pd.DataFrame(rows, columns=None if rows else list(EPOCH_COLUMNS))

    def student(self) -> Student:
        """The best student, ready to score raw beats.

        Raises:
            UserError: As `load_student`, for example before the search's end.
        """
        return load_student(self.path)

    def __repr__(self) -> str:
        best = self.best
        leading = "" if best is None else f", best {self.metric} {best.value:.4f}"
        return f"<Run {self.path}: {len(self.records)} trials{leading}>"

    def _repr_html_(self) -> str:
        """Return the first rows of the leaderboard and the verdict, for notebooks."""
        table = self.leaderboard().head(SHOWN_IN_NOTEBOOK)
        # Escaped, because a run folder may come from another person.
        sentences = [html.escape(s) for s in self.verdict.get("sentences", ())]
        verdict = "".join(f"<li>{sentence}</li>" for sentence in sentences)
        return (
            f"<p>{html.escape(repr(self)[1:-1])}</p>"
            + table.to_html(index=False, na_rep="", float_format=_figure)
            + (f"<ul>{verdict}</ul>" if verdict else "")
        )


def open_run(path: str | os.PathLike[str] | BucketPath) -> Run:
    """Read a run folder, whatever state its search is in; nothing in it is executed.

    Raises:
        RunError: It is not a run folder, or it is damaged.
    """
    folder = RunFolder.existing(parse_path(path))
    config = read_yaml(folder.config_file)
    config = config if isinstance(config, dict) else {}
    for section in ("student", "space", "search"):
        if not isinstance(config.get(section), dict):
            raise RunError(f"{folder.config_file}: damaged: it has no section '{section}'")
    damaged: list[str] = []

    def derived(path: Place) -> dict[str, Any]:
        try:
            return folder.read_derived(path)
        except RunError as error:
            damaged.append(str(error))
            return {}

    if not isinstance(config["search"].get("num_samples"), int):
        raise RunError(f"{folder.config_file}: damaged: search.num_samples is no number")
    learned: list[Learned] = []
    try:
        learned = folder.read_learned() or []
    except RunError as error:
        damaged.append(str(error))
    teacher, costs = derived(folder.teacher_file), derived(folder.costs_file)
    if not teacher:
        costs.pop("teacher", None)
    return Run(
        folder=folder,
        config=config,
        records=folder.records(metric_of(config)),
        teacher=teacher,
        metrics=derived(folder.best / "metrics.json"),
        costs={name: cost for name, cost in costs.items() if _is_cost(cost)},
        verdict=derived(folder.verdict_file),
        damaged=damaged,
        generations=[open_run(one.path) for one in folder.generation_folders()],
        descent=derived(folder.descent_file),
        learned=learned,
    )


def metric_of(config: Mapping[str, Any]) -> Metric:
    """Return what the search with this ``search.yaml`` maximises."""
    objectives = config["search"].get("objectives")
    names = objectives if isinstance(objectives, list) else ()
    return "val_ap" if "val_ap" in names else "val_auc"


def _is_cost(cost: object) -> bool:
    keys = ("parameters", "operations", "microseconds")
    return isinstance(cost, Mapping) and all(
        isinstance(cost.get(key), int | float) and cost[key] > 0 for key in keys
    )


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
