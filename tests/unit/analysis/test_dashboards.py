"""Runs as Optuna and TensorBoard read them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from search_cases import report
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from test_summary import TEACHER, make_run

from kdsearch.analysis.optuna_storage import write_optuna
from kdsearch.analysis.run import open_run
from kdsearch.analysis.tensorboard import FINAL, write_tensorboard
from kdsearch.cli.analyze import ANALYZE
from kdsearch.errors import ConfigError, RunError
from kdsearch.files.atomic import write_json
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study_view import OptunaTarget, StudyView

STATES = ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Trials in every state, all of their epochs on disk, and a best student."""
    folder = make_run(tmp_path / "kd", teacher=True)
    test = {"roc_auc": 0.8125, "average_precision": 0.75, "equal_error_rate": 0.25}
    test |= {"confusion": {"threshold": 0.5, "f1": 0.5}, "classes": {}}
    metrics = {"trial": 0, "student": {"test": test}, "teacher": {"test": test}}
    write_json(folder.best / "metrics.json", metrics)
    teacher = {**TEACHER, "history": [vars(report(1)), vars(report(2, 0.9375))]}
    write_json(folder.teacher_file, teacher)
    return folder


def read(target: OptunaTarget, name: str = "kd") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=target.open())


@pytest.mark.parametrize("target", ["{}/new/j.log", "{}/k.db", "sqlite:///{}/k"])
def test_optuna_sees_what_it_would_have_kept_itself(
    folder: RunFolder, tmp_path: Path, target: str
):
    place = OptunaTarget.parse(target.format(tmp_path))
    write_optuna([open_run(folder.path)], place)
    found = read(place)
    original = read_original(folder)
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
    folder: RunFolder, tmp_path: Path
):
    target = OptunaTarget.parse(str(tmp_path / "all.db"))
    optuna.create_study(study_name="mine", storage=target.open())
    for _ in range(2):
        write_optuna([open_run(folder.path)], target)
    assert set(optuna.get_all_study_names(target.open())) == {"mine", "kd"}
    assert len(read(target).trials) == 4


def test_runs_of_one_name_are_told_apart(folder: RunFolder, tmp_path: Path):
    other = make_run(tmp_path / "other" / "kd", {0: ("completed", [0.5])})
    runs = [open_run(folder.path), open_run(other.path)]
    target = OptunaTarget.parse(str(tmp_path / "j.log"))
    names = write_optuna(runs, target)
    assert names == [str(folder.path), str(other.path)]
    assert len(read(target, names[1]).trials) == 1


def test_another_runs_study_is_not_replaced(folder: RunFolder, tmp_path: Path):
    other = make_run(tmp_path / "other" / "kd", {0: ("completed", [0.5])})
    target = OptunaTarget.parse(str(tmp_path / "all.db"))
    write_optuna([open_run(folder.path)], target)
    with pytest.raises(ConfigError, match=r"all\.db has a study 'kd' that is not this run's"):
        write_optuna([open_run(other.path)], target)
    assert len(read(target).trials) == 4


def test_what_is_no_storage_is_refused(folder: RunFolder, tmp_path: Path):
    run = open_run(folder.path)
    with pytest.raises(ConfigError, match=r"expected FILE\.log, .* but found 'x\.txt'"):
        OptunaTarget.parse("x.txt")
    with pytest.raises(ConfigError, match="is a run's own study"):
        write_optuna([run], OptunaTarget.parse(str(folder.study_file)))
    (tmp_path / "text.db").write_text("no database " * 100)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    with pytest.raises(RunError, match=r"text\.db: cannot be written as Optuna's"):
        write_optuna([run], OptunaTarget.parse(str(tmp_path / "text.db")))


# TensorBoard.


def events(folder: Path) -> EventAccumulator:
    (_,) = folder.glob("events.out.tfevents.*")
    return EventAccumulator(str(folder)).Reload()


