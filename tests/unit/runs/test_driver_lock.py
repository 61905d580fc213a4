"""The lock of a run in a real S3 server, and the copy of its log."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.errors import RunError
from kdsearch.files.bucket import BucketPath, Place, parse_path
from kdsearch.runs import driver_lock
from kdsearch.runs.folder import RunFolder


@pytest.fixture
def path(s3: dict[str, str]) -> Place:
    return parse_path(f"s3://bucket/runs/{uuid.uuid4().hex}/")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Often renewed; a lease ends in no test that does not shorten it, however busy it is."""
    monkeypatch.setattr(driver_lock, "BEAT_S", 0.2)
    monkeypatch.setattr(driver_lock, "LEASE_S", 600.0)
    monkeypatch.setattr(driver_lock, "SETTLE_S", 0.2)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.05)


def hold(path: Place, taken: Any) -> None:
    """A driver in a process of its own."""
    with RunFolder(path).lock():
        taken.set()
        time.sleep(600)


@pytest.mark.usefixtures("quick")
def test_a_driver_elsewhere_is_refused_until_the_first_is_dead(
    path: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fork = multiprocessing.get_context("fork")
    taken = fork.Event()
    first = fork.Process(target=hold, args=(path, taken))
    first.start()
    assert taken.wait(120)
    with pytest.raises(RunError, match="another search is running"), RunFolder(path).lock():
        pass
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(RunError, match="is running in this folder from"):
        RunFolder(path).lock().__enter__()
    first.kill()
    first.join()
    monkeypatch.setattr(driver_lock, "LEASE_S", 1.0)
    with RunFolder(path).lock():
        pass
    assert not (path / ".driver").exists()


@pytest.mark.usefixtures("quick")
def test_a_driver_that_lost_its_run_notices(path: Place):
    folder = RunFolder(path)
    with folder.lock():
        folder.check_ours()

        def noticed() -> bool:
            take_over(path)  # again: it may have been renewed at that moment
            try:
                folder.check_ours()
            except OSError as error:
                return "another search has taken over" in str(error)
            return False

        wait_for(noticed)
    assert (path / ".driver").exists(), "it is not ours to remove"


def take_over(path: Place) -> None:
    (path / ".driver").write_bytes(json.dumps({"owner": "somebody else"}).encode())


@pytest.mark.usefixtures("quick")
def test_a_lock_taken_over_at_the_last_moment_is_not_removed(
    path: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(driver_lock, "BEAT_S", 60)
    with RunFolder(path).lock():
        take_over(path)
    assert (path / ".driver").exists(), "it is not ours to remove"


@pytest.mark.usefixtures("quick")
def test_a_driver_that_was_asleep_looks_before_it_writes(
    path: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(driver_lock, "BEAT_S", 60)
    folder = RunFolder(path)
    with folder.lock():
        take_over(path)
        folder.check_ours()
        monkeypatch.setattr(driver_lock, "LEASE_S", 0.0)
        with pytest.raises(OSError, match="another search has taken over"):
            folder.check_ours()


@pytest.mark.usefixtures("quick")
def test_a_slow_copy_does_not_keep_the_lock_from_being_renewed(
    path: Place, monkeypatch: pytest.MonkeyPatch
):
    copies, slow, write = threading.Event(), threading.Event(), BucketPath.write_bytes

    def write_bytes(self: BucketPath, content: bytes) -> None:
        if self.name == "search.log":
            copies.set()
            slow.wait(120)
        write(self, content)

    monkeypatch.setattr(BucketPath, "write_bytes", write_bytes)
    monkeypatch.setattr(driver_lock, "COPY_S", 0.1)
    folder = RunFolder(path)

    def beat() -> int:
        return int(json.loads((path / ".driver").read_bytes())["beat"])

    with folder.lock():
        folder.log_file.write_text("one\n")
        assert copies.wait(120)
        before = beat()
        wait_for(lambda: beat() >= before + 3)
        assert not slow.is_set()
        slow.set()


@pytest.mark.usefixtures("quick")
def test_the_log_continues_on_another_machine(
    path: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(driver_lock, "COPY_S", 0.2)
    folder, copy = RunFolder(path), path / "search.log"
    with folder.lock():
        folder.log_file.write_text("one\ntwo\n")
        wait_for(lambda: copy.exists() and copy.read_text() == "one\ntwo\n")
        with folder.log_file.open("a") as log:
            log.write("three\n")
    assert copy.read_text() == "one\ntwo\nthree\n"
    # Killed before the next copy: this machine has more, and keeps it.
    folder.log_file.write_text("one\ntwo\nthree\nfour\n")
    with folder.lock():
        assert folder.log_file.read_text() == "one\ntwo\nthree\nfour\n"
    shutil.rmtree(folder.log_file.parent)
    with folder.lock():
        assert folder.log_file.read_text() == "one\ntwo\nthree\nfour\n", "the disk was lost"
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "another machine"))
    with RunFolder(path).lock(), RunFolder(path).log_file.open("a") as log:
        log.write("five\n")
    monkeypatch.undo()
