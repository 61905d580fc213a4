"""Students trained epoch by epoch, each epoch kept on disk before the next begins."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from kdsearch.methods.protocol import EpochReport, Method, Stack, State
from kdsearch.runs.folder import TrialFolder
from kdsearch.tuning.workers.messages import EPOCH, EPOCHS, SECONDS, VAL_AUC, Result

# The run folder takes no more or is out of reach, which is nothing that another try or another
# trial can mend.
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
# Checkpoints are written by so many threads: hashing and the disk wait for each other else.
WRITERS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """What is written down of one epoch: its report, the state after it, the best weights."""

    report: EpochReport
    state: State
    best: State | None


class Training:
    """One student, its slot of a stack, and the folder from which it goes on after any kill."""

    def __init__(self, settings: BaseModel, *, seed: int, folder: TrialFolder) -> None:
        """Read the folder's checkpoint, if there is one; nothing is trained yet."""
        self.settings = settings
        self.epochs = int(cast("Any", settings).epochs)
        self.folder = folder
        self._seed = seed
        checkpoint = folder.checkpoint()
        self._state = None if checkpoint is None else checkpoint.state
        self.history: list[EpochReport] = [] if checkpoint is None else checkpoint.history
        self._stack: Stack | None = None
        self.slot = 0

    @property
    def done(self) -> bool:
        """Whether the last epoch is trained."""
        return len(self.history) >= self.epochs

    def enter(self, stack: Stack, slot: int) -> None:
        """Take an empty slot, anew or where the checkpoint or another stack ended."""
        if self._stack is not None:
            self._state = self._stack.save(self.slot)
            self.leave()
        stack.put_in(slot, self.settings, seed=self._seed, state=self._state)
        self._stack, self.slot, self._state = stack, slot, None

    def leave(self) -> None:
        """Empty the slot."""
        if self._stack is not None:
            self._stack.take_out(self.slot)
            self._stack = None

    def abandon(self) -> None:
        """Forget a stack that failed as a whole; its slot is not used again."""
        self._stack = None

    def taken(self, outcome: EpochReport | Exception) -> Kept:
        """Everything to be kept of the epoch that the stack has just trained.

        Raises:
            TrialDiverged: A loss or score became NaN or infinite; the slot is empty then.
        """
        if isinstance(outcome, Exception):
            self._stack = None
            raise outcome
        stack = cast("Stack", self._stack)
        improved = all(outcome.val_auc > earlier.val_auc for earlier in self.history)
        best = stack.weights(self.slot) if improved else None
        return Kept(outcome, stack.save(self.slot), best)

    def keep(self, kept: Kept) -> None:
        """Write an epoch down.

        Raises:
            OSError: The folder takes no more.
            Superseded: A newer driver owns the run.
        """
        self.folder.write(kept.report, self.history, kept.state, best=kept.best)
        self.history = [*self.history, kept.report]

    def result(self, epoch: int) -> Result:
        """What Tune is told of an epoch, counted from 1."""
        history = self.history[:epoch]
        return {
            EPOCH: epoch,
            EPOCHS: self.epochs,
            VAL_AUC: max(report.val_auc for report in history),
            SECONDS: sum(report.seconds for report in history),
        }


def structure(method: Method, settings: BaseModel) -> str:
    """Whatever students of one stack have in common, as a key."""
    return settings.model_dump_json(exclude=set(method.per_student))


def advance(stack: Stack, trainings: Sequence[Training]) -> list[Exception | None]:
    """Train the whole stack for one epoch and keep it for each student.

    Returns:
        For each training None, or what ended it: see `Training.taken` and `Training.keep`.
        One student's trouble is not its neighbours'.
    """
    outcomes = stack.advance()
    # A stack answers one question at a time; files are written side by side.
    taken = [_attempt(partial(t.taken, outcomes[t.slot])) for t in trainings]
    with ThreadPoolExecutor(WRITERS) as writers:
        return list(writers.map(_kept, trainings, taken))


def train_to_the_end(stack: Stack, trainings: Sequence[Training]) -> list[Exception | None]:
    """Train students of one structure side by side, each to its last epoch.

    Returns:
        For each training None, or what ended it: see `advance`.
    """
    ended: dict[Training, Exception] = {}
    for slot, training in enumerate(trainings):
        if not training.done:
            training.enter(stack, slot)
    while left := [t for t in trainings if not t.done and t not in ended]:
        for training, error in zip(left, advance(stack, left), strict=True):
            if error is not None:
                ended[training] = error
            if error is not None or training.done:
                training.leave()
    return [ended.get(training) for training in trainings]


def _kept(training: Training, taken: Kept | Exception) -> Exception | None:
    return taken if isinstance(taken, Exception) else _attempt(partial(training.keep, taken))


def _attempt(action: Callable[[], T]) -> T | Exception:
    try:
        return action()
    except Exception as error:  # noqa: BLE001
        # The caller tells whose it is.
        return error
