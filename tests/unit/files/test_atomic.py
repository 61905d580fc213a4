"""Files that appear whole or not at all, and states that are read without running code."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdsearch.files.atomic import (
    DamagedFile,
    load_state,
    save_state,
    whole_file,
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


def test_a_file_is_not_there_before_it_is_whole(tmp_path: Path):
    path = tmp_path / "deep" / "file"
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert names(path.parent) == ["file"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "file"
    write_text(path, "old")
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt("pressed")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail():
        with whole_file(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(type(error), match=r"no space left|pressed"):
        fail()
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
        "from kdsearch.files.atomic import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -9
    assert path.read_text() == "old"


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path):
    path = tmp_path / "file"
    with whole_file(path) as one:
        one.write(b"one")
        with whole_file(path) as two:
            two.write(b"two")
        assert path.read_text() == "two"
    assert path.read_text() == "one"
    assert names(tmp_path) == ["file"]


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
