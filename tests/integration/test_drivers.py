"""Drivers on several machines: one has the run, the others say who, and the dead are replaced.

Each machine is a process in which the file lock of the others does not count.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kdsearch.files.bucket import Place, parse_path
from kdsearch.runs.driver_lock import claims_on


@pytest.fixture(params=["folder", "bucket"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A run that several machines see."""
    if request.param == "folder":
        return tmp_path / "kd"
    request.getfixturevalue("s3")
    return parse_path(f"s3://bucket/runs/{uuid.uuid4().hex}")


# A driver as on a machine of its own, where no file lock tells of the others.
DRIVER = """
import sys
from pathlib import Path
from kdsearch.errors import RunError
from kdsearch.files.bucket import parse_path
from kdsearch.runs import driver_lock

machine, lease_s, runs = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
driver_lock.BEAT_S, driver_lock.POLL_S, driver_lock.LEASE_S = 0.2, 0.05, lease_s
driver_lock.kernel = lambda: machine.name
machine.mkdir()

def say(text):
    print(text, flush=True)
    sys.stdin.readline()

for run in runs:
    lock = driver_lock.DriverLock(parse_path(run), machine, lambda text: None)
    say("ready")
    try:
        with lock.held():
            say("holds")
            lock.check()
            say("writes")
    except (RunError, OSError) as error:
        say(error)
"""


class Drivers:
    """Drivers in processes of their own, which go on when they are told to."""

    def __init__(self, run: Place, folder: Path) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self._run = run
        self._folder = folder

    def start(self, lease_s: float = 600, runs: Sequence[Place] = ()) -> subprocess.Popen[str]:
        runs = runs or [self._run]
        machine = self._folder / f"machine-{len(self.started)}"
        driver = subprocess.Popen(
            [
                sys.executable,
                "-c",
                DRIVER,
                machine,
                str(lease_s),
                *map(str, runs or [self._run]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(driver)
        return driver

    def holding(self, lease_s: float) -> subprocess.Popen[str]:
        driver = self.start(lease_s)
        assert said(driver) == "ready"
        go_on(driver)
        assert said(driver) == "holds"
        return driver


def said(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().strip()


def go_on(driver: subprocess.Popen[str]) -> None:
    assert driver.stdin is not None
    driver.stdin.write("\n")
    driver.stdin.flush()


@pytest.fixture
def drivers(run: Place, tmp_path: Path) -> Iterator[Drivers]:
    drivers = Drivers(run, tmp_path)
    yield drivers
    for driver in drivers.started:
        driver.kill()
        driver.communicate()


def test_of_two_drivers_that_start_at_once_one_goes_on(run: Place, drivers: Drivers):
    runs = [run / f"kd-{number}" for number in range(20)]
    both = [drivers.start(runs=runs) for _ in range(2)]
    for path in runs:
        assert [said(driver) for driver in both] == ["ready"] * 2
        for driver in both:
            go_on(driver)
        outcomes = {driver: said(driver) for driver in both}
        (winner,) = [driver for driver, outcome in outcomes.items() if outcome == "holds"]
        (loser,) = [driver for driver in both if driver is not winner]
        assert re.fullmatch(
            rf"{path}: another search is running in this folder \(process {winner.pid} of \S+ "
            r"on \S+, since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\); wait for it, or choose "
            "another --name",
            outcomes[loser],
        )
        go_on(winner)
        assert said(winner) == "writes"
        for driver in both:
            go_on(driver)
    assert [driver.wait(60) for driver in both] == [0, 0]
    assert all(claims_on(path) == {} for path in runs)


def test_a_dead_drivers_run_is_taken_over_after_the_lease(drivers: Drivers):
    drivers.holding(lease_s=1).kill()
    started = time.monotonic()
    driver = drivers.holding(lease_s=1)
    assert time.monotonic() - started > 1
    go_on(driver)
    assert said(driver) == "writes"


def test_a_driver_that_slept_finds_that_it_lost_the_run(drivers: Drivers):
    asleep = drivers.holding(lease_s=1)
    asleep.send_signal(signal.SIGSTOP)
    awake = drivers.holding(lease_s=1)
    go_on(asleep)
    asleep.send_signal(signal.SIGCONT)
    assert f"another search has taken over this run (process {awake.pid} of" in said(asleep)
    go_on(awake)
    assert said(awake) == "writes"
