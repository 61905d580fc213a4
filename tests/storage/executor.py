"""Runs the trials of a search in threads of this process, in place of Ray.

What is replaced is Tune, which starts trials and passes their reports on, and the calls between
processes. The searcher, the scheduler, the ledger, the trials' function, the packer and every
file are the real ones. A trial waits in each report until the executor takes it, so that a test
chooses the order of events and where a process dies. One thread runs at a time (`Turns`), so
that the same choices lead to the same operations in the same order.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from kdsearch.methods.protocol import Compute
from kdsearch.runs import driver_lock, study_view
from kdsearch.tuning import live_report
from kdsearch.tuning.placement import Placement, Processes
from kdsearch.tuning.tune import StudyScheduler, StudySearcher
from kdsearch.tuning.workers import packed_trial, packer, slots, training
from kdsearch.tuning.workers import trial as single_trial
from kdsearch.tuning.workers.packer import Packer
from kdsearch.tuning.workers.trial import TrialInputs

CPU = Compute("cpu", "fp32")
STUCK_S = 60.0


# Ends a thread whose process was killed: nothing is printed for it.
Killed = SystemExit


@dataclass(eq=False)
class Turn:
    """A thread that waits for a condition, until a time."""

    ready: Callable[[], bool] = lambda: True
    until: float = math.inf
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Turns:
    """Threads of which one runs at a time, until it waits; the next is always the same one.

    Time passes only when every thread waits for it.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._mine = threading.local()
        self._mine.turn = Turn()
        self._waiting: list[Turn] = []

    def start(self, work: Callable[[], object]) -> None:
        """Start a thread, which begins when this one waits."""
        turn = Turn()

        def run() -> None:
            self._mine.turn = turn
            turn.go.acquire()
            try:
                work()
            except Killed:
                pass
            finally:
                self._next()

        self._waiting.append(turn)
        threading.Thread(target=run, daemon=True).start()

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let others run until something is true; return whether it is."""
        turn: Turn = self._mine.turn
        turn.ready = ready
        turn.until = math.inf if timeout is None else self.now + timeout
        self._waiting.append(turn)
        self._next()
        turn.go.acquire()
        return ready()

    def finish(self) -> None:
        """Wait until this is the only thread."""
        assert self.wait(lambda: len(self._waiting) <= 1, STUCK_S), "a thread does not end"
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.wait(lambda: False, seconds)

    def time(self) -> float:
        return self.now

    def _next(self) -> None:
        turn = next((t for t in self._waiting if t.ready()), None)
        if turn is None:
            turn = min(self._waiting, key=lambda t: t.until)
            self.now = max(self.now, turn.until)
        self._waiting.remove(turn)
        turn.go.release()


TURNS = Turns()


class Condition:
    """A `threading.Condition` between threads of which one runs at a time."""

    def __init__(self) -> None:
        self._notified = 0

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

    def notify_all(self) -> None:
        self._notified += 1

    def wait(self, timeout: float) -> bool:
        before = self._notified
        return TURNS.wait(lambda: self._notified > before, timeout)

    wait_for = staticmethod(TURNS.wait)


class Thread:
    def __init__(self, target: Callable[[], object], **_: object) -> None:
        self._target, self._alive = target, False

    def start(self) -> None:
        self._alive = True
        TURNS.start(self._run)

    def _run(self) -> None:
        try:
            self._target()
        finally:
            self._alive = False

    def is_alive(self) -> bool:
        return self._alive

    def join(self, timeout: float | None = None) -> None:
        TURNS.wait(lambda: not self._alive, timeout)


class Event:
    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return TURNS.wait(self.is_set, timeout)


class Queue:
    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        TURNS.wait(lambda: bool(self._items))
        return self._items.popleft()


THREADING = SimpleNamespace(
    Condition=Condition, Event=Event, Lock=threading.Lock, Thread=Thread
)
TIME = SimpleNamespace(monotonic=TURNS.time, sleep=TURNS.sleep, time=time.time)


class Immediate:
    """A pool that does its work when it is given."""

    def __init__(self, *_: object) -> None: ...

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)
        return future


@dataclass(eq=False)
class Trial:
    """A trial of Tune's, and the thread that is its process."""

    trial_id: str
    config: dict[str, Any]
    waiting: dict[str, Any] | None = None
    answer: str = ""
    calling: str = ""
    over: bool = False
    error: BaseException | None = None
    killed: bool = False

    @property
    def settled(self) -> bool:
        """Whether it waits in a report, or has ended."""
        return self.over or (self.waiting is not None and not self.answer)


