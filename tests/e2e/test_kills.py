"""A search that is killed loses no finished trial, repeats none, and ends as it would have."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from promises import TRIALS, check_optuna, check_promises, study_in_journal
from workplace import Workplace, kill_all, kill_driver


def stop_gently(signum: int) -> Callable[[subprocess.Popen[str]], None]:
    def stop(process: subprocess.Popen[str]) -> None:
        process.send_signal(signum)
        assert process.wait(timeout=60) == 128 + signum
        assert process.stderr is not None
        assert "go on with --resume" in process.stderr.read()

    return stop


def interrupt_twice(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(kill_driver, id="kill -9 of the driver"),
        pytest.param(kill_all, id="power cut"),
        pytest.param(stop_gently(signal.SIGTERM), id="SIGTERM"),
        pytest.param(stop_gently(signal.SIGINT), id="Ctrl-C"),
        pytest.param(interrupt_twice, id="Ctrl-C twice"),
    ],
)
def test_resume_after(place: Workplace, end: Callable[[subprocess.Popen[str]], None]) -> None:
    place.environment["FAULTY_PAUSE_S"] = "0.4"
    process = place.start()
    place.wait_for_epochs(10)
    end(process)
    before = {row["trial"]: row for row in place.trials()}
    assert any(row["state"] == "running" for row in before.values())
    place.environment.clear()
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    check_promises(place, before, kills=1)


def test_kill_in_the_teachers_training(place: Workplace) -> None:
    place.environment["FAULTY_PAUSE_S"] = "1"
    process = place.start()
    place.wait_for_epochs(1)
    kill_all(process)
    place.environment.clear()
    assert place.search("--resume").returncode == 0
    computed = place.epochs()
    assert computed[(-1, 1)] + computed[(-1, 2)] <= 3, "the teacher went on from its epoch"
    check_promises(place, {}, kills=1)


def test_second_driver_is_refused(place: Workplace) -> None:
    place.environment["FAULTY_PAUSE_S"] = "0.5"
    process = place.start()
    place.wait_for_epochs(4)
    second = place.search("--resume")
    assert second.returncode == 2
    assert "another search is running" in second.stderr
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    check_promises(place, {}, kills=0)


@pytest.fixture
def killed(place: Workplace) -> Workplace:
    """A search that was killed with two trials on their way."""
    place.environment["FAULTY_PAUSE_S"] = "0.4"
    process = place.start()
    place.wait_for_epochs(9)
    kill_all(process)
    place.environment.clear()
    return place


def test_torn_journal_and_stale_lock(killed: Workplace) -> None:
    before = {row["trial"]: row for row in killed.trials()}
    journal = killed.run / "study.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":6,"trial_id"')
    (killed.run / "study.journal.lock").symlink_to(journal)
    assert {row["trial"]: row for row in killed.trials()} == before
    done = killed.search("--resume", timeout=60)
    assert done.returncode == 0, done.stderr
    check_promises(killed, before, kills=1)


@pytest.mark.parametrize("damage", ["vanished", "empty", "truncated"])
def test_lost_journal_is_rebuilt(killed: Workplace, damage: str) -> None:
    before = {row["trial"]: row for row in killed.trials()}
    journal = killed.run / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = {"vanished": None, "empty": b"", "truncated": b"".join(lines[: len(lines) // 2])}
    journal.unlink()
    if kept[damage] is not None:
        journal.write_bytes(kept[damage] or b"")
    done = killed.search("--resume")
    assert done.returncode == 0, done.stderr
    assert "had lost trials; rebuilt" in done.stderr
    check_promises(killed, before, kills=1)


def test_checkpoints_torn_lost_and_ahead_of_the_report(killed: Workplace) -> None:
    """Whatever a checkpoint is worth, the trial ends with every epoch known once."""
    running = [row["trial"] for row in killed.trials() if row["state"] == "running"]
    checkpoints = [killed.run / f"trials/{number}/last.pt" for number in running]
    there = [path for path in checkpoints if path.exists()]
    assert there, "the kill came too early for this test"
    content = there[0].read_bytes()
    there[0].write_bytes(content[: len(content) // 2])
    forget_last_report(killed.run / "study.journal", running[-1])
    done = killed.search("--resume")
    assert done.returncode == 0, done.stderr
    after = {row["trial"]: row for row in killed.trials()}
    assert sorted(after) == list(range(TRIALS))
    for number in running:
        metrics = (killed.run / f"trials/{number}/metrics.jsonl").read_text()
        assert metrics.count("\n") == after[number]["epochs"]
    check_optuna(study_in_journal(killed), after)


def forget_last_report(journal: Path, number: int) -> None:
    """Make the last epoch of a trial one that was checkpointed but never reported."""
    lines = journal.read_bytes().splitlines(keepends=True)
    report, of_trial = b'"op_code":7,"worker_id"', b'"trial_id":%d,' % number
    for index in range(len(lines) - 1, -1, -1):
        if report in lines[index] and of_trial in lines[index]:
            del lines[index]
            break
    journal.write_bytes(b"".join(lines))


def test_killed_driver_leaves_no_temporary_files_for_good(killed: Workplace) -> None:
    left = list(killed.temporary.glob("kds-*"))
    assert left, "a killed driver cannot clean up"
    assert killed.search("--resume").returncode == 0
    assert not list(killed.temporary.glob("kds-*"))


def test_copied_while_unfinished(killed: Workplace) -> None:
    before = {row["trial"]: row for row in killed.trials()}
    shutil.copytree(killed.run, killed.run.with_name("copy"))
    done = killed.search("--name", "copy", "--resume")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(killed.run)
    killed.run.with_name("copy").rename(killed.run)
    check_promises(killed, before, kills=1)
