"""A trial whose student trains in a packer, together with students of other trials.

Its process sends requests, waits and reports; it never imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune

from kdsearch.tuning.workers.messages import EPOCH, Entry, Outcome, unstorable

# How often a trial asks again for a free slot.
RETRY_S = 0.1
# How long a packer may take to read a trial's checkpoint.
ENTER_S = 60.0
# After so long without an answer from any packer the search stops, to be resumed when its
# machines are back; sooner if none of them can start.
SILENCE_S, DEAD_S = 600.0, 10.0


class TrialCrashed(Exception):
    """The student's epoch failed; the reason is in the trial's folder, if one is known."""


def train_in_packer(trial: dict[str, Any], packers: Sequence[Any]) -> None:
    """Train the student that ``trial`` names in one of the packers.

    If a packer dies, its students enter again from their checkpoints, under suspicion until
    an epoch without neighbours has cleared them. Only a student that trained alone counts as
    the cause.

    Args:
        trial: As for `trial.train_student`.
        packers: Handles of the actors, see `packer.Packer`.

    Raises:
        TrialCrashed: Tune's retries may help.
    """
    visit, slots = _Visit(trial), _FreeSlots(packers, trial["number"])
    while not visit.over:
        packer = slots.roomiest()
        if packer is not None:
            visit.enter(packer)
        elif reason := slots.silent():
            tune.report(unstorable(reason))
            return
        else:
            time.sleep(RETRY_S)


class _FreeSlots:
    """Asks all packers for slots free for a trial; a silent one does not delay the others."""

    def __init__(self, packers: Sequence[Any], number: int) -> None:
        self._packers = packers
        self._number = number
        self._asked: dict[int, Any] = {}
        self._dead: dict[int, str] = {}
        self._heard = time.monotonic()

    def silent(self) -> str:
        """Why there is nothing left to wait for; empty while a packer answers."""
        silence_s = time.monotonic() - self._heard
        if len(self._dead) == len(self._packers) and silence_s > DEAD_S:
            return f"no process that trains students can start: {max(self._dead.values())}"
        if silence_s > SILENCE_S:
            minutes = SILENCE_S / 60
            return f"no process that trains students has answered for {minutes:.0f} minutes"
        return ""

    def roomiest(self) -> Any | None:
        """The packer with the most free slots; None if those that answer have none."""
        for index, packer in enumerate(self._packers):
            # One that is not there yet is asked once: calls to it would pile up.
            if index not in self._asked:
                self._asked[index] = packer.free.remote(self._number)
        answered, _ = ray.wait(
            list(self._asked.values()), num_returns=len(self._asked), timeout=RETRY_S
        )
        free: dict[int, int] = {}
        for index in [i for i, call in self._asked.items() if call in answered]:
            self._dead.pop(index, None)
            try:
                free[index] = ray.get(self._asked.pop(index))
            except ray.exceptions.ActorDiedError as error:
                # For good; one that starts again is only unavailable.
                self._dead[index] = str(error).strip().rpartition("\n")[2]
            except ray.exceptions.RayActorError:
                continue
        if free:
            self._heard = time.monotonic()
        most = max(free, key=free.__getitem__, default=None)
        return self._packers[most] if most is not None and free[most] else None


def _answer(call: Any, timeout: float | None = None) -> Any:
    """The answer of a packer; None if it is dead, restarts, or does not answer in time."""
    try:
        return ray.get(call, timeout=timeout)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return None


class _Visit:
    """One trial's stay in one packer after the other, until its end."""

    def __init__(self, trial: dict[str, Any]) -> None:
        self.over = False
        self._trial = trial
        self._suspect = False
        self._reported: int | float = 0

    def enter(self, packer: Any) -> None:
        """Train in this packer, if it has a free slot, until the end or until it is lost."""
        entry = _answer(packer.enter.remote(self._trial, self._suspect), ENTER_S)
        if isinstance(entry, Outcome):
            self._handle(entry)
        elif entry is not None:
            try:
                self._stay(packer, entry)
            finally:
                # Also when Tune stops the trial, which comes as an exception out of a report.
                packer.leave.remote(entry.ticket)

    def _stay(self, packer: Any, entry: Entry) -> None:
        for result in entry.history:
            self._report(result)
        self.over, trained = entry.done, True
        while trained and not self.over:
            alone = _answer(packer.begin.remote(entry.ticket))
            if alone is None:
                return
            outcome = _answer(packer.result.remote(entry.ticket))
            if outcome is None:
                outcome = Outcome("crashed" if alone else "suspected")
            trained = self._handle(outcome)

    def _handle(self, outcome: Outcome) -> bool:
        """Report to Tune; return whether to stay in this packer."""
        if outcome.kind == "crashed":
            raise TrialCrashed("an epoch failed in which the student trained alone")
        self._suspect = outcome.kind == "suspected"
        self.over = outcome.done or outcome.kind in ("final", "superseded")
        if outcome.kind == "final":
            tune.report(outcome.result)
        elif outcome.kind == "trained":
            self._report(outcome.result)
        return outcome.kind == "trained"

    def _report(self, result: dict[str, Any]) -> None:
        # Tune has seen what a trial's checkpoint holds when it enters again, and what a round
        # returns that ends between two reports of this student.
        if result.get(EPOCH, 0) > self._reported:
            self._reported = result[EPOCH]
            tune.report(result)
