"""Runs as Optuna reads them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from run_cases import make_run

from kdsearch.analysis.optuna_storage import write_optuna
from kdsearch.analysis.run import open_run
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study_view import OptunaTarget, StudyView

STATES = ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]


def read(target: OptunaTarget, name: str = "kd") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=target.open())


@pytest.mark.parametrize("target", ["{}/new/j.log", "{}/k.db", "sqlite:///{}/k"])
def test_optuna_sees_what_it_would_have_kept_itself(
    whole_run: RunFolder, tmp_path: Path, target: str
):
    place = OptunaTarget.parse(target.format(tmp_path))
    write_optuna([open_run(whole_run.path)], place)
    found = read(place)
    original = read_original(whole_run)
    assert [trial.state.name for trial in found.trials] == STATES
    assert [trial.value for trial in found.trials] == [0.875, 0.25, None, None]
    for trial, before in zip(found.trials, original, strict=True):
        assert trial.params == before.params
        assert trial.distributions == before.distributions
        assert trial.intermediate_values == before.intermediate_values
        assert trial.datetime_start == before.datetime_start
        assert trial.datetime_complete == before.datetime_complete
    assert found.trials[2].user_attrs["reason"] == "boom"
    assert found.best_trial.number == 0
    assert found.metric_names == ["val_auc"]
    assert found.user_attrs["teacher's val_auc"] == 0.9375
    assert found.user_attrs["best student's test_auc"] == 0.8125


def read_original(folder: RunFolder) -> list[Any]:
    """As a search writes it while it runs."""
    run = open_run(folder.path)
    view = StudyView(folder, run.space, print)
    view.open(run.records)
    view.close()
    backend = optuna.storages.journal.JournalFileBackend(str(folder.study_file))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="kd", storage=storage).trials


def test_a_storage_keeps_its_other_studies_and_takes_a_run_anew(
    whole_run: RunFolder, tmp_path: Path
):
    target = OptunaTarget.parse(str(tmp_path / "all.db"))
    optuna.create_study(study_name="mine", storage=target.open())
    for _ in range(2):
        write_optuna([open_run(whole_run.path)], target)
    assert set(optuna.get_all_study_names(target.open())) == {"mine", "kd"}
    assert len(read(target).trials) == 4


def test_runs_of_one_name_are_told_apart(whole_run: RunFolder, tmp_path: Path):
    other = make_run(tmp_path / "other" / "kd", {0: ("completed", [0.5])})
    runs = [open_run(whole_run.path), open_run(other.path)]
    target = OptunaTarget.parse(str(tmp_path / "j.log"))
    names = write_optuna(runs, target)
    assert names == [str(whole_run.path), str(other.path)]
    assert len(read(target, names[1]).trials) == 1


def test_another_runs_study_is_not_replaced(whole_run: RunFolder, tmp_path: Path):
    other = make_run(tmp_path / "other" / "kd", {0: ("completed", [0.5])})
    target = OptunaTarget.parse(str(tmp_path / "all.db"))
    write_optuna([open_run(whole_run.path)], target)
    with pytest.raises(ConfigError, match=r"all\.db has a study 'kd' that is not this run's"):
        write_optuna([open_run(other.path)], target)
    assert len(read(target).trials) == 4


def test_what_is_no_storage_is_refused(whole_run: RunFolder, tmp_path: Path):
    run = open_run(whole_run.path)
    with pytest.raises(ConfigError, match=r"expected FILE\.log, .* but found 'x\.txt'"):
        OptunaTarget.parse("x.txt")
    with pytest.raises(ConfigError, match="is a run's own study"):
        write_optuna([run], OptunaTarget.parse(str(whole_run.study_file)))
    (tmp_path / "text.db").write_text("no database " * 100)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    with pytest.raises(RunError, match=r"text\.db: cannot be written as Optuna's"):
        write_optuna([run], OptunaTarget.parse(str(tmp_path / "text.db")))
