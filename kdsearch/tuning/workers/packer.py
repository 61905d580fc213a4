"""Students of many trials in one process: they come and go, and train side by side.

Every student is a trial of its own, with its own suggestion, decisions, checkpoint and row; the
trial's own process (`packed_trial`) hands its work to a packer and waits. A packer
starts an epoch when everybody who is in it has come back from the last one, after a short wait
for the successors of those who left. Students of one structure share one stack.

Nothing is lost with a packer: each student goes on from its own checkpoint. Where an epoch of
several students fails as a whole (an exception, or the death of the process), each of them
repeats it alone: who fails alone is to blame, and its neighbours are not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, cast

import torch

from kdsearch.errors import TrialDiverged
from kdsearch.methods.protocol import Stack
from kdsearch.runs.folder import Superseded, TrialFolder
from kdsearch.tuning.workers.messages import Entry, Outcome, failed, unstorable
from kdsearch.tuning.workers.training import Training, advance, structure
from kdsearch.tuning.workers.trial import (
    TrialInputs,
    folder_of,
    student_stack,
    training_of,
    unstorable_reason,
)

logger = logging.getLogger(__name__)

# How long an epoch waits for the successor of a student that left. A warm trial starts in 34 ms
# on an idle machine.
LINGER_S = 1.0
# The same before the first epoch of all, when the trials' processes are only just starting.
FIRST_LINGER_S = 10.0
# How long it waits for a student whose trial does not come back: its process must be dead.
LEASE_S = 30.0


@dataclass(eq=False)
class _Member:
    """A student in its place.

    Attributes:
        suspect: Whether its next epoch has to be without neighbours.
        since: When its trial was last heard of.
        state: ``away`` at its trial, ``ready`` for an epoch, ``called`` to one that begins once
            all have answered, or ``training``.
        alone: Whether the epoch that it is in, or was in last, has no other student.
        leaving: Whether its place is to be free after this epoch.
        stack: Key of its stack, once it is in one.
        outcome: Of its last epoch, until it is fetched.
    """

    ticket: int
    training: Training
    suspect: bool
    since: float
    state: Literal["away", "ready", "called", "training"] = "away"
    alone: bool = False
    leaving: bool = False
    stack: str | None = None
    outcome: Outcome | None = None


class Packer:
    """The students of one process. Its methods may be called from any thread.

    Args:
        inputs: What all trials share.
        places: How many students there may be at a time.
        expected: How many are about to come, for the first epoch to wait for.
        linger_s: How long an epoch waits for the successor of a student that left.
        lease_s: How long it waits for a student whose trial does not come back.
        die: Ends the process, when nothing in it can be trusted any longer.
    """

    def __init__(
        self,
        inputs: TrialInputs,
        places: int,
        *,
        expected: int = 1,
        linger_s: float = LINGER_S,
        lease_s: float = LEASE_S,
        die: Callable[[], object] = lambda: os._exit(1),
    ) -> None:
        self._inputs = inputs
        self._places = places
        self._linger_s = linger_s
        self._expected = expected
        self._lease_s = lease_s
        self._die = die
        self._members: dict[int, _Member] = {}
        self._tickets = 0
        self._changed = time.monotonic()
        self._news = threading.Condition()
        self._stacks: dict[str, Stack] = {}
        threading.Thread(target=self._work, name="packer", daemon=True).start()

    def free(self) -> int:
        """Places that nobody has."""
        with self._news:
            return max(0, self._places - len(self._members))

    def enter(self, trial: dict[str, Any], suspect: bool = False) -> Entry | None:
        """Come in, to train from the next epoch on.

        Args:
            trial: As for `trainable.train_student`.
            suspect: Whether the first epoch here has to be without neighbours.

        Returns:
            None where all places are taken.
        """
        if not self.free():
            return None
        # Reading a checkpoint takes a while, and the others are not to wait for it.
        try:
            training = training_of(trial, self._inputs)
        except Exception as error:
            _write_error(folder_of(trial, self._inputs), error)
            raise
        with self._news:
            if not self.free():
                return None
            self._tickets += 1
            self._members[self._tickets] = _Member(
                self._tickets, training, suspect, self._came_or_went()
            )
            history = [training.result(epoch + 1) for epoch in range(len(training.history))]
            return Entry(self._tickets, history, training.done)

    def begin(self, ticket: int) -> bool | None:
        """Come back for another epoch, and return when it is about to begin.

        It begins when every student's trial asks for its `result`, so that in case this
        process dies, all know whether they were in it.

        Returns:
            Whether the student trains without neighbours; None where nobody has this ticket,
            because its trial was away for too long.
        """
        with self._news:
            member = self._members.get(ticket)
            if member is None:
                return None
            member.state = "ready"
            self._news.notify_all()
            self._news.wait_for(lambda: member.state != "ready")
            return member.alone

    def result(self, ticket: int) -> Outcome:
        """What became of the epoch, as soon as it is known."""
        with self._news:
            member = self._members.get(ticket)
            if member is None:
                # It answered the call too late.
                return Outcome("suspected")
            member.state = "training"
            self._news.notify_all()
            self._news.wait_for(lambda: member.outcome is not None)
            outcome, member.outcome = cast("Outcome", member.outcome), None
            member.since = time.monotonic()
            if outcome.kind != "trained":
                self._forget(ticket)
            return outcome

    def leave(self, ticket: int) -> None:
        """Give the place free; whoever has left already may leave again."""
        with self._news:
            member = self._members.get(ticket)
            if member is None:
                return
            if member.state == "training" and member.outcome is None:
                member.leaving = True
            else:
                self._forget(ticket)

    def _came_or_went(self) -> float:
        self._changed = time.monotonic()
        self._news.notify_all()
        return self._changed

    def _forget(self, ticket: int) -> None:
        self._members.pop(ticket).training.leave()
        self._came_or_went()

    def _work(self) -> None:
        try:
            while True:
                self._epoch()
        except BaseException:
            # Without this thread everybody would wait for ever; a new process is better.
            logger.exception("the packer failed")
            self._die()
            raise

    def _epoch(self) -> None:
        with self._news:
            crew = self._called(self._next_crew())
        outcomes: list[Outcome] = []
        for key, group in groupby(crew, self._key):
            outcomes += self._train(key, list(group))
        with self._news:
            self._come_home(crew, outcomes)

    def _called(self, crew: Sequence[_Member]) -> list[_Member]:
        """Those who answer the call to an epoch, students of one stack together."""
        now = time.monotonic()
        for member in crew:
            member.state, member.alone, member.since = "called", len(crew) == 1, now
        self._news.notify_all()
        while any(member.state == "called" for member in self._members.values()):
            self._drop_overdue()
            self._news.wait(self._linger_s)
        here = self._members.values()
        return sorted((m for m in crew if m in here), key=self._key)

    def _next_crew(self) -> list[_Member]:
        """Wait until an epoch can begin, and say for whom."""
        while True:
            self._drop_overdue()
            states = {member.state for member in self._members.values()}
            full = len(self._members) >= (self._expected or self._places)
            linger = FIRST_LINGER_S if self._expected else self._linger_s
            settled = full or time.monotonic() >= self._changed + linger
            if states == {"ready"} and settled:
                ready = list(self._members.values())
                return [m for m in ready if m.suspect][:1] or ready
            # Woken by news; otherwise only time can change anything.
            self._news.wait(self._linger_s if "ready" in states else None)

    def _drop_overdue(self) -> None:
        oldest = time.monotonic() - self._lease_s
        for ticket, member in list(self._members.items()):
            if member.state in ("away", "called") and member.since < oldest:
                self._forget(ticket)

    def _key(self, member: _Member) -> str:
        key = structure(self._inputs.config.method, member.training.settings)
        # With a stack of its own it cannot harm the others, who keep theirs.
        return f"suspect {member.ticket} {key}" if member.suspect else key

    def _train(self, key: str, crew: Sequence[_Member]) -> list[Outcome]:
        try:
            with self._news:
                for member in crew:
                    self._place(member, key)
            errors = advance(self._stacks[key], [member.training for member in crew])
        except Exception as error:  # noqa: BLE001
            return self._break(key, crew, error)
        trained = zip(crew, errors, strict=True)
        return [self._outcome(member.training, error) for member, error in trained]

    def _place(self, member: _Member, key: str) -> None:
        """Put a student in the stack of this key, unless it is there."""
        if member.stack == key:
            return
        if key not in self._stacks:
            slots = 1 if member.suspect else self._places
            self._stacks[key] = student_stack(member.training.settings, slots, self._inputs)
        stack = self._stacks[key]
        taken = {m.training.slot for m in self._members.values() if m.stack == key}
        member.training.enter(stack, min(set(range(stack.slots)) - taken))
        member.stack = key

    def _outcome(self, training: Training, error: Exception | None) -> Outcome:
        if error is None:
            result = training.result(len(training.history))
            return Outcome("trained", result, training.done)
        if isinstance(error, TrialDiverged):
            return Outcome("lost", failed(str(error)))
        if isinstance(error, Superseded):
            return Outcome("superseded")
        full = unstorable_reason(error, training.folder)
        return Outcome("lost", unstorable(full)) if full else self._crashed(training, error)

    def _crashed(self, training: Training, error: Exception) -> Outcome:
        _write_error(training.folder, error)
        return Outcome("crashed")

    def _break(self, key: str, crew: Sequence[_Member], error: Exception) -> list[Outcome]:
        """A stack failed as a whole: nothing of it is used again."""
        with self._news:
            self._stacks.pop(key, None)
            for member in crew:
                member.training.abandon()
                member.stack = None
        outcomes = [Outcome("suspected")] * len(crew)
        if len(crew) == 1:
            outcomes = [self._crashed(crew[0].training, error)]
        if isinstance(error, torch.OutOfMemoryError):
            # As many as now do not fit; half of them will.
            self._places = max(1, len(crew) // 2)
            torch.cuda.empty_cache()
        elif self._inputs.compute.device == "cuda":
            # An error on a GPU may have spoilt the whole process's use of it.
            self._die()
        return outcomes

    def _come_home(self, crew: Sequence[_Member], outcomes: Sequence[Outcome]) -> None:
        now = time.monotonic()
        self._expected = 0
        for member, outcome in zip(crew, outcomes, strict=True):
            member.outcome = outcome
            member.state, member.since, member.suspect = "away", now, False
        for ticket in [t for t, m in self._members.items() if m.leaving]:
            self._forget(ticket)
        used = {member.stack for member in self._members.values()}
        for key in self._stacks.keys() - used:
            del self._stacks[key]
        self._news.notify_all()


def _write_error(folder: TrialFolder, error: Exception) -> None:
    with suppress(OSError):
        folder.write_error(f"{type(error).__name__}: {error}")
