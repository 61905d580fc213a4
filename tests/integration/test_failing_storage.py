"""Searches on a disk that fails: one line, exit status 1, and a resume from what is safe."""

from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))

from searches import in_this_process, perform, space
from watched_disk import KINDS, Fault, Plan, watched

from kdsearch.cli.command import guarded
from kdsearch.runs.folder import RunFolder

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
# So many operations has the search; the first ones are those of its lock.
OPERATIONS = range(12, 600)


def faults(count: int) -> list[Fault]:
    chance = random.Random(3)
    chosen = [
        Fault(
            errno=ERRORS[number % len(ERRORS)],
            kinds=(chance.choice(KINDS[1:4]),) if number % 3 else KINDS,
            at=chance.choice(OPERATIONS) // (6 if number % 3 else 1),
            lasting=number % 2 == 0,
        )
        for number in range(count)
    ]
    return [*chosen, Fault(0, delay_s=0.001)]


def search(runs: Path, students: int, **options: Any) -> int:
    def run() -> int:
        perform(runs, space(), **options)
        return 0

    with in_this_process(1, students):
        return guarded(run)


def named(fault: Fault) -> str:
    kinds = "any" if fault.kinds == KINDS else "/".join(fault.kinds)
    name = errno.errorcode.get(fault.errno, "slow")
    return f"{name} at {kinds} {fault.at}{' and after' if fault.lasting else ''}"


@pytest.mark.parametrize("fault", faults(24), ids=named)
def test_a_failing_disk_is_one_line_and_a_resume(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of the run folder; a cache that fails is a warning."""
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    runs, students = tmp_path / "disk" / "runs", 1 + fault.at % 2
    runs.mkdir(parents=True)
    with watched(Plan((str(runs),), fault=fault)) as disk:
        status = search(runs, students, resume=False)
    said = capsys.readouterr().err
    seen = [failed for failed in disk.failed if "study.journal" not in failed]
    if status == 0:
        assert not seen or not fault.lasting
    else:
        assert status == 1
        assert seen
        assert said.count("\n") == 1
        assert os.strerror(fault.errno) in said
        assert "fix this and rerun with --resume" in said
    folder = RunFolder(runs / "kd")
    finished = {r.number: r for r in folder.records() if r.finished}
    assert search(runs, students, resume=folder.exists()) == 0
    records = folder.records()
    assert [r.number for r in records] == [*range(6)]
    assert all(r.finished for r in records)
    for number, record in finished.items():
        assert records[number] == record
    assert not list(folder.trials.rglob(".*.tmp"))
