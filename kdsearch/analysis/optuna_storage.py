"""Runs in a storage of Optuna's, for optuna-dashboard; the runs themselves stay as they are."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.analysis.run import Run
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.study import trials_of

JOURNALS = (".log", ".journal")
DATABASES = (".db", ".sqlite", ".sqlite3")
SQLITE = "sqlite:///"


def write_optuna(runs: Sequence[Run], target: str) -> list[str]:
    """Write each run as a study of its own; a study of the same name is written anew.

    Args:
        target: A journal, ``FILE.log``, or a database, ``FILE.db`` or ``sqlite:///FILE``; a
            file that is there keeps its other studies.

    Returns:
        The studies' names.

    Raises:
        ConfigError: The target is neither.
        RunError: It cannot be written, or a run's study cannot be read.
    """
    file = _file(target)
    if any(run.folder.study_file.resolve() == file.resolve() for run in runs):
        raise ConfigError(f"--optuna-storage: {file} is the run's own study; name another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage = _storage(file)
        names = _names(runs)
        for name, run in zip(names, runs, strict=True):
            _write(storage, name, run)
    except (OSError, SQLAlchemyError, ValueError, KeyError, AssertionError) as error:
        raise RunError(f"{file}: cannot be written as Optuna's: {error}") from None
    return names


def storage_url(target: str) -> str:
    """What optuna-dashboard is started with."""
    file = _file(target)
    return str(file) if file.suffix in JOURNALS else f"{SQLITE}{file}"


def _file(target: str) -> Path:
    file = Path(target.removeprefix(SQLITE))
    if file.suffix not in (*JOURNALS, *DATABASES) and not target.startswith(SQLITE):
        raise ConfigError(
            f"--optuna-storage: expected FILE.log, FILE.db or {SQLITE}FILE, but found "
            f"{target!r}"
        )
    return file


def _storage(file: Path) -> BaseStorage:
    if file.suffix in JOURNALS:
        return JournalStorage(JournalFileBackend(str(file)))
    return RDBStorage(f"{SQLITE}{file}")


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or their paths where two are called the same."""
    short = [run.path.resolve().name for run in runs]
    count = Counter(short)
    return [
        name if count[name] == 1 else str(run.path.resolve())
        for name, run in zip(short, runs, strict=True)
    ]


def _write(storage: BaseStorage, name: str, run: Run) -> None:
    trials = trials_of(run.folder, run.records, run.space)
    if name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["val_auc"])
    for key, value in _about(run).items():
        study.set_user_attr(key, value)
    study.add_trials(trials)


def _about(run: Run) -> dict[str, Any]:
    """What stands beside the trials, for people."""
    about: dict[str, Any] = {"run": str(run.path.resolve())}
    if run.teacher:
        about["data"] = run.teacher["data"]["description"]
        about["teacher's val_auc"] = run.teacher["val_auc"]
    best = run.best
    if best is not None and "test" in best.metrics:
        about["best student"] = f"trial {best.trial}"
        about["best student's test_auc"] = best.metrics["test"]["roc_auc"]
    if run.verdict:
        about["verdict"] = run.verdict.get("sentences", [])
    return about
