"""The lock of a run on a local disk and in a real S3 server, and the copy of its log."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsearch.errors import RunError
from kdsearch.files.bucket import BucketPath, Place, parse_path
from kdsearch.runs import driver_lock
from kdsearch.runs.driver_lock import claims_on
from kdsearch.runs.folder import RunFolder


@pytest.fixture
def path(s3: dict[str, str]) -> Place:
    return parse_path(f"s3://bucket/runs/{uuid.uuid4().hex}/")


@pytest.fixture(params=["folder", "bucket"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A run that several machines see."""
    return request.getfixturevalue("path") if request.param == "bucket" else tmp_path / "kd"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Often renewed; a lease ends in no test that does not shorten it, however busy it is."""
    for name, seconds in {"BEAT_S": 0.2, "POLL_S": 0.05, "LEASE_S": 600.0}.items():
        monkeypatch.setattr(driver_lock, name, seconds)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.05)


def said(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().strip()


@pytest.mark.usefixtures("quick")
def test_a_driver_of_this_machine_is_refused_until_the_first_is_dead(run: Place):
    program = (
        "import sys\n"
        "from kdsearch.files.bucket import parse_path\n"
        "from kdsearch.runs.folder import RunFolder\n"
        "with RunFolder(parse_path(sys.argv[1])).lock():\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert said(first) == "locked"
        with pytest.raises(RunError, match=rf"search is running .*process {first.pid} of"):
            RunFolder(run).lock().__enter__()
        first.kill()
    started = time.monotonic()
    with RunFolder(run).lock():
        assert time.monotonic() - started < driver_lock.LEASE_S, "nothing to wait for here"


def take_over(path: Place) -> None:
    (path / ".generation").write_bytes(b"somebody else")


@pytest.mark.usefixtures("quick")
def test_a_driver_that_lost_its_run_notices(path: Place):
    folder = RunFolder(path)
    with folder.lock():
        folder.check_ours()
        take_over(path)

        def noticed() -> bool:
            try:
                folder.check_ours()
            except OSError as error:
                return "another search has taken over" in str(error)
            return False

        wait_for(noticed)
        with pytest.raises(OSError, match="another search has taken over"):
            folder.write_leaderboard("")
    assert not folder.leaderboard_file.exists()


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
        (claim,) = claims_on(path).values()
        return int(claim["beat"])

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
