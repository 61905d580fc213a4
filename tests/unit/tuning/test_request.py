"""What a command line asks for, and what a resume keeps of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from search_cases import space_file

from kdsearch.config.space_file import parse_config
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.request import Request, make_request


def request(folder: RunFolder, *, resume: bool, **given: Any) -> Request:
    return make_request(
        parse_config(space_file(), "kd.yaml"),
        given,
        folder,
        resume=resume,
        address=None,
        console=Console(file=io.StringIO()),
        optuna_storage=None,
    )


def test_a_resume_from_another_folder_finds_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    started = request(folder, resume=False, data="beats.npz")
    assert started.config.data.source == str(tmp_path / "beats.npz")
    folder.path.mkdir()
    folder.write_config(started.config.as_dict(), started.flags)
    monkeypatch.chdir("/")
    resumed = request(folder, resume=True, data=None)
    assert resumed.config.data == started.config.data
    assert request(folder, resume=True, data="moved.npz").config.data.source == "/moved.npz"
