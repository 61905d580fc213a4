"""What a trial tells Tune, and what a thin trial is told by its packer.

Without torch: a thin trial's process has no other use for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

EPOCH, EPOCHS, VAL_AUC, SECONDS = "epoch", "epochs", "val_auc", "seconds"
FAILURE, STORAGE = "failure", "storage"

Result = dict[str, Any]


def failed(reason: str) -> Result:
    """The trial is lost, and another try would be too."""
    return {FAILURE: reason, EPOCH: 0, VAL_AUC: float("nan")}


def unstorable(reason: str) -> Result:
    """The run folder takes no more, which neither another try nor another trial can mend."""
    return {STORAGE: reason, EPOCH: 0, VAL_AUC: float("nan")}


@dataclass(frozen=True)
class Entry:
    """What a trial is told when it comes in.

    Attributes:
        ticket: Its name from now on.
        history: A result per epoch that its checkpoint holds.
        done: Whether nothing is left to train.
    """

    ticket: int
    history: list[Result]
    done: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a student's epoch.

    Attributes:
        kind: ``trained``; ``lost``, its result ends the trial; ``crashed``, another try may
            help and the reason lies in the trial's folder; ``suspected``, something failed
            while it trained beside others, and it has to come again alone; ``superseded``, a
            newer driver has taken over.
        result: For Tune, if ``trained`` or ``lost``.
        done: Whether that was the last epoch.
    """

    kind: Literal["trained", "lost", "crashed", "suspected", "superseded"]
    result: Result = field(default_factory=dict)
    done: bool = False
