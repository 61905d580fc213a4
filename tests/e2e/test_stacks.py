"""Students of several trials in one process: as if each had it for itself."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import psutil
import pytest
from workplace import Workplace, kill_all

from kdsearch.cli.main import main
from kdsearch.runs.stop_requests import POLL_S


def stacked(place: Workplace, students: int, **search: Any) -> None:
    """One process of so many students, no early stopping unless asked for."""
    text = place.space.read_text()
    text = text.replace("precision: fp32", f"precision: fp32, students_per_cpu: {students}")
    options = {"num_samples": 6, "max_concurrent": students, "sampler": "random", **search}
    text = text.replace("{num_samples: 6, retries: 2, max_concurrent: 1}", json.dumps(options))
    place.space.write_text(text)


def without_asha(place: Workplace) -> None:
    place.space.write_text(place.space.read_text().replace("name: asha", "name: none"))


def together(place: Workplace) -> list[int]:
    """How many students were in each epoch of a stack, in order."""
    lines = (place.path / "epochs.log").read_text().splitlines()
    sizes = [int(line.split()[2]) for line in lines if not line.startswith("-1")]
    epochs = []
    while sizes:
        epochs.append(sizes[0])
        del sizes[: sizes[0]]
    return epochs


def losses(place: Workplace) -> dict[int, list[dict[str, float]]]:
    return {
        number: [json.loads(line)["losses"] for line in lines.read_text().splitlines()]
        for number in range(6)
        if (lines := place.run / "trials" / str(number) / "metrics.jsonl").exists()
    }


def test_a_stack_is_refilled_and_its_students_do_not_notice(place: Workplace) -> None:
    """Six trials of 5 epochs, 3 at a time; the same trials alone give the same numbers."""
    without_asha(place)
    stacked(place, 3)
    # Kernels for groups add in another order; large steps would magnify what that rounds off.
    text = place.space.read_text().replace("[1.0e-4, 5.0e-3]", "[1.0e-5, 1.0e-4]")
    place.space.write_text(text)
    assert place.search().returncode == 0
    sizes = together(place)
    assert sum(sizes) == 30
    # How often depends on how soon a busy machine starts the next trials.
    assert max(sizes) == 3
    in_stack, rows = losses(place), place.trials()
    assert {row["state"] for row in rows} == {"completed"}

    place.space.write_text(place.space.read_text().replace("per_cpu: 3", "per_cpu: 1"))
    assert place.search("--name", "alone").returncode == 0
    place.run.rename(place.run.with_name("stack"))
    place.run.with_name("alone").rename(place.run)
    alone = losses(place)
    assert sorted(alone) == sorted(in_stack) == list(range(6))
    for number, epochs in alone.items():
        for here, there in zip(epochs, in_stack[number], strict=True):
            assert there == pytest.approx(here, rel=2e-3)
    aucs = {row["trial"]: row["val_auc"] for row in place.trials()}
    assert aucs == pytest.approx({row["trial"]: row["val_auc"] for row in rows}, abs=1e-2)


def test_a_stopped_trial_gives_its_slot_to_the_next(place: Workplace) -> None:
    stacked(place, 3, num_samples=9)
    assert place.search().returncode == 0
    rows = place.trials()
    assert len(rows) == 9
    assert {row["state"] for row in rows} == {"completed", "stopped"}
    sizes = together(place)
    assert sum(sizes) == sum(row["epochs"] for row in rows)
    assert max(sizes) == 3


def test_a_student_does_not_wait_for_one_that_was_stopped(place: Workplace) -> None:
    """There is no next trial, which would use the process of the one that was stopped."""
    without_asha(place)
    stacked(place, 2, num_samples=2)
    place.environment["FAULTY_LEASE_S"] = "1e6"
    place.hold(2 + 2 * 2)
    process = place.start()
    place.wait_for_held()
    assert main(["stop", str(place.run), "0"]) == 0
    # Requests are looked for at a report, but not again so soon after the last look.
    time.sleep(POLL_S)
    place.go_on()
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    states = {row["trial"]: row["state"] for row in place.trials()}
    assert states == {0: "stopped", 1: "completed"}


def test_one_crash_in_a_stack_is_one_failed_row(place: Workplace) -> None:
    """Trials 0, 2 and 4 of a stack of five fail in different ways; the others lose nothing."""
    without_asha(place)
    stacked(place, 5, num_samples=5, retries=1)
    plan = {
        "0": ["raise", 2, 99],
        "2": ["kill", 3, 99],
        "3": ["gpu memory", 4, 1],
        "4": ["nan", 1, 99],
    }
    place.environment["FAULTY_PLAN"] = json.dumps(plan)
    done = place.search()
    assert done.returncode == 0, done.stderr
    rows = {row["trial"]: row for row in place.trials()}
    states = [rows[number]["state"] for number in range(5)]
    assert states == ["failed", "completed", "failed", "completed", "failed"]
    assert rows[0]["reason"] == "RuntimeError: the sensor caught fire"
    assert "worker process exited without an error message" in rows[2]["reason"]
    assert rows[4]["reason"] == "reconstruction became nan in epoch 1"
    assert rows[1]["epochs"] == rows[3]["epochs"] == 5


def test_a_killed_search_of_stacks_goes_on(place: Workplace) -> None:
    without_asha(place)
    stacked(place, 3)
    place.hold(2 + 3 * 4)
    process = place.start()
    place.wait_for_epochs(2 + 3 * 4)
    kill_all(process)
    before = place.epochs()
    place.environment.clear()
    assert place.search("--resume").returncode == 0
    assert {row["state"] for row in place.trials()} == {"completed"}
    computed = place.epochs()
    assert all(computed[(trial, epoch)] for trial in range(6) for epoch in range(1, 6))
    twice = Counter({key: count for key, count in computed.items() if count > 1})
    assert all(count == 2 for count in twice.values())
    assert len(twice) <= 2 * 3, "of each student the epoch being trained and the one before"
    assert all(key in before for key in twice)


def test_killed_trial_processes_come_back_to_the_packer(place: Workplace) -> None:
    """All members of the only packer lose their processes, while it trains them."""
    without_asha(place)
    stacked(place, 3, num_samples=4)
    place.hold(2 + 3 * 2)
    process = place.start()
    place.wait_for_epochs(2 + 3 * 2)
    killed = 0
    for member in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("ImplicitFunc" in part for part in member.cmdline()):
                member.kill()
                killed += 1
    assert killed, "on an idle machine three, all members of the only packer"
    place.go_on()
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    rows = place.trials()
    assert [row["epochs"] for row in rows] == [5] * 4
    assert {row["state"] for row in rows} == {"completed"}
