"""Copy runs into an Optuna storage, for optuna-dashboard; the runs are not changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsearch.analysis.run import Run
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.study import frozen_trial
from kdsearch.runs.study_view import ForeignStudy, OptunaTarget, replace_study


def write_optuna(runs: Sequence[Run], target: OptunaTarget) -> list[str]:
    """Write each run as an Optuna study; an earlier study of the same run is replaced.

    Args:
        target: A file that is there keeps its other studies.

    Returns:
        The studies' names.

    Raises:
        ConfigError: The target is a run's own view, or holds another study of such a name.
        RunError: It cannot be written.
    """
    if target.is_in_a_run:
        raise ConfigError(f"--optuna-storage: {target} is a run's own study; name another file")
    # The folders' names, or their paths where two are called the same.
    short = [run.path.resolve().name for run in runs]
    names = [
        name if short.count(name) == 1 else str(run.path.resolve())
        for name, run in zip(short, runs, strict=True)
    ]
    try:
        storage = target.open()
        for name, run in zip(names, runs, strict=True):
            trials = [frozen_trial(record, run.space) for record in run.records]
            study = replace_study(storage, name, run.folder.identity(), trials, run.metric)
            for key, value in _about(run).items():
                study.set_user_attr(key, value)
    except ForeignStudy as foreign:
        raise ConfigError(
            f"--optuna-storage: {target} has a study '{foreign}' that is not this run's; name "
            "another file"
        ) from None
    except Exception as error:
        # Any exception of Optuna, SQLAlchemy or a driver.
        first = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        raise RunError(f"{target}: cannot be written as Optuna's: {first[0]}") from error
    return names


def _about(run: Run) -> dict[str, Any]:
    """Return the study's attributes for readers: data, teacher, verdict."""
    about: dict[str, Any] = {"run": str(run.path.resolve())}
    if run.teacher:
        about["data"] = run.teacher["data"]["description"]
        about[f"teacher's {run.metric}"] = run.teacher[run.metric]
    best = run.best
    if best is not None and "test" in best.metrics:
        about["best student"] = f"trial {best.trial}"
        about["best student's test_auc"] = best.metrics["test"]["roc_auc"]
    if run.verdict:
        about["verdict"] = run.verdict.get("sentences", [])
    return about
