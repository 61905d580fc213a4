"""Trackers: told of every epoch once, however often a search is interrupted."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run as MlflowRun
from search_cases import report, space_file, write_report
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdsearch.config.space_file import parse_config
from kdsearch.errors import UserError
from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.tuning.trackers import Shown, Tracking, check_trackers, open_trackers

CONFIG = parse_config(space_file(), "kd.yaml")
PARAMS = {"temperature": 2.0, "alpha": 0.5, "w_adv": 1.0}
CURVE = [0.5, 0.875, 0.75]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tracking]:
    """A driver's start on the same run: a new process has new trackers."""
    # MLflow keeps its address there for other processes; the tests' ends with them.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    folder, said = RunFolder(tmp_path / "kd"), []

    def started(*numbers: int, wanted: tuple[str, ...] = ()) -> Tracking:
        tracking = Tracking(folder, open_trackers(wanted, folder, CONFIG), said.append)
        for number in numbers:
            tracking.started(Suggestion(number, dict(PARAMS)))
        return tracking

    started.folder, started.said = folder, said
    return started


def train(folder: RunFolder, tracking: Tracking, number: int, epochs: int) -> None:
    """Every epoch up to here is kept; those from the first on are reported, as by a resume."""
    history: list[EpochReport] = []
    for epoch, val_auc in enumerate(CURVE[:epochs], start=1):
        write_report(folder.trial(number), report(epoch, val_auc), history, {}, None)
        history.append(report(epoch, val_auc))
    for epoch in range(1, epochs + 1):
        curve = {e: max(CURVE[:e]) for e in range(1, epoch + 1)}
        tracking.reported(TrialRecord(number, "running", {}, curve), 9)


def runs(uri: str) -> dict[str, MlflowRun]:
    client = mlflow.MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "kdsearch-kd"]
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_mlflow_has_every_epoch_once_after_a_kill(start, tmp_path: Path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    killed = start(0, 1, wanted=(f"mlflow={uri}",))
    train(start.folder, killed, 0, 2)
    train(start.folder, killed, 1, 1)
    killed.ended(1, "failed", "boom")
    assert runs(uri)["trial-000"].info.status == "RUNNING"

    resumed = start(0, wanted=(f"mlflow={uri}",))
    train(start.folder, resumed, 0, 3)
    resumed.ended(0, "stopped", "")
    resumed.close()
    assert start.said == []
    found = runs(uri)
    assert set(found) == {"trial-000", "trial-001"}
    trial, failed = found["trial-000"], found["trial-001"]
    history = mlflow.MlflowClient(uri).get_metric_history(trial.info.run_id, "val_auc")
    assert [(metric.step, metric.value) for metric in history] == [
        (1, 0.5),
        (2, 0.875),
        (3, 0.75),
    ]
    assert trial.data.params == {name: str(value) for name, value in PARAMS.items()}
    assert trial.data.metrics["loss/reconstruction"] == 0.5 / 3
    assert trial.data.metrics["final_val_auc"] == 0.875
    assert (trial.info.status, trial.data.tags["state"]) == ("FINISHED", "stopped")
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "boom")


def test_tensorboard_has_every_epoch_once_after_a_kill(start, tmp_path: Path):
    wanted = (f"tensorboard={tmp_path}/tb",)
    train(start.folder, start(0, wanted=wanted), 0, 2)
    resumed = start(0, wanted=wanted)
    train(start.folder, resumed, 0, 3)
    resumed.ended(0, "completed", "")
    (file,) = (tmp_path / "tb" / "kd" / "trial-000").glob("events.*")
    events = EventAccumulator(str(file)).Reload()
    assert [event.value for event in events.Scalars("val_auc")] == CURVE
    assert [event.value for event in events.Scalars("final/val_auc")] == [0.875]


class Broken:
    name = "broken"

    def __init__(self) -> None:
        self.called: list[str] = []

    def begin(self, trial: Shown) -> int:
        self.called.append("begin")
        return 0

    def epoch(self, trial: Shown, report: EpochReport, step: int) -> None:
        self.called.append("epoch")
        raise ConnectionError("no route to host\nand a long story")

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        self.called.append("end")

    def close(self) -> None:
        self.called.append("close")


def test_a_tracker_that_fails_is_left_out_and_costs_nothing(start, tmp_path: Path):
    broken = Broken()
    (whole,) = open_trackers([f"tensorboard={tmp_path}/tb"], start.folder, CONFIG)
    tracking = Tracking(start.folder, [broken, whole], start.said.append)
    tracking.started(Suggestion(0, dict(PARAMS)))
    train(start.folder, tracking, 0, 3)
    tracking.ended(0, "completed", "")
    tracking.close()
    assert broken.called == ["begin", "epoch"]
    assert start.said == ["broken: no route to host; this search no longer reports to it"]
    (file,) = (tmp_path / "tb" / "kd" / "trial-000").glob("events.*")
    assert len(EventAccumulator(str(file)).Reload().Scalars("val_auc")) == 3


@pytest.fixture
def without_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has not logged into W&B."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


REFUSED = {
    "tb": r"expected one of tensorboard, .* but found 'tb'",
    "mlflow=gopher://x": "--track mlflow=gopher://x: Model registry functionality is unavail",
    "mlflow=http://me:hunter2@127.0.0.1:1": r"--track mlflow=http://me:\*\*\*@127.0.0.1:1: ",
    "wandb": "--track wandb: no API key found: set WANDB_API_KEY, run 'wandb login', or",
}


@pytest.mark.usefixtures("without_account")
@pytest.mark.parametrize(("wanted", "message"), REFUSED.items())
def test_what_cannot_track_is_refused_by_a_search_and_by_a_dry_run(
    start, wanted: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for refuse in (lambda: start(wanted=(wanted,)), lambda: check_trackers([wanted])):
        with pytest.raises(UserError, match=message) as refused:
            refuse()
        assert "hunter2" not in "".join(traceback.format_exception(refused.value))
        assert "\n" not in str(refused.value)


def test_a_dry_run_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["tensorboard=tb", f"mlflow=sqlite:///{tmp_path}/m.db", "mlflow=x", "wandb"])
    assert list(tmp_path.iterdir()) == []


def test_wandb_has_every_epoch_and_the_settings(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracking = start(0, 1, wanted=("wandb=mine",))
    train(start.folder, tracking, 0, 3)
    train(start.folder, tracking, 1, 1)
    tracking.ended(0, "completed", "")
    tracking.close()
    assert start.said == []
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {file.stem.rpartition("-")[2] for file in files} == {"0", "1"}
    for file, trial in zip(files, ("trial-000", "trial-001"), strict=True):
        words = [trial, "mine", "alpha", "val_auc", "loss/reconstruction"]
        # W&B writes in a process of its own.
        deadline = time.monotonic() + 60
        while not all(word.encode() in file.read_bytes() for word in words):
            assert time.monotonic() < deadline, f"{file} lacks one of {words}"
            time.sleep(0.05)
