"""A search whose run folder lies in a bucket: the machine that drives it is lost."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from promises import TRIALS
from workplace import Workplace, kill_all

import kdsearch


@pytest.mark.usefixtures("s3")
def test_lost_machine(place: Workplace) -> None:
    place.runs_dir = "s3://bucket/runs"
    place.space.write_text(place.space.read_text().replace("name: asha", "name: none"))
    # One epoch more than two trials have: one has ended, and another has begun.
    place.hold(2 + 11)
    process = place.start("--max-concurrent", "2")
    place.wait_for_epochs(2 + 11)
    second = place.search("--resume")
    assert second.returncode == 2
    assert "another search is running in this folder" in second.stderr
    kill_all(process)
    before = {row["trial"]: row for row in place.trials()}
    assert any(row["state"] != "running" for row in before.values())
    assert any(row["state"] == "running" for row in before.values())
    # The teacher's cache, the live study, the log: nothing of this machine is left.
    shutil.rmtree(place.path / "cache")
    del place.environment["FAULTY_AFTER"]
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    check(place, before)
    assert "nothing to do" in place.search("--resume").stderr


def check(place: Workplace, before: dict[int, dict[str, Any]]) -> None:
    after = {row["trial"]: row for row in place.trials()}
    assert sorted(after) == list(range(TRIALS))
    assert {row["state"] for row in after.values()} <= {"completed", "stopped"}
    for number, row in before.items():
        if row["state"] != "running":
            assert {**after[number], "rank": 0} == {**row, "rank": 0}
    computed = place.epochs()
    assert computed[(-1, 1)] == 1, "the run keeps its own teacher"
    assert sum(count - 1 for count in computed.values()) <= 2, f"computed twice: {computed}"
    page = place.path / "page.html"
    done = place.analyze("--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "ready to paste" in done.stdout
    assert page.stat().st_size > 100_000
    student = kdsearch.load_student(place.url)
    assert student.threshold > 0
    assert not place.run.exists(), "nothing was written beside the bucket"
