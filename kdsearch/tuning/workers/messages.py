"""Messages from a trial to Tune, and from a packer to a packed trial.

Does not import torch, which the process of a packed trial does not need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

EPOCH, EPOCHS, BEST_SO_FAR, SECONDS = "epoch", "epochs", "best_so_far", "seconds"
FAILURE, STORAGE = "failure", "storage"

Result = dict[str, Any]


def failed(reason: str) -> Result:
    """The trial failed, and another try would fail too."""
    return {FAILURE: reason, EPOCH: 0, BEST_SO_FAR: float("nan")}


def unstorable(reason: str) -> Result:
    """The search has to stop and be resumed later: no other try or trial would do better."""
    return {STORAGE: reason, EPOCH: 0, BEST_SO_FAR: float("nan")}


@dataclass(frozen=True)
class Entry:
    """A slot of a packer, from the trial's side.

    Attributes:
        ticket: Names the slot's occupation; never used twice, also not by another packer.
        history: A result per report that the trial's checkpoint holds.
        done: Whether nothing is left to train.
    """

    ticket: str
    history: list[Result]
    done: bool


@dataclass(frozen=True)
class Outcome:
    """Outcome of a student's epoch, or of an attempt to enter a packer.

    Attributes:
        kind: ``trained``; ``final``, its result ends the trial or the search; ``crashed``,
            another try may help and the reason is in the trial's folder; ``suspected``,
            something failed while it trained beside others, and it has to repeat the epoch
            alone; ``again``, it has lost its slot through no fault of its own; ``superseded``,
            a newer driver has taken over.
        result: For Tune, if ``trained`` or ``final``; the newest report, which Tune may have
            seen already if an epoch is trained in parts.
        done: Whether that was the last epoch.
    """

    kind: Literal["trained", "final", "crashed", "suspected", "again", "superseded"]
    result: Result = field(default_factory=dict)
    done: bool = False
