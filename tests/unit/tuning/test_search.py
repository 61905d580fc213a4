"""Where a search trains its teacher."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from search_cases import space_file

from kdsearch.config.space_file import parse_config
from kdsearch.errors import ConfigError
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.request import Request
from kdsearch.tuning.search import resolve_teacher_compute


def test_a_driver_of_a_cluster_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = parse_config(space_file(resources={"device": "cuda"}), "kd.yaml")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    console = Console(file=io.StringIO())
    folder = RunFolder(tmp_path / "kd")
    on_cluster = Request(config, {}, folder, False, "auto", console)
    assert resolve_teacher_compute(on_cluster).device == "cpu"
    alone = Request(config, {}, folder, False, None, console)
    with pytest.raises(ConfigError, match="needs a GPU, but torch"):
        resolve_teacher_compute(alone)


@pytest.mark.parametrize(("given", "threads"), [("4,2", 4), ("3", 3), ("many", 1), ("", 1)])
def test_the_first_of_openmps_numbers_is_the_teachers(
    given: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("kdsearch.tuning.search.available_cpus", lambda: 2)
    config = parse_config(space_file(resources={"device": "cpu"}), "kd.yaml")
    before = torch.get_num_threads()
    try:
        console = Console(file=io.StringIO())
        folder = RunFolder(tmp_path / "kd")
        resolve_teacher_compute(Request(config, {}, folder, False, None, console))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
