"""Runs the trials of a search in threads of this process, in place of Ray.

What is replaced is Tune, which starts trials and passes their reports on, and the calls between
processes. The searcher, the scheduler, the ledger, the trials' function, the packer and every
file are the real ones. A trial waits in each report until the executor takes it, so that a test
chooses the order of events and where a process dies.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from kdsearch.methods.protocol import Compute
from kdsearch.tuning.placement import Placement, Processes
from kdsearch.tuning.tune import StudyScheduler, StudySearcher
from kdsearch.tuning.workers import packed_trial, packer, slots
from kdsearch.tuning.workers import trial as single_trial
from kdsearch.tuning.workers.packer import Packer
from kdsearch.tuning.workers.trial import TrialInputs

CPU = Compute("cpu", "fp32")
STUCK_S = 60.0


# Ends a thread whose process was killed: nothing is printed for it.
Killed = SystemExit


@dataclass(eq=False)
class Trial:
    """A trial of Tune's, and the thread that is its process."""

    trial_id: str
    config: dict[str, Any]
    thread: threading.Thread | None = None
    waiting: dict[str, Any] | None = None
    answer: str = ""
    calling: str = ""
    over: bool = False
    error: BaseException | None = None
    killed: bool = False
    turn: threading.Condition = field(default_factory=threading.Condition)

    @property
    def settled(self) -> bool:
        """Whether it waits in a report, or has ended."""
        with self.turn:
            return self.over or (self.waiting is not None and not self.answer)


_mine = threading.local()


def report(result: dict[str, Any]) -> None:
    """What `tune.report` does: hand a result over, and end here if Tune says so."""
    trial: Trial = _mine.trial
    with trial.turn:
        if trial.killed:
            raise Killed
        trial.waiting, trial.answer = dict(result), ""
        trial.turn.notify_all()
        trial.turn.wait_for(lambda: trial.answer or trial.killed)
        if trial.killed or trial.answer == TrialScheduler.STOP:
            raise Killed


class Handle:
    """A packer as `train_in_packer` holds it: each call is done where it is waited for."""

    def __init__(self, start: Callable[[], Packer]) -> None:
        self._start = start
        self._packer = start()
        self._life = 0

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(
            remote=lambda *args: _Call(self, self._life, name, args),
        )

    def restart(self) -> None:
        """Lose the process, and start another one as Ray does."""
        lost, self._life = self._packer, self._life + 1
        self._packer = self._start()
        end(lost)

    def members(self) -> list[Any]:
        with self._packer._changed:
            return list(self._packer._slots.members.values())

    def close(self) -> None:
        self._life += 1
        end(self._packer)


@dataclass(eq=False)
class _Call:
    handle: Handle
    life: int
    name: str
    args: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.name == "leave":
            self.answer()

    def answer(self) -> Any:
        if _mine.trial.killed:
            raise Killed
        handle = self.handle
        if self.life != handle._life:
            raise ray.exceptions.ActorUnavailableError("restarting", None)
        _mine.trial.calling = self.name
        answer = getattr(handle._packer, self.name)(*self.args)
        _mine.trial.calling = ""
        if self.life != handle._life:
            raise ray.exceptions.ActorUnavailableError("restarting", None)
        return answer


def end(lost: Packer) -> None:
    """End a packer's threads, and let everybody go who waits for it."""
    lost._clock = _killed_clock
    with lost._changed:
        for member in lost._slots.members.values():
            member.state = "gone"
            member.outcome = packer.Outcome("again")
        lost._slots.members.clear()
        lost._changed.notify_all()
    lost._trainer._writers.shutdown(wait=False)


def _killed_clock() -> float:
    raise Killed


class FakeRay:
    """As much of Ray as `packed_trial` uses."""

    exceptions = ray.exceptions

    @staticmethod
    def get(call: _Call, timeout: float | None = None) -> Any:
        return call.answer()

    @staticmethod
    def wait(calls: Sequence[_Call], **_: Any) -> tuple[list[_Call], list[_Call]]:
        return list(calls), []


@contextmanager
def without_ray() -> Iterator[None]:
    """Let trials report to an executor, and let packers not wait for other processes."""
    with (
        mock.patch.object(single_trial, "tune", SimpleNamespace(report=report)),
        mock.patch.object(packed_trial, "tune", SimpleNamespace(report=report)),
        mock.patch.object(packed_trial, "ray", FakeRay),
        mock.patch.object(packed_trial, "RETRY_S", 0.001),
        mock.patch.object(packer, "logger", mock.Mock()),
        mock.patch.object(packer, "TICK_S", 0.0005),
        mock.patch.object(packer, "IDLE_TICK_S", 0.02),
        mock.patch.object(slots, "FIRST_LINGER_S", 0.0),
        mock.patch.object(slots, "LINGER_S", (0.0, 0.0)),
        mock.patch.object(slots, "LEASE_S", 0.2),
    ):
        yield


