"""Disks as a crash may leave them, opened by the code that resumes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))

import resumed
from crash_states import Disk
from resumed import Explored, explore
from searches import record
from watched_disk import Operation

STATES = 2000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of damaged states are logged."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Operation]]:
    """Searches that die, are resumed and extended, by the students of a process."""
    return {
        students: record(tmp_path_factory.mktemp("disk"), seed=1, students=students)
        for students in (1, 3)
    }


@pytest.mark.parametrize("students", [1, 3])
def test_no_crash_breaks_a_promise(recorded: dict[int, list[Operation]], students: int) -> None:
    explored = explore(recorded[students], count=STATES // 2, students=students)
    assert explored.broken == []
    assert explored.states + explored.twice >= 0.9 * STATES // 2


def test_what_was_recorded_is_what_is_on_the_disk(tmp_path: Path) -> None:
    operations = record(tmp_path, seed=2, students=1)
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    real = {
        str(path.relative_to(tmp_path)): path.read_bytes() if path.is_file() else None
        for path in (tmp_path / "disk").rglob("*")
    }
    recorded = {path: content for path, content in disk.tree().items() if path != "disk"}
    # Views, which nothing is read from: the log, and the study that Optuna appends to.
    unwatched = {"disk/runs/kd/search.log", "disk/runs/kd/study.journal"}
    assert {path for path in real if real[path] != recorded.get(path, 0)} == unwatched
    assert recorded.keys() <= real.keys()


def test_a_repeated_search_does_the_same(
    recorded: dict[int, list[Operation]], tmp_path: Path
) -> None:
    """Threads of a packer, of trials and of views take turns in the same order."""
    again = record(tmp_path, seed=1, students=3)
    assert [operation[0] for operation in again] == [o[0] for o in recorded[3]]


def without(*operations: str) -> Callable[[Operation], bool]:
    return lambda operation: operation[0] not in operations


@pytest.mark.parametrize(
    ("kept", "broken"),
    [
        (without("sync"), "it is there, but not as it was written"),
        (without("sync path"), "finished trial 0 is lost"),
        (lambda o: o != ("sync path", "disk/runs"), "the run is lost"),
        (lambda o: o != ("sync path", "disk/runs/kd/trials"), "finished trial 0 is lost"),
        (lambda o: o[:1] != ("remove",) or "last.pt" in o[1], "the results are lost"),
    ],
)
def test_a_search_that_leaves_out_a_sync_is_found_out(
    recorded: dict[int, list[Operation]],
    kept: Callable[[Operation], bool],
    broken: str,
) -> None:
    operations: Sequence[Operation] = [o for o in recorded[1] if kept(o)]
    explored = explore(operations, count=300, until=broken)
    assert any(broken in text for _, text in explored.broken)


def crash_twice(operations: Sequence[Operation], index: int) -> Explored:
    """Kill the search after one operation, and cut the power in the resume."""
    # After each operation of the resume.
    with mock.patch.multiple(resumed, TWICE_SHARE=1.0, TWICE=100):
        return explore(operations[: index + 1], count=1, part=(index, index + 1))


@pytest.fixture(scope="module")
def unsynced(recorded: dict[int, list[Operation]]) -> list[int]:
    """Where a trial's record is seen under its name, and a power cut may still undo it."""
    return [
        index
        for index, (kind, *paths) in enumerate(recorded[1])
        if kind == "rename" and paths[1].endswith("/trial.json")
    ]


def test_a_resume_keeps_what_a_kill_left_unsynced(
    recorded: dict[int, list[Operation]], unsynced: list[int]
) -> None:
    explored = [crash_twice(recorded[1], index) for index in unsynced]
    assert [text for e in explored for _, text in e.broken] == []
    assert sum(e.twice for e in explored) > 5 * len(unsynced) > 50


def test_a_resume_that_does_not_sync_first_is_found_out(
    recorded: dict[int, list[Operation]], unsynced: list[int]
) -> None:
    with mock.patch("kdsearch.runs.folder.sync_folders"):
        explored = [crash_twice(recorded[1], index) for index in unsynced]
    texts = {text for e in explored for _, text in e.broken}
    assert any("second crash: finished trial" in text for text in texts)


def test_a_crash_in_the_resume_of_a_complete_search_loses_nothing(
    recorded: dict[int, list[Operation]],
) -> None:
    completed = [i for i, o in enumerate(recorded[1]) if o == ("mark", "complete", None)]
    for index in completed:
        explored = crash_twice(recorded[1], index)
        assert explored.broken == []
        assert explored.twice > 5
