"""A search that is killed loses no finished trial, repeats none, and ends as it would have."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from promises import TRIALS, check_optuna, check_promises, study_in_journal
from ray.tune.execution.tune_controller import TuneController
from workplace import Workplace, kill_all, kill_driver, workplace

from kdsearch.runs.folder import RunFolder


def gently(signum: int) -> Callable[[subprocess.Popen[str]], None]:
    def stop(process: subprocess.Popen[str]) -> None:
        process.send_signal(signum)
        assert process.wait(timeout=600) == 128 + signum
        assert process.stderr is not None
        assert "rerun with --resume" in process.stderr.read()

    return stop


def test_two_trials_at_a_time_outlive_a_kill_and_an_interrupt(place: Workplace) -> None:
    place.space.write_text(place.space.read_text().replace("name: asha", "name: none"))
    finished: dict[int, dict[str, Any]] = {}
    ends = (kill_all, gently(signal.SIGINT))
    # Of the teacher's 2 and the trials' 30. Two trials without an end have 8 at most.
    for epochs, end in zip((5, 18), ends, strict=True):
        place.hold(epochs)
        process = place.start("--max-concurrent", "2", "--resume", "auto")
        place.wait_for_epochs(epochs)
        place.wait_for_running()
        second = place.search("--resume")
        assert second.returncode == 2
        assert "another search is running" in second.stderr
        end(process)
        rows = place.trials()
        assert any(row["state"] == "running" for row in rows)
        for row in rows:
            if row["state"] != "running":
                finished.setdefault(row["trial"], row)
    assert finished
    place.environment.clear()
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    check_promises(place, finished, kills=len(ends))


def test_ctrl_c_in_an_epoch_does_not_wait_for_tune(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune's own end would give the epoch ten seconds, and it would be lost all the same."""
    waited = []

    def cleanup(tune: TuneController) -> None:
        waited.append(tune)

    monkeypatch.setattr(TuneController, "cleanup", cleanup)
    place.hold(2)

    def interrupt() -> None:
        place.wait_for_held()
        # To the main thread, in which the search is.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = place.search()
    thread.join()
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert "rerun with --resume" in done.stderr
    assert not waited


@pytest.mark.parametrize(
    ("epochs", "students"),
    [(1, 1), (10, 1), (10, 2)],
    ids=["teacher", "one per process", "two per process"],
)
def test_sigterm_saves_the_running_epochs(place: Workplace, epochs: int, students: int) -> None:
    space = place.space.read_text()
    together = f"checkpoint_interval_s: 1000, students_per_cpu: {students}"
    assert "checkpoint_interval_s: 0" in space
    place.space.write_text(space.replace("checkpoint_interval_s: 0", together))
    place.environment["KDSEARCH_GRACE_S"] = "600"
    place.hold(epochs)
    process = place.start("--max-concurrent", "2")
    place.wait_for_held()
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None, "it waits for the epochs that are held"
    place.go_on()
    assert process.wait(timeout=600) == 128 + signal.SIGTERM
    before = {row["trial"]: row for row in place.trials()}
    done = place.search("--resume", "--max-concurrent", "2")
    assert done.returncode == 0, done.stderr
    check_promises(place, before, kills=0)


def test_an_interrupted_search_ends_as_an_uninterrupted_one(place: Workplace) -> None:
    """TPE and ASHA decide as if nothing had happened, where trials end in the same order.

    Rungs are at 0.25, 0.75 and 3 epochs of 8 mini-batches, and reports at each half epoch.
    """
    space = place.space.read_text()
    for old, new in (
        ("retries: 2", "retries: 2, startup_trials: 2, validations_per_epoch: 2"),
        ("grace_period: 1", "grace_period: 0.25"),
        ("epochs: 5", "epochs: 5, batch_size: 16"),
    ):
        assert old in space
        space = space.replace(old, new)
    place.space.write_text(space)
    alone = ("--max-concurrent", "1", "--num-samples", "7")
    done = place.search("--name", "whole", *alone)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(place.path / "cache")  # the same teacher again as well
    computed = sum(place.epochs().values())
    ends = (kill_driver, kill_all, gently(signal.SIGTERM))
    # The first one is in the teacher's training.
    for more, (epochs, end) in enumerate(zip((1, 7, 4), ends, strict=True)):
        place.hold(computed + epochs)
        process = place.start(*alone, *(["--resume"] if more else []))
        place.wait_for_epochs(computed + epochs)
        end(process)
        computed = sum(place.epochs().values())
    teachers = place.epochs()[(-1, 1)] + place.epochs()[(-1, 2)]
    assert teachers <= 2 + 3, "the whole search's, and one that went on from its epoch"
    (place.run / "study.journal").unlink()
    place.environment.clear()
    done = place.search(*alone, "--resume")
    assert done.returncode == 0, done.stderr
    whole = place.run.with_name("whole")
    assert decisions(place.run) == decisions(whole)
    assert "stopped" in decisions(whole)
    assert min(row["epochs"] for row in place.trials()) == 0.25
    assert "completed" in decisions(whole)
    assert 1.5 in RunFolder(whole).records()[0].curve
    for number in range(7):
        one, two = (weights(run / f"trials/{number}/best.pt") for run in (whole, place.run))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())


