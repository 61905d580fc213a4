"""Trials that crash, disks that fill, files that break: a row or a line, never silence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import Workplace


def test_crashing_trials_are_rows(place: Workplace) -> None:
    """Trials fail in different ways; where a retry can help, it does."""
    space = place.space.read_text().replace("name: asha", "name: none")
    place.space.write_text(space.replace("retries: 2", "retries: 1"))
    plan = {
        "0": ["raise", 1, 99],
        "1": ["nan", 1, 99],
        "2": ["exit", 1, 1],
        "3": ["kill", 1, 99],
        "4": ["memory", 1, 1],
        "5": ["kill", 4, 1],
    }
    place.environment["FAULTY_PLAN"] = json.dumps(plan)
    done = place.search()
    assert done.returncode == 0, done.stderr
    rows = {row["trial"]: row for row in place.trials()}
    states = [rows[number]["state"] for number in range(6)]
    assert states == ["failed", "failed", "completed", "failed", "completed", "completed"]
    assert rows[0]["reason"] == "RuntimeError: the sensor caught fire"
    assert rows[1]["reason"] == "reconstruction became nan in epoch 1"
    assert "worker process exited without an error message" in rows[3]["reason"]
    computed = place.epochs()
    assert computed[(0, 1)] == 2, "retried once"
    assert computed[(1, 1)] == 1, "a diverged trial is not retried"
    assert computed[(2, 1)] == 2
    assert computed[(3, 1)] == 2
    from_checkpoint = [computed[(5, epoch)] for epoch in range(1, 6)]
    assert from_checkpoint == [1, 1, 1, 2, 1]
    assert [row["rank"] for row in rows.values() if row["state"] == "failed"] == [None] * 3
    assert "the sensor caught fire" in place.analyze().stdout
    costs = json.loads((place.run / "costs.json").read_text())
    assert sorted(costs) == ["2", "4", "5", "teacher"], "a failed trial may fit no memory"


def test_all_trials_failed(place: Workplace) -> None:
    place.environment["FAULTY_PLAN"] = json.dumps({"0": ["raise", 1, 99], "1": ["nan", 1, 99]})
    done = place.search("--num-samples", "2", "--set", "search.retries=0")
    assert done.returncode == 1
    assert "all 2 trials failed" in done.stderr
    assert "RuntimeError: the sensor caught fire" in done.stderr
    assert "reconstruction became nan in epoch 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert {row["state"] for row in place.trials()} == {"failed"}


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(place: Workplace) -> Iterator[Path]:
    """A disk of 3 MiB in the place of the runs folder."""
    disk = place.run.parent
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=3m", "none", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_ends_the_search_and_room_lets_it_go_on(
    place: Workplace, small_disk: Path
) -> None:
    place.hold(6)
    process = place.start()
    place.wait_for_epochs(6)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    place.go_on()
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 1, err
    assert "No space left on device; fix this and rerun with --resume" in err
    assert "Traceback" not in err
    ballast.unlink()
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    assert "no report" in done.stderr, "the page is larger than the disk"
    rows = place.trials()
    assert sorted(row["trial"] for row in rows) == list(range(6))
    assert {row["state"] for row in rows} <= {"completed", "stopped"}


def test_read_only_folder(place: Workplace, small_disk: Path) -> None:
    mount("-o", "remount,ro", str(small_disk))
    done = place.search()
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
