"""Random histories of one run: drivers, workers and disks that fail in any order.

The record, rungs, sampler, ledger, packer, lock and files are the real ones; an `Executor` is
in the place of Tune. The model is what the user was told of each trial: `finished`, `params`
and `reported`.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
from counting import STEPS, chain
from crash_states import Disk, Tree
from executor import CPU, Executor, Trial, without_ray
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from resumed import Serial
from searches import space
from watched_disk import Fault, Plan, WatchedDisk

from kdsearch.config.space_file import Config
from kdsearch.data.beats import LabelledBeats, TrainingData
from kdsearch.errors import RunError, StorageFailed
from kdsearch.methods.protocol import Task
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.stop_requests import StopRequests
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.tuning.search import open_trials, read_trials
from kdsearch.tuning.workers import training
from kdsearch.tuning.workers.trial import TrialInputs, trial_seed

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
SAMPLERS = ("random", "tpe", "qmc")
BEATS = 8
# Seconds between checkpoints of students side by side: at each report, sometimes, never.
INTERVALS_S = (0.0, 0.02, 1e6)
CONFIGS: dict[tuple[int, str, float], Config] = {}
TASK = Task(
    data=TrainingData(
        np.zeros((4, 1, 8), np.float32),
        LabelledBeats(
            np.zeros((BEATS, 1, 8), np.float32),
            np.arange(BEATS) % 2 == 0,
            np.array(["V", "N"] * (BEATS // 2)),
            None,
        ),
    ),
    compute=CPU,
)


def config_of(trials: int, sampler: str, interval_s: float) -> Config:
    key = trials, sampler, interval_s
    if key not in CONFIGS:
        CONFIGS[key] = space(
            search={"num_samples": trials, "sampler": sampler, "startup_trials": 2},
            student={"epochs": 3},
            confirm={"top": 0},
            resources={"checkpoint_interval_s": interval_s},
        )
    return CONFIGS[key]


class History(RuleBasedStateMachine):
    """One run, from its first driver until every trial has ended."""

    # How often each event happened, over all histories.
    counted: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="k", dir="/dev/shm"))
        (self.path / "disk").mkdir()
        self.disk = Disk()
        self.watched = WatchedDisk(Plan((str(self.path / "disk"),)))
        self.watched.sink, self.watched.syncs = self.disk.apply, False
        self.patches = ExitStack()
        self.patches.enter_context(without_ray())
        for module in ("kdsearch.runs.folder", "kdsearch.tuning.ledger"):
            self.patches.enter_context(mock.patch(f"{module}.ThreadPoolExecutor", Serial))
        self.patches.enter_context(mock.patch.object(training, "SPARE", 0))
        self.watched.install()
        self.run = RunFolder(self.path / "disk" / "runs" / "kd")
        self.driver: ExitStack | None = None
        self.executor: Executor
        self.outlived: list[Executor] = []
        self.finished: dict[int, TrialRecord] = {}
        self.params: dict[int, dict[str, Any]] = {}
        self.reported: dict[int, int] = {}
        self.said: list[str] = []

    @initialize(
        students=st.integers(1, 2),
        trials=st.integers(1, 4),
        sampler=st.sampled_from(SAMPLERS),
        interval_s=st.sampled_from(INTERVALS_S),
    )
    def begin(self, students: int, trials: int, sampler: str, interval_s: float) -> None:
        self.counted["begin"] += 1
        self.students, self.trials, self.sampler = students, trials, sampler
        self.interval_s = interval_s
        self.resume()

    # What the user is told: an observer of the ledger.

    def started(self, suggestion: Suggestion) -> None:
        self.watched.mark("started", suggestion.number)
        self.params[suggestion.number] = suggestion.params

    def reported_(self, number: int, reports: int) -> None:
        self.watched.mark("reported", (number, reports))
        self.reported[number] = max(reports, self.reported.get(number, 0))

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        self.watched.mark("ended", number)
        record = self.run.trial(number).record()
        assert (record.state, record.reason) == (state, reason)
        self.finished[number] = record

    # Drivers.

    @precondition(lambda self: self.driver is None)
    @rule()
    def resume(self) -> None:
        self.counted["resume"] += 1
        config = config_of(self.trials, self.sampler, self.interval_s)
        self.driver = driver = ExitStack()
        self.said, self.watched.failed = [], []
        driver.enter_context(self.run.lock(self.said.append))
        records = read_trials(self.run, config, self.said.append)
        self.check(records)
        self.run.write_config(config.as_dict(), {})
        self.run.begin_work()
        searcher, scheduler = open_trials(
            self.run, config, records, _Observer(self), StopRequests(self.run)
        )
        inputs = TrialInputs(
            config=config,
            run=self.run.path,
            generation=self.run.generation,
            task=TASK,
            threads=1,
        )
        self.executor = Executor(inputs, searcher, scheduler, students=self.students)
        self.check_outlived()

    @precondition(lambda self: self.driver is not None)
    @rule(pick=st.integers(0, 7))
    def event(self, pick: int) -> None:
        """A trial reports, is stopped, fails or ends, and others begin."""
        self.counted["event"] += 1
        try:
            if self.executor.start():
                settled = self.executor.settle()
                self.executor.take(settled[pick % len(settled)])
        except StorageFailed as error:
            # The worker's operation may have failed some events ago.
            assert self.watched.failed, "the search ends without a reason"
            one_line(str(error))
            self.executor.close()
            self.leave()

    @precondition(lambda self: self.driver is not None)
    @rule(pick=st.integers(0, 7), events=st.integers(2, 6))
    def events(self, pick: int, events: int) -> None:
        for number in range(events):
            if self.driver is not None:
                self.event(pick + number)

    @precondition(lambda self: self.driver is not None)
    @rule()
    def second_driver(self) -> None:
        self.counted["second_driver"] += 1
        with (
            pytest.raises(RunError, match="another search is running in this folder"),
            RunFolder(self.run.path).lock(),
        ):
            raise AssertionError("two drivers have the run")

    @precondition(lambda self: self.driver is not None)
    @rule(pick=st.integers(0, 7))
    def lose_worker(self, pick: int) -> None:
        self.counted["lose_worker"] += 1
        if self.executor.start():
            settled = self.executor.settle()
            self.executor.kill(settled[pick % len(settled)])

    @precondition(lambda self: self.driver is not None and self.students > 1)
    @rule()
    def lose_packer(self) -> None:
        self.counted["lose_packer"] += 1
        if self.executor.start() and self.executor.handle is not None:
            self.executor.settle()
            self.executor.handle.restart()

    @precondition(lambda self: self.driver is not None)
    @rule()
    def interrupt(self) -> None:
        """A signal: the driver ends in order, its workers at once."""
        self.counted["interrupt"] += 1
        self.executor.close()
        self.leave()

    @precondition(lambda self: self.driver is not None)
    @rule()
    def lose_driver(self) -> None:
        """Its workers live on until they notice that another driver has the run."""
        self.counted["lose_driver"] += 1
        if self.executor.start():
            self.executor.settle()
        self.outlived.append(self.executor)
        self.leave()

    @precondition(lambda self: self.driver is not None)
    @rule(life=st.integers(0, 30), power=st.booleans(), seed=st.integers(0, 2**16))
    def crash(self, life: int, power: bool, seed: int) -> None:
        """The machine stops between two operations; after a power cut writes may be lost."""
        self.counted["crash"] += 1
        self.watched.life = life
        with suppress(SystemExit):
            self.events(seed, 4)
        chance = random.Random(seed)
        tree = self.disk.tree()
        if power:
            tree = chance.choice([*self.disk.states(chance, 6)])
        self.end_everything()
        self.put(tree)

    @precondition(lambda self: self.driver is not None)
    @rule(number=st.sampled_from(ERRORS), at=st.integers(0, 30), lasting=st.booleans())
    def fail_storage(self, number: int, at: int, lasting: bool) -> None:
        """An operation fails, or all from then on; the search ends with one line."""
        self.counted["fail_storage"] += 1
        fault = Fault(number, at=at, lasting=lasting)
        self.watched.plan = Plan(self.watched.plan.roots, fault=fault)
        self.watched._count = 0
        self.events(at, 4)
        self.watched.plan = Plan(self.watched.plan.roots)

    # The user.

    @precondition(lambda self: self.driver is None)
    @rule(more=st.integers(1, 2))
    def extend(self, more: int) -> None:
        self.counted["extend"] += 1
        self.trials = min(self.trials + more, 7)

    @precondition(lambda self: self.driver is None and not self.outlived)
    @rule()
    def move(self) -> None:
        self.counted["move"] += 1
        target = self.run.path.with_name(self.run.path.name + "x")
        self.run.path.rename(target)
        self.run = RunFolder(target)

    @precondition(lambda self: self.driver is None)
    @rule(pick=st.integers(0, 99), how=st.sampled_from(("gone", "empty", "torn", "noise")))
    def damage(self, pick: int, how: str) -> None:
        """Whatever comes of this trial, the others must not be touched."""
        self.counted["damage"] += 1
        files = sorted(p for p in self.run.trials.rglob("*") if p.is_file())
        if not files:
            return
        file = files[pick % len(files)]
        content = file.read_bytes()
        damaged = {
            "gone": b"",
            "empty": b"",
            "torn": content[: len(content) // 2],
            "noise": random.Random(pick).randbytes(len(content)),
        }[how]
        file.unlink()
        if how != "gone":
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, damaged)
            os.close(descriptor)
        number = int(file.parent.name)
        for told in (self.finished, self.params, self.reported):
            told.pop(number, None)

    # The promises.

    def check(self, records: list[TrialRecord]) -> None:
        found = {record.number: record for record in records}
        assert len(found) == len(records)
        for number, record in self.finished.items():
            assert found.get(number) == record, "a finished trial is lost or changed"
        for number, params in self.params.items():
            same = number in found and found[number].params == params
            assert same, "the settings of a trial are lost or changed"
        orders = [r.order for r in records if r.finished]
        assert len(set(orders)) == len(orders), "two trials ended at once"
        config = config_of(self.trials, self.sampler, self.interval_s)
        for record in records:
            trial = self.run.trial(record.number)
            seed = trial_seed(config, record.number)
            before = 0
            for report in trial.history():
                last = int(report.epoch * STEPS)
                expected = np.mean(chain(seed, last)[before + 1 :])
                found = report.losses["chain"]
                assert found == pytest.approx(expected, rel=1e-12), "trained from another state"
                before = last
            if record.finished and record.state != "failed":
                # Without any it is trained again if it is needed.
                with suppress(RunError):
                    assert trial.best_weights()["epoch"] == record.best_epoch
            checkpoint = trial.checkpoint()
            together = self.students > 1 and self.interval_s > 0
            if record.number in self.reported and not record.finished and not together:
                reports = len(checkpoint.history) if checkpoint else 0
                least = self.reported[record.number] - (self.students > 1)
                assert reports >= least, "more is lost than a report"

    def check_outlived(self) -> None:
        """Workers of an earlier driver write nothing any more."""
        before = self.disk.tree()
        for executor in self.outlived:
            for trial in executor.trials:
                self.let_go(executor, trial)
            executor.close()
        self.outlived = []
        assert self.disk.tree() == before, "a worker of an earlier driver writes"

    def let_go(self, executor: Executor, trial: Trial) -> None:
        """Let it train on, as it does without a driver."""
        waiting = trial.waiting is not None and not trial.answer
        trial.answer, trial.waiting = "CONTINUE", None
        if waiting and executor.handle is None:
            executor.settle_one(trial)

    # Around it.

    def leave(self) -> None:
        assert self.driver is not None
        self.driver.close()
        self.driver = None

    def end_everything(self) -> None:
        """What still happens to the disk is of no account: another state replaces it."""
        for executor in [self.executor, *self.outlived]:
            executor.close()
        self.outlived = []
        self.watched.life = None
        if self.driver is not None:
            self.leave()

    def put(self, tree: Tree) -> None:
        shutil.rmtree(self.path / "disk")
        (self.path / "disk").mkdir()
        for path in sorted(tree):
            content = tree[path]
            if content is None:
                (self.path / path).mkdir(exist_ok=True)
            else:
                (self.path / path).write_bytes(content)
        self.disk = Disk.of(tree)
        self.watched.sink = self.disk.apply

    def teardown(self) -> None:
        try:
            if hasattr(self, "students"):
                self.run_to_the_end()
        finally:
            self.watched.life = None
            for executor in self.outlived:
                executor.close()
            if self.driver is not None:
                self.executor.close()
                self.leave()
            self.watched.uninstall()
            self.patches.close()
            shutil.rmtree(self.path)

    def run_to_the_end(self) -> None:
        if self.driver is not None:
            self.executor.close()
            self.leave()
        self.resume()
        self.executor.run(random.Random(0))
        self.executor.close()
        records = self.run.records()
        self.check(records)
        assert [r.number for r in records] == [*range(self.trials)]
        assert all(r.finished for r in records)
        names = [p.name for p in self.run.trials.rglob("*")]
        assert "last.pt" not in names
        assert not [name for name in names if name.endswith(".tmp")]
        assert names.count("best.pt") <= 2


def one_line(text: str) -> None:
    assert "\n" not in text


class _Observer:
    def __init__(self, history: History) -> None:
        self.started, self.ended = history.started, history.ended
        self._history = history

    def reported(self, record: TrialRecord, epochs: int) -> None:
        self._history.reported_(record.number, len(record.curve))
