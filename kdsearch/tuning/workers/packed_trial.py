"""A trial whose student trains elsewhere: in a packer, beside the students of other trials.

Its process asks, waits and reports, and never loads torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune

from kdsearch.tuning.workers.messages import EPOCH, Entry, Outcome

# How often a trial that found no place, or whose packer died, asks again.
RETRY_S = 0.1


class TrialCrashed(Exception):
    """The student's epoch failed; why is in the trial's folder, if it left a word."""


def train_in_packer(trial: dict[str, Any], packers: Sequence[Any]) -> None:
    """Train the student that ``trial`` names in one of the packers.

    Where a packer dies, its students come again from their checkpoints, under suspicion until
    an epoch without neighbours has cleared them. Only who trained alone takes the blame.

    Args:
        trial: As for `trainable.train_student`.
        packers: Handles of the actors, see `kdsearch.tuning.workers.packer.Packer`.

    Raises:
        TrialCrashed: Tune's retries may help.
    """
    visit = _Visit(trial)
    while not visit.over:
        packer = _roomiest(packers)
        if packer is None or not visit.enter(packer):
            time.sleep(RETRY_S)
            continue
        try:
            visit.stay(packer)
        finally:
            # Also when Tune stops the trial, which comes as an exception out of a report.
            visit.leave(packer)


def _roomiest(packers: Sequence[Any]) -> Any | None:
    """The packer with the most free places, if any has one."""
    free = [(_ask(packer.free.remote()) or 0, index) for index, packer in enumerate(packers)]
    most, index = max(free, key=lambda entry: (entry[0], -entry[1]))
    return packers[index] if most else None


def _ask(answer: Any) -> Any:
    """The answer of a packer, or None where it is dead or just starting anew."""
    try:
        return ray.get(answer)
    except ray.exceptions.RayActorError:
        return None


class _Visit:
    """One trial's way through packers, until its end."""

    def __init__(self, trial: dict[str, Any]) -> None:
        self.over = False
        self._trial = trial
        self._suspect = False
        self._told = 0
        self._entry: Entry | None = None

    def enter(self, packer: Any) -> bool:
        """Whether there was a place."""
        self._entry = _ask(packer.enter.remote(self._trial, self._suspect))
        return self._entry is not None

    def stay(self, packer: Any) -> None:
        """Train until the end, or until this packer cannot go on."""
        entry = self._here()
        for result in entry.history:
            self._tell(result)
        self.over = entry.done
        while not self.over:
            begun = _ask(packer.begin.remote(entry.ticket))
            if begun is None:
                return
            outcome = _ask(packer.result.remote(entry.ticket))
            if outcome is None:
                outcome = Outcome("crashed" if begun else "suspected")
            if not self._goes_on(outcome):
                return

    def leave(self, packer: Any) -> None:
        """Give the place free, without waiting for an answer."""
        packer.leave.remote(self._here().ticket)

    def _here(self) -> Entry:
        if self._entry is None:
            raise RuntimeError("not in a packer")
        return self._entry

    def _goes_on(self, outcome: Outcome) -> bool:
        """Tell Tune, and say whether to stay in this packer."""
        if outcome.kind == "crashed":
            raise TrialCrashed
        self._suspect = outcome.kind == "suspected"
        self.over = outcome.done or outcome.kind in ("lost", "superseded")
        if outcome.kind == "lost":
            tune.report(outcome.result)
        elif outcome.kind == "trained":
            self._tell(outcome.result)
        return outcome.kind == "trained"

    def _tell(self, result: dict[str, Any]) -> None:
        # Coming again, its checkpoint holds epochs that Tune knows.
        if result[EPOCH] > self._told:
            self._told = result[EPOCH]
            tune.report(result)
