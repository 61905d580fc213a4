"""Runs as TensorBoard reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from kdsearch.analysis.run import open_run
from kdsearch.analysis.tensorboard import FINAL, write_tensorboard
from kdsearch.cli.analyze import ANALYZE
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study_view import OptunaTarget


def events(folder: Path) -> EventAccumulator:
    (_,) = folder.glob("events.out.tfevents.*")
    return EventAccumulator(str(folder)).Reload()


def hparams(folder: Path) -> dict[str, HParamsPluginData]:
    found = events(folder).SummaryMetadata
    tags = events(folder).PluginTagToContent("hparams")
    assert found
    return {tag: HParamsPluginData.FromString(content) for tag, content in tags.items()}


def test_tensorboard_has_a_curve_per_trial_and_figure(whole_run: RunFolder, tmp_path: Path):
    for _ in range(2):  # A second time leaves nothing of the first.
        write_tensorboard([open_run(whole_run.path)], tmp_path / "tb")
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


def test_its_table_has_all_settings_and_final_metrics(whole_run: RunFolder, tmp_path: Path):
    """Columns are said once, above the runs: TensorBoard takes what it finds first."""
    write_tensorboard([open_run(whole_run.path)], tmp_path / "tb")
    (columns,) = hparams(tmp_path / "tb").values()
    settings = {info.name for info in columns.experiment.hparam_infos}
    assert settings == {"temperature", "alpha", "w_adv", "state"}
    assert [info.name.tag for info in columns.experiment.metric_infos] == list(FINAL)
    found = hparams(tmp_path / "tb" / "kd" / "trial-001")
    assert not any(data.HasField("experiment") for data in found.values())
    (start,) = [d for d in found.values() if d.HasField("session_start_info")]
    params = open_run(whole_run.path).records[1].params
    shown = start.session_start_info.hparams
    assert shown["alpha"].number_value == params["alpha"]
    assert shown["state"].string_value == "stopped"


def test_runs_of_one_name_have_folders_of_their_own(whole_run: RunFolder, tmp_path: Path):
    other = tmp_path / "other" / "kd"
    shutil.copytree(whole_run.path, other)
    place = tmp_path / "tb"
    write_tensorboard([open_run(whole_run.path)], place)
    for _ in range(2):
        write_tensorboard([open_run(other)], place)
        write_tensorboard([open_run(other), open_run(whole_run.path)], place)
    assert len(list(place.rglob("teacher"))) == 2
    assert events(place / "kd" / "teacher").Scalars("val_auc")
    assert events(place / "other" / "kd" / "teacher").Scalars("val_auc")


def test_event_files_of_others_stay(whole_run: RunFolder, tmp_path: Path):
    place = tmp_path / "tb"
    others = [place / "events.out.tfevents.1.host", place / "kd" / "events.out.tfevents.2.host"]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("theirs")
    write_tensorboard([open_run(whole_run.path)], place)
    assert [file.read_text() for file in others] == ["theirs"] * 2
    (run,) = place.rglob("kdsearch-run.txt")
    assert run.parent == place / whole_run.path.parent.name / "kd"


def test_the_command_writes_both_and_says_how_to_look(
    whole_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--optuna-storage", f"{tmp_path}/j.log", "--tensorboard", f"{tmp_path}/tb"]
    options = ANALYZE.parser("analyze.py").parse_args([str(whole_run.path), *flags])
    assert ANALYZE.run(options) == 0
    said = capsys.readouterr().err
    assert f"optuna-dashboard {tmp_path}/j.log" in said
    assert f"tensorboard --logdir {tmp_path}/tb" in said
    target = OptunaTarget.parse(f"{tmp_path}/j.log")
    study = optuna.load_study(study_name="kd", storage=target.open())
    assert len(study.trials) == 4
    assert (tmp_path / "tb" / "kd" / "teacher").is_dir()