def weights(file: Path) -> dict[str, torch.Tensor]:
    """Of a generator; a file begins with its checksum."""
    content = torch.load(io.BytesIO(file.read_bytes()[32:]), weights_only=True)
    return dict(content["generator"])


def decisions(run: Path) -> str:
    """The leaderboard without its seconds."""
    table = pd.read_csv(run / "leaderboard.csv", dtype=str)
    return table.drop(columns="seconds").to_csv(index=False)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A search that was killed with two trials on their way, each with a checkpoint."""
    with workplace(tmp_path_factory.mktemp("killed")) as place:
        place.space.write_text(place.space.read_text().replace("name: asha", "name: none"))
        place.hold(2, each=True)
        process = place.start("--max-concurrent", "2")
        place.wait_for_running(2, epochs=2)
        kill_all(process)
        assert list(place.temporary.glob("kds-*")), "a killed driver cannot clean up"
        yield place


@pytest.fixture
def killed(killed_once: Workplace, tmp_path: Path) -> Workplace:
    """A copy of it, whose temporary files are those of the original."""
    shutil.copytree(killed_once.path, tmp_path, dirs_exist_ok=True)
    return replace(killed_once, path=tmp_path, environment={})


def test_damaged_trials_go_on_or_begin_again(killed: Workplace) -> None:
    """A torn checkpoint costs its trial's epochs, a torn record nothing."""
    rows = {row["trial"]: row for row in killed.trials()}
    running = [n for n, row in rows.items() if row["state"] == "running"]
    begins, goes_on = running
    checkpoint = killed.run / f"trials/{begins}/last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    (killed.run / f"trials/{goes_on}/trial.json").write_text('{"number": ')
    (killed.run / "study.journal").unlink()
    before, computed = rows[goes_on], killed.epochs()
    (row,) = [row for row in killed.trials() if row["trial"] == goes_on]
    assert (row["state"], row["epochs"]) == ("running", before["epochs"])
    assert row["reason"].startswith("trial.json is damaged")
    done = killed.search("--resume")
    assert done.returncode == 0, done.stderr
    assert f"trial {goes_on} continues from its checkpoint" in done.stderr
    assert not list(killed.temporary.glob("kds-*"))
    after = {row["trial"]: row for row in killed.trials()}
    assert sorted(after) == list(range(TRIALS))
    for key in ("temperature", "alpha", "w_adv", "lr"):
        assert after[goes_on][key] == before[key]
    assert killed.epochs()[(goes_on, 1)] == computed[(goes_on, 1)] == 1
    assert killed.epochs()[(begins, 1)] == 2
    for number in running:
        metrics = (killed.run / f"trials/{number}/metrics.jsonl").read_text()
        assert metrics.count("\n") == after[number]["epochs"]
    check_optuna(study_in_journal(killed), after)


def test_copied_while_unfinished_with_a_torn_study(killed: Workplace) -> None:
    before = {row["trial"]: row for row in killed.trials()}
    copy = Path(shutil.copytree(killed.run, killed.run.with_name("copy")))
    journal = copy / "study.journal"
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2])
    lock = copy / "study.journal.lock"
    lock.unlink(missing_ok=True)  # the kill may have been in the middle of a write
    lock.symlink_to(journal)
    done = killed.search("--name", "copy", "--resume")
    assert done.returncode == 0, done.stderr
    assert not list(killed.temporary.glob("kds-*"))
    shutil.rmtree(killed.run)
    copy.rename(killed.run)
    check_promises(killed, before, kills=1, study="copy")
