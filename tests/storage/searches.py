"""Whole searches in this process, without Ray: all but Tune and its processes is real."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from executor import Executor, placement, without_ray
from rich.console import Console
from watched_disk import Operation, Plan, WatchedDisk, watched

from kdsearch.config.space_file import Config, parse_config
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning import confirm as confirmation
from kdsearch.tuning import search
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.request import make_request
from kdsearch.tuning.workers import training

SPACE: dict[str, Any] = {
    "method": "counting:Counting",
    "data": {
        "source": "simulated",
        "simulated": {"patients": 6, "beats": 900},
        "train_limit": 64,
    },
    "teacher": {"epochs": 2},
    "student": {"epochs": 4},
    "space": {"width": {"choice": [1, 2]}, "rate": {"uniform": [0, 1]}},
    "search": {"num_samples": 6, "retries": 1, "keep_weights": 2, "sampler": "random"},
    "confirm": {"top": 1, "seeds": 2},
    "scheduler": {"name": "asha", "grace_period": 0.25, "reduction_factor": 2},
    "resources": {"device": "cpu", "precision": "fp32", "checkpoint_interval_s": 0},
}


def space(**changes: Any) -> Config:
    plain = {**SPACE}
    for section, values in changes.items():
        plain[section] = {**plain[section], **values}
    return parse_config(
        yaml.safe_load(yaml.safe_dump(plain)), "kd", beside=Path(__file__).parent
    )


@contextmanager
def in_this_process(seed: int, students: int = 1) -> Iterator[None]:
    """Let `kdsearch.tuning.search` run its trials in an `Executor`."""

    def run_tune(
        inputs: Any, plan: Any, searcher: Any, scheduler: Any, *, signals: Any, **_: Any
    ) -> None:
        trials = Executor(inputs, searcher, scheduler, students=students)
        try:
            trials.run(random.Random(seed))
        finally:
            trials.close()

    def confirm(folder: Any, chosen: Any, inputs: Any, **_: Any) -> None:
        config = inputs.trial.config
        left = confirmation.left_to_confirm(folder, chosen, config)
        for crew in confirmation._crews(left, config, students):
            confirmation._confirm_crew(inputs, crew)

    def cluster(self: Any, inputs: Any) -> Any:
        return nullcontext((inputs, placement(students, 2)))

    with (
        without_ray(),
        mock.patch.object(search, "run_tune", run_tune),
        mock.patch.object(search, "confirm", confirm),
        mock.patch.object(search, "wait_for_room"),
        mock.patch.object(search._Search, "_cluster", cluster),
        # So that weights are removed, as in a search of many trials.
        mock.patch.object(training, "SPARE", 0),
    ):
        yield


def perform(runs: Path, config: Config, *, resume: bool, console: Console | None = None) -> Any:
    """Start or resume the search ``kd``."""
    console = console or Console(quiet=True)
    folder = RunFolder.named(runs, "kd")
    request = make_request(config, {}, folder, resume=resume, address=None, console=console)
    return search.search(request)


@contextmanager
def told(disk: WatchedDisk) -> Iterator[None]:
    """Note in the record of the disk what the user is told, as `recorded_search` does."""
    finish, report = Ledger.finish, Ledger.report
    teacher = RunFolder.write_teacher

    def finished(ledger: Ledger, number: int, *args: Any, **kwargs: Any) -> None:
        finish(ledger, number, *args, **kwargs)
        disk.mark("ended", asdict(ledger.folder.trial(number).record()))

    def reported(ledger: Ledger, number: int, result: dict[str, Any]) -> None:
        report(ledger, number, result)
        disk.mark("reported", (number, len(ledger._running[number].curve)))

    def kept(folder: RunFolder, weights: Any, description: dict[str, Any]) -> None:
        teacher(folder, weights, description)
        disk.mark("teacher", description["fingerprint"])

    with (
        mock.patch.object(Ledger, "finish", finished),
        mock.patch.object(Ledger, "report", reported),
        mock.patch.object(RunFolder, "write_teacher", kept),
    ):
        yield


def record(path: Path, *, seed: int, students: int, life: int = 300) -> list[Operation]:
    """Record a search that dies after some operations, is resumed, and then extended."""
    operations: list[Operation] = []
    (path / "disk").mkdir()
    seeded = {"seed": seed}
    with (
        mock.patch.dict("os.environ", {"KDSEARCH_CACHE": str(path / "disk" / "cache")}),
        watched(Plan((str(path / "disk"),)), operations.append) as disk,
        told(disk),
        in_this_process(seed, students),
    ):
        for resume, trials, life_left in ((False, 6, life), (True, 6, None), (True, 8, None)):
            disk.mark("driver", None)
            disk.life = life_left
            config = space(search={**SPACE["search"], **seeded, "num_samples": trials})
            try:
                perform(path / "disk" / "runs", config, resume=resume)
            except SystemExit:
                disk.life = None
            else:
                disk.mark("complete", None)
    return operations
