"""A search that reports to every tracker, and what each of them has afterwards."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import optuna
import yaml
from small import SPACE, run_python

import kdsearch

ROOT = Path(__file__).parents[2]


def check_model(folder: Path, client: mlflow.MlflowClient) -> None:
    """The best student is a model that others load and score by."""
    student = kdsearch.load_student(folder / "runs" / "kd")
    x = np.random.default_rng(1).normal(size=(5, 1, student.card.input.length))
    (version,) = client.search_model_versions("name = 'kdsearch-kd'")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/kdsearch-kd/1")
    assert version.run_id == model.metadata.run_id
    assert [tensor.shape for tensor in model.metadata.signature.inputs.inputs] == [
        (-1, *x.shape[1:])
    ]
    found = model.predict(x.astype(np.float32))
    np.testing.assert_array_equal(found["score"], student.score(x.astype(np.float32)))
    np.testing.assert_array_equal(found["flagged"], student.flag(x.astype(np.float32)))
    assert model.predict(model.input_example).shape == (2, 2)


def test_a_search_reports_to_all_of_them(tmp_path: Path):
    (tmp_path / "kd.yaml").write_text(yaml.safe_dump(SPACE))
    flags = ["--track", "tensorboard", "--track", "mlflow", "--track", "wandb=mine"]
    flags += ["--optuna-storage", "sqlite:///studies.db"]
    command = (str(ROOT / "run_search.py"), "--space", "kd.yaml", *flags)
    done = run_python(tmp_path, *command, WANDB_MODE="offline", WANDB_SILENT="true")
    assert "left out" not in done.stderr

    table = kdsearch.open_run(tmp_path / "runs" / "kd").trials()
    trials = {f"trial-{number:03d}": rows for number, rows in table.groupby("trial")}
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = {run.info.run_name: run for run in client.search_runs(experiments)}
    assert set(found) == set(trials)
    for name, rows in trials.items():
        history = client.get_metric_history(found[name].info.run_id, "val_auc")
        assert [metric.value for metric in history] == list(rows["val_auc"])
    check_model(tmp_path, client)
    for name in trials:
        assert list((tmp_path / "tensorboard" / "kd" / name).glob("events.*"))
    study = optuna.load_study(study_name="kd", storage=f"sqlite:///{tmp_path}/studies.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * len(trials)
    curves = [list(rows["val_auc"].cummax()) for rows in trials.values()]
    assert [list(t.intermediate_values.values()) for t in study.trials] == curves
    offline = tmp_path.glob("wandb/offline-run-*/*.wandb")
    contents = {f"trial-{int(file.stem.rpartition('-')[2]):03d}": file for file in offline}
    assert set(contents) == set(trials)
    for name, file in contents.items():
        content = file.read_bytes()
        words = (name, "mine", "alpha", "val_auc", "loss/distillation", "state")
        assert [word for word in words if word.encode() not in content] == []
