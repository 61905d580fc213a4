"""Estimate the cost of a search without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from kdsearch.config.space_file import Config
from kdsearch.data.beats import Dataset
from kdsearch.methods.protocol import Compute
from kdsearch.texts import in_unit
from kdsearch.tuning.teacher import fingerprint


def describe_plan(config: Config, dataset: Dataset, compute: Compute, cache: Path) -> str:
    """The resolved configuration as YAML, and its cost as comments."""
    name = fingerprint(config.method, config.teacher, dataset, compute)
    cached = (cache / "teachers" / name / "teacher.json").exists()
    teacher_epochs = 0 if cached else int(cast("Any", config.teacher).epochs)
    beats = len(dataset.training.train)
    most = config.trials * config.max_epochs()
    lines = [
        f"data: {dataset.description}",
        *dataset.notes,
        f"beats: {beats:,} to train on, {len(dataset.training.validation.x):,} to validate, "
        f"{len(dataset.test.x):,} to test",
        f"teacher: {'in the cache, ' if cached else ''}{teacher_epochs} epochs to train",
        f"students: {config.trials} trials, at most {most} epochs, "
        f"about {_expected_epochs(config):.0f} if ASHA stops as it is meant to",
        f"an epoch passes {beats:,} beats{_batch_sizes(config)}",
    ]
    comments = in_unit("".join(f"# {line}\n" for line in lines), dataset.unit)
    return comments + yaml.safe_dump(config.as_dict(), sort_keys=False)


def _expected_epochs(config: Config) -> float:
    """Trial-epochs if exactly one of ``reduction_factor`` trials passes each rung."""
    last = config.max_epochs()
    if config.scheduler.name == "none":
        return float(config.trials * last)
    factor = config.scheduler.reduction_factor
    rung, share, epochs = float(config.scheduler.grace_period), 1.0, 0.0
    before = 0.0
    while rung < last:
        epochs += share * (rung - before)
        before, rung, share = rung, rung * factor, share / factor
    return config.trials * (epochs + share * (last - before))


def _batch_sizes(config: Config) -> str:
    """In words; a method of a user's own may know no mini-batches."""
    students = [config.student_settings(point) for point in config.corners()]
    sizes = {int(s.batch_size) for s in cast("Any", students) if hasattr(s, "batch_size")}
    if not sizes:
        return ""
    return (
        f" in mini-batches of {' to '.join(str(s) for s in sorted({min(sizes), max(sizes)}))}"
    )
