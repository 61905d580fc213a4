"""Trials that crash, disks that fill, files that break: a row or a line, never silence."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import Workplace


def test_crashing_trials_are_rows(place: Workplace) -> None:
    """Trials 0 to 4 fail in different ways; where another try can help, it does."""
    plan = {
        "0": ["raise", 1, 99],
        "1": ["nan", 1, 99],
        "2": ["exit", 1, 1],
        "3": ["kill", 1, 99],
        "4": ["memory", 1, 1],
    }
    place.environment["FAULTY_PLAN"] = json.dumps(plan)
    done = place.search()
    assert done.returncode == 0, done.stderr
    rows = {row["trial"]: row for row in place.trials()}
    assert sorted(rows) == list(range(6))
    assert rows[0]["state"] == "failed"
    assert rows[0]["reason"] == "RuntimeError: the sensor caught fire"
    assert rows[1]["state"] == "failed"
    assert rows[1]["reason"] == "reconstruction became nan in epoch 1"
    assert rows[2]["state"] in ("completed", "stopped")
    assert rows[3]["state"] == "failed"
    assert "worker process exited without an error message" in rows[3]["reason"]
    assert rows[4]["state"] in ("completed", "stopped")
    computed = place.epochs()
    assert computed[(0, 1)] == 3, "retried twice"
    assert computed[(1, 1)] == 1, "a diverged trial is not retried"
    assert computed[(2, 1)] == 2
    assert computed[(3, 1)] == 3
    assert [row["rank"] for row in rows.values() if row["state"] == "failed"] == [None] * 3
    assert "the sensor caught fire" in place.analyze().stdout
    costs = json.loads((place.run / "costs.json").read_text())
    assert sorted(costs) == ["2", "4", "5", "teacher"], "a failed trial may fit no memory"


def test_a_crash_goes_on_from_the_checkpoint(place: Workplace) -> None:
    place.environment["FAULTY_PLAN"] = json.dumps({"0": ["kill", 4, 1]})
    place.space.write_text(place.space.read_text().replace("name: asha", "name: none"))
    assert place.search("--num-samples", "2").returncode == 0
    computed = place.epochs()
    assert [computed[(0, epoch)] for epoch in range(1, 6)] == [1, 1, 1, 2, 1]
    assert {row["state"] for row in place.trials()} == {"completed"}


def test_all_trials_failed(place: Workplace) -> None:
    plan = {str(number): ["nan" if number % 2 else "raise", 1, 99] for number in range(6)}
    place.environment["FAULTY_PLAN"] = json.dumps(plan)
    done = place.search()
    assert done.returncode == 1
    assert "all 6 trials failed" in done.stderr
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


@pytest.fixture
def finished(place: Workplace) -> Workplace:
    """A complete search of two trials."""
    done = place.search("--num-samples", "2")
    assert done.returncode == 0, done.stderr
    return place


def test_damaged_files_of_a_finished_run(finished: Workplace) -> None:
    check_damaged_teacher(finished)
    check_damaged_config(finished)
    check_untrusted_files(finished)


def check_damaged_teacher(place: Workplace) -> None:
    """Found again in the cache, or trained again from nothing: the same teacher."""
    fingerprint = json.loads((place.run / "teacher.json").read_text())["fingerprint"]
    (place.run / "teacher.pt").write_bytes(b"half")
    for entry in (place.path / "cache" / "teachers").glob("*/model.pt"):
        entry.write_bytes(entry.read_bytes()[:100])
    done = place.search("--num-samples", "3", "--resume")
    assert done.returncode == 0, done.stderr
    assert place.epochs()[(-1, 1)] == 2, "trained anew"
    assert json.loads((place.run / "teacher.json").read_text())["fingerprint"] == fingerprint
    assert (place.run / "teacher.pt").stat().st_size > 1000


def check_damaged_config(place: Workplace) -> None:
    config = place.run / "search.yaml"
    content = config.read_text()
    for damage in ("", content[: len(content) // 3], "- a\n- b\n", "a: [\n"):
        config.write_text(damage)
        for done in (place.search("--num-samples", "3", "--resume"), place.analyze()):
            assert done.returncode == 2, done.stderr
            assert "search.yaml" in done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
    config.write_text(content)


def check_untrusted_files(place: Workplace) -> None:
    """Analysing a stranger's run executes nothing that it brings along."""
    evil = "!!python/object/apply:os.system ['touch pwned']"
    config = place.run / "search.yaml"
    content = config.read_text()
    config.write_text(content + f"\nevil: {evil}\n")
    assert place.analyze().returncode == 2
    config.write_text(content)
    assert not (place.path / "pwned").exists()
    done = place.search("--name", "../outside")
    assert done.returncode == 2
    assert "--name" in done.stderr
    assert not (place.run.parent / "../outside").exists()


def test_reasons_cannot_steer_the_terminal(finished: Workplace) -> None:
    file = finished.run / "trials" / "1" / "trial.json"
    evil = {"state": "failed", "reason": "\x1b[31mred\x1b]0;title\x07"}
    file.write_text(json.dumps(json.loads(file.read_text()) | evil))
    done = finished.analyze()
    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout
    assert "\x1b" not in done.stdout
    assert os.linesep in done.stdout