_mine = threading.local()


def report(result: dict[str, Any]) -> None:
    """What `tune.report` does: hand a result over, and end here if Tune says so."""
    trial: Trial = _mine.trial
    if trial.killed:
        raise Killed
    trial.waiting, trial.answer = dict(result), ""
    TURNS.wait(lambda: bool(trial.answer) or trial.killed)
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
    for member in lost._slots.members.values():
        member.state = "gone"
        member.outcome = packer.Outcome("again")
    lost._slots.members.clear()
    lost._changed.notify_all()


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


def no_repetition(*_: object) -> AbstractContextManager[None]:
    """A driver does not renew its claim."""
    return nullcontext()


REPLACED: tuple[tuple[Any, dict[str, Any]], ...] = (
    (single_trial, {"tune": SimpleNamespace(report=report)}),
    (
        packed_trial,
        {
            "tune": SimpleNamespace(report=report),
            "ray": FakeRay,
            "time": TIME,
            "RETRY_S": 0.001,
        },
    ),
    (driver_lock, {"time": TIME, "_clock": TURNS.time, "_repeated": no_repetition}),
    (live_report, {"time": TIME, "threading": THREADING}),
    (study_view, {"threading": THREADING, "queue": SimpleNamespace(SimpleQueue=Queue)}),
    (
        packer,
        {
            "threading": THREADING,
            "logger": mock.Mock(),
            "TICK_S": 0.0005,
            "IDLE_TICK_S": 0.02,
        },
    ),
    (training, {"ThreadPoolExecutor": Immediate, "time": TIME}),
    (slots, {"FIRST_LINGER_S": 0.0, "LINGER_S": (0.0, 0.0), "LEASE_S": 0.2}),
)


@contextmanager
def without_ray() -> Iterator[None]:
    """Let trials report to an executor, and let packers not wait for other processes."""
    with ExitStack() as patches:
        for owner, replacements in REPLACED:
            patches.enter_context(mock.patch.multiple(owner, **replacements))
        try:
            yield
        finally:
            TURNS.finish()


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
            self.handle = Handle(
                lambda: Packer(inputs, students, die=lambda: None, clock=TURNS.time)
            )

    def start(self) -> bool:
        """Start as many trials as may run; return whether any runs."""
        while len(self.trials) < self._at_a_time:
            trial_id = f"t{self._started}"
            config = self._searcher.suggest(trial_id)
            if config is None or config == Searcher.FINISHED:
                break
            self._started += 1
            trial = Trial(trial_id, config)
            self.trials.append(trial)
            TURNS.start(partial(self._run, trial))
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
        trial.over = True

    def settle(self) -> list[Trial]:
        """Wait until nothing happens any more; return the trials that report or have ended."""
        assert TURNS.wait(self._all_settled, STUCK_S), f"{self.trials} do not report"
        return [t for t in self.trials if t.settled]

    def _all_settled(self) -> bool:
        settled = [t for t in self.trials if t.settled]
        return len(settled) == len(self.trials) or bool(settled and self._waits_for(settled))

    def settle_one(self, trial: Trial) -> None:
        """Wait until this trial reports or has ended."""
        assert TURNS.wait(lambda: trial.settled, STUCK_S), f"{trial} does not report"

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
            trial.answer = answer
            if answer == TrialScheduler.STOP:
                self._end(trial, error=False)
        elif trial.over:
            self._end(trial, error=trial.error is not None or trial.killed)

    def kill(self, trial: Trial) -> None:
        """Kill the process of a settled trial."""
        trial.killed, trial.waiting = True, None
        self._end(trial, error=True)

    def _end(self, trial: Trial, *, error: bool) -> None:
        assert TURNS.wait(lambda: trial.over, STUCK_S), f"{trial} does not end"
        self.trials.remove(trial)
        self._searcher.on_trial_complete(trial.trial_id, error=error)

    def run(self, chance: random.Random) -> None:
        """Run to the end of the search, with reports in random order."""
        while self.start():
            self.take(chance.choice(self.settle()))

    def close(self) -> None:
        """End every thread, as if the machine lost its power."""
        for trial in self.trials:
            trial.killed = True
        if self.handle is not None:
            self.handle.close()
        assert TURNS.wait(lambda: all(t.over for t in self.trials), STUCK_S)


def placement(students: int, at_a_time: int) -> Placement:
    return Placement((Processes(CPU, 1, 1, students),), at_a_time)
