"""A search that maximises the average precision, from its first epoch to its verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from small import SPACE as SMALL

import kdsearch

SPACE = {
    **SMALL,
    "student": {"width": 2, "latent": 4, "epochs": 3},
    "space": {**SMALL["space"], "lr": {"loguniform": [1e-4, 1e-1]}},
    "search": {"num_samples": 4, "metric": "val_ap"},
    "scheduler": {"reduction_factor": 2},
    "confirm": {"top": 2, "seeds": 2},
}


def test_the_average_precision_decides_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    run = kdsearch.search(SPACE, name="kd", runs_dir=tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "best val_ap" in said
    assert "trial-0: val_ap" in said or "trial-1: val_ap" in said or "trial-2: val_ap" in said
    epochs = run.trials()
    best = epochs.groupby("trial")["val_ap"].max().to_dict()
    assert {record.number: record.value for record in run.records} == best
    assert run.leaderboard()["val_ap"].tolist() == sorted(best.values(), reverse=True)
    candidates = [c for c in run.verdict["configurations"] if c["role"] == "candidate"]
    means = {
        c["name"]: np.mean([seed["val_ap"] for seed in c["seeds"].values()]) for c in candidates
    }
    assert run.verdict["chosen"] == max(means, key=lambda name: means[name])
    backend = JournalFileBackend(str(run.path / "study.journal"))
    study = optuna.load_study(study_name="kd", storage=JournalStorage(backend))
    assert study.metric_names == ["val_ap"]
    assert {trial.number: trial.value for trial in study.trials} == best
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Chosen by validation AP only" in page