def hparams(folder: Path) -> dict[str, HParamsPluginData]:
    found = events(folder).SummaryMetadata
    tags = events(folder).PluginTagToContent("hparams")
    assert found
    return {tag: HParamsPluginData.FromString(content) for tag, content in tags.items()}


def test_tensorboard_has_a_curve_per_trial_and_figure(folder: RunFolder, tmp_path: Path):
    for _ in range(2):  # A second time leaves nothing of the first.
        write_tensorboard([open_run(folder.path)], tmp_path / "tb")
    place = tmp_path / "tb" / "kd"
    assert {path.name for path in place.iterdir()} == {
        *("trial-000", "trial-001", "trial-002", "trial-003", "teacher", "kdsearch-run.txt")
    }
    trial = events(place / "trial-000")
    assert [(e.step, e.value) for e in trial.Scalars("val_auc")] == [
        *((1, 0.5), (2, 0.875), (3, 0.875))
    ]
    assert [e.step for e in trial.Scalars("loss/reconstruction")] == [1, 2, 3]
    assert [e.value for e in trial.Scalars("final/test_auc")] == [0.8125]
    assert "final/test_auc" not in events(place / "trial-001").Tags()["scalars"]
    assert [e.value for e in events(place / "teacher").Scalars("val_auc")] == [0.75, 0.9375]


def test_its_table_has_all_settings_and_final_metrics(folder: RunFolder, tmp_path: Path):
    """Columns are said once, above the runs: TensorBoard takes what it finds first."""
    write_tensorboard([open_run(folder.path)], tmp_path / "tb")
    (columns,) = hparams(tmp_path / "tb").values()
    settings = {info.name for info in columns.experiment.hparam_infos}
    assert settings == {"temperature", "alpha", "w_adv", "state"}
    assert [info.name.tag for info in columns.experiment.metric_infos] == list(FINAL)
    found = hparams(tmp_path / "tb" / "kd" / "trial-001")
    assert not any(data.HasField("experiment") for data in found.values())
    (start,) = [d for d in found.values() if d.HasField("session_start_info")]
    params = open_run(folder.path).records[1].params
    shown = start.session_start_info.hparams
    assert shown["alpha"].number_value == params["alpha"]
    assert shown["state"].string_value == "stopped"


def test_runs_of_one_name_have_folders_of_their_own(folder: RunFolder, tmp_path: Path):
    other = tmp_path / "other" / "kd"
    shutil.copytree(folder.path, other)
    place = tmp_path / "tb"
    write_tensorboard([open_run(folder.path)], place)
    for _ in range(2):
        write_tensorboard([open_run(other)], place)
        write_tensorboard([open_run(other), open_run(folder.path)], place)
    assert len(list(place.rglob("teacher"))) == 2
    assert events(place / "kd" / "teacher").Scalars("val_auc")
    assert events(place / "other" / "kd" / "teacher").Scalars("val_auc")


def test_event_files_of_others_stay(folder: RunFolder, tmp_path: Path):
    place = tmp_path / "tb"
    others = [place / "events.out.tfevents.1.host", place / "kd" / "events.out.tfevents.2.host"]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("theirs")
    write_tensorboard([open_run(folder.path)], place)
    assert [file.read_text() for file in others] == ["theirs"] * 2
    (run,) = place.rglob("kdsearch-run.txt")
    assert run.parent == place / folder.path.parent.name / "kd"


def test_the_command_writes_both_and_says_how_to_look(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--optuna-storage", f"{tmp_path}/j.log", "--tensorboard", f"{tmp_path}/tb"]
    options = ANALYZE.parser("analyze.py").parse_args([str(folder.path), *flags])
    assert ANALYZE.run(options) == 0
    said = capsys.readouterr().err
    assert f"optuna-dashboard {tmp_path}/j.log" in said
    assert f"tensorboard --logdir {tmp_path}/tb" in said
    assert len(read(OptunaTarget.parse(f"{tmp_path}/j.log")).trials) == 4
    assert (tmp_path / "tb" / "kd" / "teacher").is_dir()
