"""A packer as an actor of Ray's.

Without torch until an actor starts: a process that receives a handle imports this module, and
the trials' processes do not need torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from kdsearch.tuning.workers.messages import Entry, Outcome


class PackerActor:
    """A packer that fetches what all trials share itself: Ray may then start it again.

    Its methods are those of `packer.Packer`.
    """

    def __init__(self, shared: Sequence[Any], slots: int, expected: int) -> None:
        from kdsearch.tuning.workers.packer import Packer  # noqa: PLC0415

        # Ray started it again after a crash: the processes of its trials are running.
        if ray.get_runtime_context().was_current_actor_reconstructed:
            expected = 0
        self._packer = Packer(ray.get(shared[0]), slots, expected=expected)

    def free(self, number: int) -> int:
        """Number of free slots for the trial of this number."""
        return self._packer.free(number)

    def enter(self, trial: dict[str, Any], suspect: bool) -> Entry | Outcome | None:
        """Occupy a slot."""
        return self._packer.enter(trial, suspect)

    def begin(self, ticket: str) -> bool | None:
        """Come back for another epoch."""
        return self._packer.begin(ticket)

    def result(self, ticket: str) -> Outcome:
        """Return the outcome of the epoch once it has ended."""
        return self._packer.result(ticket)

    def leave(self, ticket: str) -> None:
        """Release the slot."""
        self._packer.leave(ticket)

    def release(self, number: int) -> None:
        """Release the slot of a trial that has ended."""
        self._packer.release(number)

    def save(self) -> None:
        """Write the missing checkpoints after the running epoch; no other begins."""
        self._packer.save()
