"""Students of many trials that train side by side in one process.

Every student belongs to its own trial, with its own suggestion, decisions, checkpoint and row.
The trial's process (`kdsearch.tuning.workers.packed_trial`) sends its work to a packer and
waits. `Slots` decides when an epoch starts and for which students. Students of one structure
share a stack.

If a packer dies, each student resumes from its own checkpoint. If an epoch of several students
fails as a whole (an exception, or the end of the process), each of them repeats it alone: a
student that fails alone caused the failure.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import torch

from kdsearch.methods.protocol import Stack
from kdsearch.tuning.workers.messages import Entry, Outcome
from kdsearch.tuning.workers.slots import Member, Slots
from kdsearch.tuning.workers.training import Trainer
from kdsearch.tuning.workers.trial import (
    TrialInputs,
    folder_of,
    outcome_of,
    student_stack,
    training_of,
)

logger = logging.getLogger(__name__)

# How often it is looked whether time alone lets an epoch begin, with members ready and without.
TICK_S, IDLE_TICK_S = 0.05, 1.0
# A stack at most half occupied for so many epochs in a row is replaced by a smaller one.
SHRINK_AFTER = 2


@dataclass
class _Shared:
    """A stack, and for how many epochs in a row at most half of its slots were occupied.

    An empty slot costs as much time and memory as an occupied one.
    """

    stack: Stack
    half_empty: int = 0

    def suits(self, students: int) -> bool:
        """Whether the stack is large enough, and has not been too large for a while."""
        half = 2 * students <= self.stack.slots
        self.half_empty = self.half_empty + 1 if half else 0
        return students <= self.stack.slots and self.half_empty < SHRINK_AFTER


class Packer:
    """The students of one process. Its methods may be called from any thread.

    Args:
        inputs: What all trials share.
        slots: Maximum number of students at a time.
        expected: As of `Slots`.
        die: Ends the process, if nothing in it can be trusted any longer.
        clock: The time in seconds.
    """

    def __init__(
        self,
        inputs: TrialInputs,
        slots: int,
        *,
        expected: int = 1,
        die: Callable[[], object] = lambda: os._exit(1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inputs = inputs
        self._die = die
        self._clock = clock
        self._slots = Slots(slots, expected=expected, now=clock())
        self._changed = threading.Condition()
        self._stacks: dict[str, _Shared] = {}
        self._crashed: set[int] = set()
        self._ending = self._saved = False
        kept = max(inputs.config.search.keep_weights, inputs.config.confirm.top)
        self._trainer = Trainer(
            inputs.task.data.validation,
            kept,
            behind=True,
            interval_s=inputs.config.resources.checkpoint_interval_s,
        )
        threading.Thread(target=self._work, name="packer", daemon=True).start()

    def free(self, number: int | None = None) -> int:
        """Number of free slots, for the trial of this number if one is given."""
        with self._changed:
            return self._slots.free(self._clock(), number)

    def enter(self, trial: dict[str, Any], suspect: bool = False) -> Entry | Outcome | None:
        """Occupy a slot, to train from the next epoch on.

        Args:
            trial: As for `trial.train_student`.
            suspect: Whether the first epoch here has to be without neighbours.

        Returns:
            None if no slot is free; an outcome if the trial's folder cannot be read.
        """
        if not self.free(trial["number"]):
            return None
        folder = folder_of(trial, self._inputs)
        # Reading a checkpoint takes a while, and the others must not wait for it.
        try:
            training = training_of(trial, self._inputs)
        except Exception as error:  # noqa: BLE001
            return outcome_of(error, folder)
        with self._changed:
            number = trial["number"]
            suspect = suspect or number in self._crashed
            member = self._slots.occupy(number, training, suspect=suspect, now=self._clock())
            self._changed.notify_all()
        if member is None:
            return None
        history = [training.result(number + 1) for number in range(len(training.history))]
        return Entry(member.ticket, history, training.done)

    def begin(self, ticket: str) -> bool | None:
        """Come back for another epoch, and return when it is about to begin.

        It begins when every student's trial asks for its `result`, so that if this process
        dies, all can tell whether they were in it.

        Returns:
            Whether the student trains without neighbours; None if it has no slot any more.
        """
        with self._changed:
            member = self._slots.members.get(ticket)
            if member is None:
                return None
            member.state = "ready"
            self._changed.notify_all()
            self._changed.wait_for(lambda: member.state != "ready")
            return member.alone if ticket in self._slots.members else None

    def result(self, ticket: str) -> Outcome:
        """Return the outcome of the epoch once it has ended."""
        with self._changed:
            member = self._slots.members.get(ticket)
            if member is None:
                return Outcome("again")
            member.state = "training"
            self._changed.notify_all()
            self._changed.wait_for(lambda: member.outcome is not None)
            outcome, member.outcome = cast("Outcome", member.outcome), None
            member.since = self._clock()
            if outcome.kind != "trained":
                self._slots.release(member, member.since)
            self._changed.notify_all()
            return outcome

    def leave(self, ticket: str) -> None:
        """Release the slot. Safe to call twice."""
        with self._changed:
            member = self._slots.members.get(ticket)
            if member is not None:
                self._slots.release(member, self._clock())
                self._changed.notify_all()

    def release(self, number: int) -> None:
        """Release the slot of a trial that has ended; its process may not say so for long."""
        with self._changed:
            self._slots.release_trial(number, self._clock())
            self._changed.notify_all()

    def save(self) -> None:
        """Write the missing checkpoints after the running epoch; no other begins."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._saved)

    def _work(self) -> None:
        try:
            while True:
                self._epoch()
        except BaseException:
            # Without this thread every caller would wait for ever; a new process is better.
            logger.exception("the packer failed")
            self._die()
            raise

    def _epoch(self) -> None:
        with self._changed:
            crew = self._next_crew()
        started = self._clock()
        outcomes: list[Outcome] = []
        for key, group in groupby(crew, self._key):
            outcomes += self._train(key, list(group))
        with self._changed:
            now = self._clock()
            self._slots.end_epoch(crew, outcomes, seconds=now - started, now=now)
            used = {member.stack for member in self._slots.members.values()}
            for key in self._stacks.keys() - used:
                del self._stacks[key]
            self._changed.notify_all()

    def _next_crew(self) -> list[Member]:
        """Wait for an epoch to begin; return who trains, students of one stack together."""
        while self._ending or not (called := self._slots.next_crew(self._clock())):
            if self._ending and not self._saved:
                members = [m for m in self._slots.members.values() if m.stack is not None]
                self._trainer.checkpoint([member.training for member in members])
                self._saved = True
                self._changed.notify_all()
            ready = any(m.state == "ready" for m in self._slots.members.values())
            self._changed.wait(TICK_S if ready else IDLE_TICK_S)
        self._changed.notify_all()
        while not self._slots.answered(self._clock()):
            self._changed.wait(IDLE_TICK_S)
        return sorted((m for m in called if m.state == "training"), key=self._key)

    def _key(self, member: Member) -> str:
        key = self._inputs.config.method.structure(member.training.settings)
        # With a stack of its own it cannot harm the others, who keep theirs.
        return f"suspect {member.ticket} {key}" if member.suspect else key

    def _train(self, key: str, crew: Sequence[Member]) -> list[Outcome]:
        try:
            stack = self._put_in(key, crew)
            errors = self._trainer.advance(stack, [member.training for member in crew])
        except Exception as error:  # noqa: BLE001
            return self._break(key, crew, error)
        outcomes = []
        for training in [member.training for member in crew]:
            if training in errors:
                outcomes.append(outcome_of(errors[training], training.folder))
            else:
                # No report while the first one is not due yet.
                newest = training.result(len(training.history)) if training.history else {}
                outcomes.append(Outcome("trained", newest, training.done))
        return outcomes

    def _put_in(self, key: str, crew: Sequence[Member]) -> Stack:
        """Put all students of a key into their stack, in one of another size if need be."""
        shared = self._stacks.get(key)
        if shared is None or not shared.suits(len(crew)):
            for member in crew:
                member.training.detach()
                member.stack = None
            # The old one goes first: both together might not fit into memory.
            shared = None
            self._stacks.pop(key, None)
            slots = min(1 << (len(crew) - 1).bit_length(), max(self._slots.count, len(crew)))
            settings = crew[0].training.settings
            shared = self._stacks[key] = _Shared(student_stack(settings, slots, self._inputs))
        for member in crew:
            if member.stack != key:
                taken = {m.training.slot for m in crew if m.stack == key}
                member.training.detach()
                member.training.enter(shared.stack, min(set(range(shared.stack.slots)) - taken))
                member.stack = key
        return shared.stack

    def _break(self, key: str, crew: Sequence[Member], error: Exception) -> list[Outcome]:
        """Drop a stack that failed as a whole."""
        with self._changed:
            self._stacks.pop(key, None)
            for member in crew:
                member.training.abandon()
                member.stack = None
            crowded = isinstance(error, torch.OutOfMemoryError) and not crew[0].alone
            if crowded:
                # As many as now do not fit; half of them will.
                self._slots.halve(crew, self._clock())
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            elif self._inputs.task.compute.device == "cuda":
                # An error on a GPU may have spoilt the whole process's use of it.
                self._die()
        if crowded or len(crew) > 1:
            return [Outcome("suspected")] * len(crew)
        # Its next try begins alone: it is not to break its neighbours' stack each time.
        self._crashed.add(crew[0].number)
        return [outcome_of(error, crew[0].training.folder)]
