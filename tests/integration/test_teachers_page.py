"""A search with an example of docs/teachers.md, on simulated beats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from search_cases import space_file
from teachers_page import examples

import kdsearch


def test_a_search_with_the_pages_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    (example,) = (one for one in examples() if "detector" in one.get("teacher", {}))
    plain = space_file(
        data={"simulated": {"patients": 6, "beats": 900}},
        student={"epochs": 2, "target": "score"},
        search={"num_samples": 2},
        confirm={"top": 0},
        resources={"device": "cpu", "precision": "fp32"},
    )
    space = tmp_path / "kd.yaml"
    space.write_text(yaml.safe_dump(plain | example))
    run = kdsearch.search(kdsearch.load_space(space), runs_dir=tmp_path, progress=False)
    table = run.leaderboard()
    assert table["val_auc"].notna().all()
    teacher = json.loads((run.path / "teacher.json").read_text())
    assert "LocalOutlierFactor" in teacher["origin"]["kind"]
    assert teacher["metrics"]["test"]["roc_auc"] > 0.6