class Executor:
    """The trials of one driver.

    Args:
        students: Students that a process trains side by side; with 1 each trial trains itself.
        at_a_time: Maximum number of concurrent trials.
    """

    def __init__(
        self,
        inputs: TrialInputs,
        searcher: StudySearcher,
        scheduler: StudyScheduler,
        *,
        students: int = 1,
        at_a_time: int = 2,
    ) -> None:
        self._inputs, self._searcher, self._scheduler = inputs, searcher, scheduler
        self._at_a_time = at_a_time
        self.trials: list[Trial] = []
        self._started = 0
        self.handle: Handle | None = None
        if students > 1:
            self.handle = Handle(lambda: Packer(inputs, students, die=lambda: None))

    def start(self) -> bool:
        """Start as many trials as may run; return whether any runs."""
        while len(self.trials) < self._at_a_time:
            trial_id = f"t{self._started}"
            config = self._searcher.suggest(trial_id)
            if config is None or config == Searcher.FINISHED:
                break
            self._started += 1
            trial = Trial(trial_id, config)
            trial.thread = threading.Thread(target=self._run, args=(trial,), daemon=True)
            self.trials.append(trial)
            trial.thread.start()
        return bool(self.trials)

    def _run(self, trial: Trial) -> None:
        _mine.trial = trial
        try:
            if self.handle is None:
                single_trial.train_student(trial.config, self._inputs)
            else:
                packed_trial.train_in_packer(trial.config, [self.handle])
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001
            trial.error = error
        with trial.turn:
            trial.over = True
            trial.turn.notify_all()

    def settle(self) -> list[Trial]:
        """Wait until nothing happens any more; return the trials that report or have ended."""
        deadline = time.monotonic() + STUCK_S
        while True:
            settled = [t for t in self.trials if t.settled]
            if len(settled) == len(self.trials) or (settled and self._waits_for(settled)):
                return settled
            assert time.monotonic() < deadline, f"{self.trials} do not report"
            time.sleep(0.0002)

    def settle_one(self, trial: Trial) -> None:
        """Wait until this trial reports or has ended."""
        deadline = time.monotonic() + STUCK_S
        while not trial.settled:
            assert time.monotonic() < deadline, f"{trial} does not report"
            time.sleep(0.0002)

    def _waits_for(self, settled: Sequence[Trial]) -> bool:
        """Whether the others wait in the packer for the epoch of those that report."""
        if self.handle is None:
            return False
        others = [t for t in self.trials if t not in settled]
        members = self.handle.members()
        at_trials = [m for m in members if m.state == "away"]
        return bool(at_trials) and all(
            t.calling == "begin"
            and any(m.number == t.config["number"] and m.state == "ready" for m in members)
            for t in others
        )

    def take(self, trial: Trial) -> None:
        """Pass on what a settled trial reports, or that it has ended."""
        if trial.waiting is not None and not trial.answer:
            result, trial.waiting = trial.waiting, None
            answer = self._scheduler.on_trial_result(None, trial, result)
            with trial.turn:
                trial.answer = answer
                trial.turn.notify_all()
            if answer == TrialScheduler.STOP:
                self._end(trial, error=False)
        elif trial.over:
            self._end(trial, error=trial.error is not None or trial.killed)

    def kill(self, trial: Trial) -> None:
        """Kill the process of a settled trial."""
        with trial.turn:
            trial.killed, trial.waiting = True, None
            trial.turn.notify_all()
        assert trial.thread is not None
        trial.thread.join(STUCK_S)
        self._end(trial, error=True)

    def _end(self, trial: Trial, *, error: bool) -> None:
        assert trial.thread is not None
        trial.thread.join(STUCK_S)
        self.trials.remove(trial)
        self._searcher.on_trial_complete(trial.trial_id, error=error)

    def run(self, chance: random.Random) -> None:
        """Run to the end of the search, with reports in random order."""
        while self.start():
            self.take(chance.choice(self.settle()))

    def close(self) -> None:
        """End every thread, as if the machine lost its power."""
        for trial in self.trials:
            with trial.turn:
                trial.killed = True
                trial.turn.notify_all()
        if self.handle is not None:
            self.handle.close()
        for trial in self.trials:
            assert trial.thread is not None
            trial.thread.join(STUCK_S)
            assert not trial.thread.is_alive()


def placement(students: int, at_a_time: int) -> Placement:
    return Placement((Processes(CPU, 1, 1, students),), at_a_time)
