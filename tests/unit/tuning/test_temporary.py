"""The temporary folder of a search: closed to others, and removed by whoever may."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.temporary import remove_abandoned, temporary_folder

PROGRAM = """
import sys, pathlib
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.temporary import temporary_folder
run, parent = map(pathlib.Path, sys.argv[1:])
with temporary_folder(RunFolder(run), parent) as path:
    print(path, flush=True); sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "kd")


@contextmanager
def driver(folder: RunFolder) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A driver in a process of its own, and its temporary folder."""
    command = [sys.executable, "-c", PROGRAM, str(folder.path), str(folder.path.parents[1])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip()).parent
        process.kill()


def test_nobody_else_can_enter_it_and_it_goes_at_the_end(folder: RunFolder, tmp_path: Path):
    with temporary_folder(folder, tmp_path) as path:
        # As Ray does it.
        path.chmod(0o777)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert folder.remembered_temporary() == str(path.parent)
    assert not path.parent.exists()
    assert folder.remembered_temporary() == ""


def test_a_killed_drivers_folder_is_removed_by_the_next(folder: RunFolder):
    with driver(folder) as (process, path):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.is_dir()
        remove_abandoned(folder)
        assert not path.exists()
    remove_abandoned(folder)


def test_a_copy_leaves_the_running_searchs_folder_alone(folder: RunFolder):
    with driver(folder) as (_, path):
        copy = RunFolder(Path(shutil.copytree(folder.path, folder.path.with_name("copy"))))
        remove_abandoned(copy)
        assert (path / "r").is_dir()


def test_what_a_stranger_names_is_left_alone(folder: RunFolder, tmp_path: Path):
    mine, link = tmp_path / "kds-0123abcd", tmp_path / "kds-0123abce"
    for path in (mine, tmp_path / "documents"):
        path.mkdir()
        (path / "run").write_text("another run")
    link.symlink_to(mine)
    for named in (mine, link, tmp_path / "documents", tmp_path / "kds-../documents", ""):
        folder.remember_temporary(str(named))
        remove_abandoned(folder)
    assert (mine / "run").exists()
    assert (tmp_path / "documents" / "run").exists()
