"""Searches that begin with what is known: earlier runs, given points, spaces of few values."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small import SPACE as SMALL

import kdsearch
from kdsearch.analysis.summary import summarise

SPACE = {
    **SMALL,
    "student": {"width": 2, "latent": 4, "epochs": 1},
    "space": {"temperature": 1, "alpha": {"grid": [0.1, 1]}, "w_adv": 1, "lr": 1e-3},
    "search": {"num_samples": 5, "max_concurrent": 1},
}


def test_a_search_learns_from_one_that_used_up_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    first = kdsearch.search(SPACE, name="first", runs_dir=tmp_path)
    assert [record.params["alpha"] for record in first.records] == [0.1, 1.0]
    assert "2 trials: 2 completed; the space has no more\n" in summarise([first])
    assert first.best is not None
    space = {
        **SPACE,
        "space": {
            **SPACE["space"],
            "alpha": {"choice": [0.01, 0.1, 1]},
            "lr": {"loguniform": [1e-4, 1e-2]},
        },
        "search": {
            "num_samples": 4,
            "max_concurrent": 1,
            "startup_trials": 2,
            "points": [{"lr": 5e-3}],
            "learn_from": [str(first.path)],
        },
    }
    second = kdsearch.search(space, name="second", runs_dir=tmp_path)
    assert second.records[0].params["lr"] == 5e-3
    points = [record.params for record in second.records[1:3]]
    best = first.best.params["alpha"]
    assert points[0] == {"alpha": best, "lr": 1e-3}
    assert points[1] == {"alpha": 1.0 if best == 0.1 else 0.1, "lr": 1e-3}
    line = f"learned from {first.path}: 2 trials; its best are tried first"
    assert line in " ".join(capsys.readouterr().err.split())
    assert line in summarise([second])
    # A resume needs the earlier run no more, and goes on as if there had been no end.
    shutil.copytree(tmp_path / "second", tmp_path / "copy")
    longer = {**space, "search": {**space["search"], "num_samples": 6}}
    kdsearch.search(longer, name="copy", runs_dir=tmp_path, resume=True)
    shutil.rmtree(tmp_path / "first")
    extended = kdsearch.search(longer, name="second", runs_dir=tmp_path, resume=True)
    assert len(extended.records) == 6
    copied = kdsearch.open_run(tmp_path / "copy")
    assert [r.params for r in copied.records] == [r.params for r in extended.records]


def test_a_search_ends_with_the_last_point_within_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    space = {
        **SPACE,
        "student": {"latent": 4, "epochs": 1},
        "space": {**SPACE["space"], "alpha": 0.1, "width": {"choice": [2, 3, 4]}},
        "search": {"num_samples": 5, "constraints": {"parameters": {"max": 20_000}}},
    }
    run = kdsearch.search(space, name="kd", runs_dir=tmp_path)
    assert sorted(record.params["width"] for record in run.records) == [2, 3]
    assert "2 trials: 2 completed; the space has no more within its limits" in summarise([run])
    kdsearch.search(space, name="kd", runs_dir=tmp_path, resume=True)
    assert "complete with 2 trials; nothing to do" in " ".join(capsys.readouterr().err.split())
