"""Files that appear whole or not at all, and states that are read without running code."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.files.atomic import (
    DamagedFile,
    load_state,
    put_folder,
    remove,
    save_array,
    save_state,
    sync_folders,
    write_bytes,
    write_json,
    write_text,
)

STATE = {
    "epoch": 3,
    "name": "beatgan",
    "weights": {"conv": torch.arange(6, dtype=torch.float32).reshape(2, 3)},
    "history": [{"val_auc": 0.75}],
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def at_sync(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something when the content is written but not yet synced."""
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        if not Path(f"/proc/self/fd/{descriptor}").is_dir():
            monkeypatch.setattr(os, "fsync", fsync)
            action()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)


def test_a_file_is_not_there_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, seen = tmp_path / "deep" / "file", []
    at_sync(monkeypatch, lambda: seen.append(path.exists()))
    write_bytes(path, b"one ", memoryview(b"two"))
    assert seen == [False]
    assert path.read_bytes() == b"one two"
    assert names(path.parent) == ["file"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, seen = tmp_path / "file", []
    write_text(path, "old")
    at_sync(monkeypatch, lambda: seen.append(path.read_text()))
    write_text(path, "new")
    assert seen == ["old"]
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(5, "no power"), KeyboardInterrupt("pressed")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail():
        raise error

    at_sync(monkeypatch, fail)
    with pytest.raises(type(error), match=r"no power|pressed"):
        write_text(path, "half of the new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_at_the_last_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    write_text(path, "old")
    program = (
        "import os, pathlib, signal, sys\n"
        "from kdsearch.files.atomic import write_text\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_text(pathlib.Path(sys.argv[1]), 'new')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -9
    assert path.read_text() == "old"


def test_two_writers_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    at_sync(monkeypatch, lambda: write_text(path, "two"))
    write_text(path, "one")
    assert path.read_text() == "one"
    assert names(tmp_path) == ["file"]


def test_a_part_of_a_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:3]))
    write_bytes(tmp_path / "file", b"0123456789")
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(os, name, failing)
    with pytest.raises(OSError, match="Input/output error") as failed:
        write_text(tmp_path / "file", "new")
    monkeypatch.undo()
    assert failed.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.array(["a", "bcd"]),
        np.zeros((0, 3), np.float32),
        np.array(3),
    ],
)
def test_an_array_comes_back(tmp_path: Path, array: np.ndarray):
    save_array(tmp_path / "a.npy", array)
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(found, array)


def test_json_is_readable_and_ends_its_line(tmp_path: Path):
    write_json(tmp_path / "a.json", {"val_auc": 0.5, "reason": "größer"})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert '"val_auc": 0.5' in text


def test_what_is_no_json_leaves_no_file(tmp_path: Path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert names(tmp_path) == []


def test_a_state_comes_back_bit_for_bit(tmp_path: Path):
    save_state(tmp_path / "a.pt", STATE)
    found = load_state(tmp_path / "a.pt")
    assert found.keys() == STATE.keys()
    assert found["history"] == STATE["history"]
    assert torch.equal(found["weights"]["conv"], STATE["weights"]["conv"])
    assert names(tmp_path) == ["a.pt"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_state(tmp_path / "a.pt", STATE)
    return tmp_path / "a.pt"


def test_a_state_cut_short_anywhere_is_damaged(saved: Path):
    whole = saved.read_bytes()
    for size in {0, 1, 31, 32, 33, len(whole) // 2, len(whole) - 1}:
        saved.write_bytes(whole[:size])
        with pytest.raises(DamagedFile, match=r"a\.pt: damaged or half-written"):
            load_state(saved)


def test_a_state_with_one_flipped_bit_is_damaged(saved: Path):
    whole = saved.read_bytes()
    for place in range(0, len(whole), 97):
        saved.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        )
        with pytest.raises(DamagedFile, match="damaged or half-written"):
            load_state(saved)


def test_no_state_is_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load_state(tmp_path / "none.pt")


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


def test_a_state_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save_state(tmp_path / "a.pt", {"state": Trap()})
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_state(tmp_path / "a.pt")
    assert names(tmp_path) == ["a.pt"]


# Power cuts.


def test_folders_are_synced_after_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """New folders as well: a power cut must not undo what was written."""
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append(("rename", str(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "new" / "deep" / "file", "text")
    content = done.pop(2)
    assert content[0] == "sync"
    assert content[1].endswith(".tmp")
    assert done == [
        ("sync", str(tmp_path)),
        ("sync", str(tmp_path / "new")),
        ("rename", str(tmp_path / "new" / "deep" / "file")),
        ("sync", str(tmp_path / "new" / "deep")),
    ]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced, in order."""
    paths: list[Path] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: paths.append(Path(f"/proc/self/fd/{descriptor}").readlink()),
    )
    return paths


def test_a_removal_is_synced(tmp_path: Path, synced: list[Path]):
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    assert synced == [tmp_path]
    assert names(tmp_path) == []
    remove(tmp_path / "file")
    assert synced == [tmp_path], "nothing was there"


def test_all_folders_below_are_synced(tmp_path: Path, synced: list[Path]):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    sync_folders(tmp_path)
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_folder_is_synced_with_all_its_files_before_it_has_its_name(
    tmp_path: Path, synced: list[Path]
):
    """Otherwise a power cut leaves files of full size without their content."""
    fresh, folder = tmp_path / "fresh", tmp_path / "folder"
    for parent in (folder, fresh / "deep"):
        parent.mkdir(parents=True)
        (parent / "file").write_text(parent.name)
    put_folder(fresh, folder)
    assert sorted(synced[:-1]) == [fresh, fresh / "deep", fresh / "deep" / "file"]
    assert synced[-1] == tmp_path
    assert names(tmp_path) == ["folder"]
    assert (folder / "deep" / "file").read_text() == "deep"


def test_a_file_system_without_syncs_of_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fsync = os.fsync

    def refused(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    write_text(tmp_path / "new" / "file", "text")
    assert (tmp_path / "new" / "file").read_text() == "text"
