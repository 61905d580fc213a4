"""Occupied slots of a packer, and the start of their next epoch.

Uses no threads and no clock: every method that depends on time gets the time as an argument.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kdsearch.tuning.workers.messages import Outcome
from kdsearch.tuning.workers.training import Training

# How long an epoch waits for the next member where a slot is free: this share of the last
# epoch's seconds, within these bounds. A warm trial starts in 34 ms on an idle machine, and TPE
# needs up to 50 ms for a suggestion.
LINGER_SHARE = 0.1
LINGER_S = (0.1, 1.0)
# The same before the first epoch, when the trials' processes are still starting.
FIRST_LINGER_S = 10.0
# How long an epoch waits for a member whose trial does not come back: its process must be dead.
LEASE_S = 30.0


@dataclass(eq=False)
class Member:
    """A student in a slot of the packer.

    Attributes:
        number: Of its trial.
        suspect: Whether its next epoch has to be without neighbours.
        since: Time of the last call of its trial.
        state: ``away`` (at its trial), ``ready`` for an epoch, ``called`` (to an epoch that
            begins once all have answered), ``training``, or ``gone``.
        alone: Whether the epoch that it is in, or was in last, has no other student.
        leaving: Whether its slot is released after this epoch.
        stack: Key of its stack, once it is in one.
        outcome: Of its last epoch, until it is fetched.
    """

    number: int
    training: Training
    suspect: bool
    since: float
    ticket: str = field(default_factory=lambda: secrets.token_hex(8))
    state: Literal["away", "ready", "called", "training", "gone"] = "away"
    alone: bool = False
    leaving: bool = False
    stack: str | None = None
    outcome: Outcome | None = None

    @property
    def in_epoch(self) -> bool:
        """Whether its epoch has begun and not ended."""
        return self.state == "training" and self.outcome is None


class Slots:
    """The members of a packer.

    Args:
        count: Maximum number of members.
        expected: Number of members that the first epoch waits for while their processes start;
            0 if they have started.
        now: The time.
    """

    def __init__(self, count: int, *, expected: int, now: float) -> None:
        self.count = count
        self.members: dict[str, Member] = {}
        self._expected = expected
        self._linger_s = FIRST_LINGER_S if expected else LINGER_S[1]
        self._changed = now

    def free(self, now: float, number: int | None = None) -> int:
        """Number of free slots, after members with an expired lease are removed.

        Args:
            number: Of the trial that asks. The slot of its earlier process is free as well,
                once the epoch that it may have begun has ended.
        """
        self.remove_overdue(now)
        taken = [m for m in self.members.values() if m.number != number or m.in_epoch]
        return max(0, self.count - len(taken))

    def occupy(
        self, number: int, training: Training, *, suspect: bool, now: float
    ) -> Member | None:
        """Add a member; None if no slot is free.

        A member of the same trial is removed first: its process must be dead.
        """
        self.release_trial(number, now)
        if not self.free(now):
            return None
        member = Member(number, training, suspect, now)
        self.members[member.ticket] = member
        self._changed = now
        return member

    def release(self, member: Member, now: float) -> None:
        """Release the slot, after the epoch if it is training. Safe to call twice."""
        if member.in_epoch:
            member.leaving = True
        elif self.members.pop(member.ticket, None) is not None:
            member.state = "gone"
            member.training.leave()
            self._changed = now

    def release_trial(self, number: int, now: float) -> None:
        """Release what a trial holds, after the epoch if it is training."""
        for member in [m for m in self.members.values() if m.number == number]:
            self.release(member, now)

    def remove_overdue(self, now: float) -> None:
        """Remove members whose trial has not come back, or not answered, within the lease."""
        for member in list(self.members.values()):
            if member.state in ("away", "called") and member.since < now - LEASE_S:
                self.release(member, now)

    def next_crew(self, now: float) -> list[Member]:
        """Call the members of the next epoch; empty if it cannot begin yet.

        It begins when all members are back and either no slot is free or no member has entered
        or left for a while. A student that has to train alone does not wait for new members.
        """
        self.remove_overdue(now)
        ready = list(self.members.values())
        if not ready or any(member.state != "ready" for member in ready):
            return []
        alone = [member for member in ready if member.suspect][:1]
        full = len(ready) >= (self._expected or self.count)
        if not alone and not full and now < self._changed + self._linger_s:
            return []
        crew = alone or ready
        for member in crew:
            member.state, member.alone, member.since = "called", len(crew) == 1, now
        return crew

    def answered(self, now: float) -> bool:
        """Whether every member that was called has answered, or its lease has expired."""
        self.remove_overdue(now)
        return all(member.state != "called" for member in self.members.values())

    def end_epoch(
        self, crew: Sequence[Member], outcomes: Sequence[Outcome], *, seconds: float, now: float
    ) -> None:
        """Give the members their outcomes; each goes back to its trial."""
        self._expected = 0
        shortest, longest = LINGER_S
        self._linger_s = min(longest, max(shortest, LINGER_SHARE * seconds))
        for member, outcome in zip(crew, outcomes, strict=True):
            member.outcome = outcome
            member.state, member.since, member.suspect = "away", now, False
            if member.leaving:
                self.release(member, now)

    def halve(self, crew: Sequence[Member], now: float) -> None:
        """Halve the number of slots; the newest members beyond it go.

        Args:
            crew: Members that leave anyway, since their stack did not fit.
        """
        self.count = max(1, len(self.members) // 2)
        stay = [m for m in self.members.values() if m not in crew]
        for member in stay[self.count :]:
            self.release(member, now)
