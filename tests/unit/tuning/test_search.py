"""What a search checks before it trains, and where it trains its teacher."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from search_cases import CPU, space_file

from kdsearch.config.space_file import parse_config
from kdsearch.data import load_dataset
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.teachers.existing import read_sources, realise
from kdsearch.tuning.request import Request
from kdsearch.tuning.search import resolve_driver_compute, search
from kdsearch.tuning.teacher import describe_teacher, existing_teacher


def test_a_driver_of_a_cluster_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = parse_config(space_file(resources={"device": "cuda"}), "kd.yaml")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    console = Console(file=io.StringIO())
    folder = RunFolder(tmp_path / "kd")
    on_cluster = Request(config, {}, folder, False, "auto", console)
    assert resolve_driver_compute(on_cluster).device == "cpu"
    alone = Request(config, {}, folder, False, None, console)
    with pytest.raises(ConfigError, match="needs a GPU, but torch"):
        resolve_driver_compute(alone)


def taught_by(teacher: dict[str, Any], folder: RunFolder) -> Request:
    """A request to resume a search with this teacher."""
    plain = space_file(
        data={"simulated": {"patients": 6, "beats": 900}}, student={"target": "score"}
    )
    config = parse_config(plain | {"teacher": teacher}, "kd.yaml")
    return Request(config, {}, folder, True, None, Console(file=io.StringIO()))


def started_with(teacher: dict[str, Any], folder: RunFolder) -> None:
    """Write what a search leaves that was killed in its first trial.

    Its data are noted as others, so that a resume that accepts the teacher ends there.
    """
    config = taught_by(teacher, folder).config
    cache = folder.path.parent
    dataset = load_dataset(config.data, cache)
    existing = existing_teacher(realise(read_sources(config), config, dataset, CPU, cache))
    folder.write_config(config.as_dict(), {})
    other_data = replace(dataset, fingerprint="f" * 64)
    folder.write_teacher(existing.weights, describe_teacher(existing, other_data))


def test_a_resume_refuses_another_content_of_its_teacher(tmp_path: Path):
    scores, folder = tmp_path / "scores.npz", RunFolder(tmp_path / "kd")
    values = np.linspace(1, 2, 900)
    np.savez(scores, scores=values)
    started_with({"from": str(scores)}, folder)
    np.savez(scores, scores=values + 1)
    with pytest.raises(RunError, match=r"kd holds a search with another teacher \(content "):
        search(taught_by({"from": str(scores)}, folder))


@pytest.mark.parametrize("removed", [False, True], ids=["moved", "removed"])
def test_a_resume_accepts_a_teacher_that_was_moved_or_removed(removed: bool, tmp_path: Path):
    scores, folder = tmp_path / "scores.npz", RunFolder(tmp_path / "kd")
    np.savez(scores, scores=np.linspace(1, 2, 900))
    started_with({"from": str(scores)}, folder)
    scores = scores.rename(tmp_path / "moved.npz")
    if removed:
        scores.unlink()
    with pytest.raises(RunError, match="holds a search over other data"):
        search(taught_by({"from": str(scores)}, folder))


def test_a_resume_does_not_import_its_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "far.py").write_text(
        "class Far:\n"
        "    def fit(self, X):\n"
        "        self.mean = X.mean(axis=0)\n"
        "    def decision_function(self, X):\n"
        "        return ((X - self.mean) ** 2).mean(axis=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = RunFolder(tmp_path / "kd")
    started_with({"detector": "far.Far"}, folder)
    (tmp_path / "far.py").unlink()
    monkeypatch.delitem(sys.modules, "far")
    with pytest.raises(RunError, match="holds a search over other data"):
        search(taught_by({"detector": "far.Far"}, folder))
    assert "far" not in sys.modules
