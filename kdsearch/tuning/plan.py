"""Estimate the cost of a search without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from kdsearch.config.space_file import Config
from kdsearch.data.beats import Dataset
from kdsearch.methods.protocol import Compute
from kdsearch.teachers.existing import read_sources, realise
from kdsearch.texts import in_unit
from kdsearch.tuning.teacher import fingerprint, with_seed


def describe_plan(config: Config, dataset: Dataset, compute: Compute, cache: Path) -> str:
    """The resolved configuration as YAML, and its cost as comments."""
    beats = len(dataset.training.train)
    most = config.trials * config.max_epochs()
    students = [config.student_settings(point) for point in config.corners()]
    # A method of a user's own may know no mini-batches.
    sizes = {int(s.batch_size) for s in cast("Any", students) if hasattr(s, "batch_size")}
    extremes = sorted({min(sizes), max(sizes)}) if sizes else []
    batches = f" in mini-batches of {' to '.join(map(str, extremes))}" if sizes else ""
    lines = [
        f"data: {dataset.description}",
        *dataset.notes,
        f"beats: {beats:,} to train on, {len(dataset.training.validation.x):,} to validate, "
        f"{len(dataset.test.x):,} to test",
        f"teacher: {_teacher(config, dataset, compute, cache)}",
        f"students: {config.trials} trials, at most {most} epochs, "
        f"about {_expected_epochs(config):.0f} if ASHA stops as it is meant to",
        f"an epoch passes {beats:,} beats{batches}",
    ]
    comments = in_unit("".join(f"# {line}\n" for line in lines), dataset.unit)
    return comments + yaml.safe_dump(config.as_dict(), sort_keys=False)


def _teacher(config: Config, dataset: Dataset, compute: Compute, cache: Path) -> str:
    if config.teacher_source.exists:
        existing = realise(read_sources(config), config, dataset, compute, cache)
        return f"{existing.origin['kind']}, val_auc {existing.val_auc:.4f}, nothing to train"
    recipe = cast("Any", config.teacher)
    members = [with_seed(recipe, recipe.seed + i) for i in range(config.teacher_source.members)]
    names = [fingerprint(config.method, member, dataset, compute) for member in members]
    cached = sum((cache / "teachers" / name / "teacher.json").exists() for name in names)
    epochs = (len(members) - cached) * int(recipe.epochs)
    return f"{'in the cache, ' if not epochs else ''}{epochs} epochs to train"


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
