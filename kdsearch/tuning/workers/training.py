"""Train students epoch by epoch, each from and to its own folder."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from heapq import nlargest
from typing import Any, TypeAlias, cast

from pydantic import BaseModel

from kdsearch.data.beats import LabelledBeats
from kdsearch.errors import TrialDiverged
from kdsearch.files.atomic import remove
from kdsearch.methods.protocol import EpochReport, Stack, State, TrainedEpoch
from kdsearch.metrics.ranking import Metric, rank
from kdsearch.runs.trial_folder import TrialFolder
from kdsearch.tuning.workers.messages import BEST_SO_FAR, EPOCH, EPOCHS, SECONDS, Result

# Errors of the storage itself (full, read-only, gone, refused): no other try and no other trial
# would do better.
STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
)
# Threads that write files: with more, hashing and the disk wait for each other.
WRITERS = 4
# Trials beyond those whose weights are kept that are treated alike: better ones may still fail.
SPARE = 8

Write: TypeAlias = Callable[[], None]


class Training:
    """One student, its slot of a stack, and the folder from which it resumes."""

    def __init__(
        self,
        settings: BaseModel,
        *,
        seed: int,
        folder: TrialFolder,
        metric: Metric = "val_auc",
    ) -> None:
        """Read the folder's checkpoint, if there is one; nothing is trained yet.

        Args:
            metric: By which its best epoch is chosen.
        """
        self.settings = settings
        self.epochs = int(cast("Any", settings).epochs)
        self.folder = folder
        self.slot = 0
        self._seed = seed
        self._metric: Metric = metric
        checkpoint = folder.checkpoint()
        self._state = None if checkpoint is None else checkpoint.state
        self.history: list[EpochReport] = [] if checkpoint is None else checkpoint.history
        self._stack: Stack | None = None
        self._checkpointed = len(self.history)
        self._best_unwritten = False

    @property
    def done(self) -> bool:
        """Whether the last epoch is trained."""
        return len(self.history) >= self.epochs

    @property
    def best(self) -> EpochReport:
        """The best epoch so far, the first of equal ones."""
        return max(self.history, key=self._value)

    @property
    def value(self) -> float:
        """The metric at the best epoch."""
        return self._value(self.best)

    def enter(self, stack: Stack, slot: int) -> None:
        """Start in an empty slot: new, from the checkpoint, or from where it was detached."""
        stack.put_in(slot, self.settings, seed=self._seed, state=self._state)
        self._stack, self.slot, self._state = stack, slot, None

    def detach(self) -> None:
        """Empty the slot and keep the state, to enter another stack."""
        if self._stack is not None:
            self._state = self._stack.save(self.slot)
            self.leave()

    def leave(self) -> None:
        """Empty the slot."""
        if self._stack is not None:
            self._stack.take_out(self.slot)
            self._stack = None

    def abandon(self) -> None:
        """Drop a stack that failed as a whole."""
        self._stack = None

    def take(self, report: EpochReport) -> None:
        """Add an epoch to the history."""
        if all(self._value(report) > self._value(earlier) for earlier in self.history):
            self._best_unwritten = True
        self.history = [*self.history, report]

    def report_write(self, *, best: bool) -> Write:
        """Return what writes the newest epoch's line, and its weights if they are the best.

        Args:
            best: Whether the weights are needed even if the trial ends with this epoch. If
                not, they are written with the checkpoint, and those of an earlier epoch are
                removed: no weights are better than weights that belong to another value.
        """
        outdated, weights = self._best_unwritten and not best, None
        if self._best_unwritten and best:
            weights = self._occupied.weights(self.slot)
            self._best_unwritten = False
        return partial(self._write_report, self.history, weights, outdated)

    def checkpoint_write(self) -> Write | None:
        """Return what writes a checkpoint of the newest epoch; None if there is one."""
        epoch = len(self.history)
        if epoch == self._checkpointed:
            return None
        stack = self._occupied
        best = stack.weights(self.slot) if self._best_unwritten else None
        self._best_unwritten, self._checkpointed = False, epoch
        return partial(self._write_checkpoint, epoch, stack.save(self.slot), best)

    def result(self, epoch: int) -> Result:
        """What Tune is told of an epoch, counted from 1."""
        history = self.history[:epoch]
        return {
            EPOCH: epoch,
            EPOCHS: self.epochs,
            BEST_SO_FAR: max(map(self._value, history)),
            SECONDS: sum(report.seconds for report in history),
        }

    def _value(self, report: EpochReport) -> float:
        return report.value(self._metric)

    @property
    def _occupied(self) -> Stack:
        if self._stack is None:
            raise RuntimeError("not in a stack")
        return self._stack

    def _write_report(
        self, history: list[EpochReport], weights: State | None, outdated: bool
    ) -> None:
        self.folder.write_history(history)
        if weights is not None:
            self.folder.write_best(weights)
        elif outdated:
            remove(self.folder.best_file)

    def _write_checkpoint(self, epoch: int, state: State, best: State | None) -> None:
        if best is not None:
            self.folder.write_best(best)
        self.folder.write_checkpoint(epoch, state)


def judge(trained: TrainedEpoch, validation: LabelledBeats) -> EpochReport:
    """Rank the scores of the validation beats.

    Raises:
        TrialDiverged: A loss or a score is not finite.
    """
    numbers = {**trained.losses, "validation score": float(trained.scores.sum())}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise TrialDiverged(f"{name} became {value} in epoch {trained.epoch}")
    ranking = rank(trained.scores, validation.abnormal)
    return EpochReport(
        trained.epoch,
        trained.losses,
        trained.seconds,
        ranking.roc_auc(),
        ranking.average_precision(),
    )


class Trainer:
    """Trains stacks for an epoch at a time and writes what is kept of it.

    The line of an epoch is written before it is reported, and so are the best weights if they
    might be among those kept in the end. So a trial that is stopped needs no checkpoint.

    Args:
        validation: The beats that the stacks score after each epoch.
        keep_weights: Number of trials whose best weights are kept in the end.
        behind: Whether checkpoints are written while the next epoch is trained. That epoch is
            not reported before, so that a checkpoint is at most one epoch older than the newest
            report.
    """

    def __init__(self, validation: LabelledBeats, keep_weights: int, *, behind: bool) -> None:
        self._validation = validation
        self._keep_weights = keep_weights
        self._behind = behind
        self._best: dict[str, float] = {}
        self._writers = ThreadPoolExecutor(WRITERS, "writer")

    def advance(self, stack: Stack, trainings: Sequence[Training]) -> dict[Training, Exception]:
        """Train the whole stack for one epoch.

        Returns:
            What ended trainings: TrialDiverged, an OSError if the folder cannot be written, or
            Superseded. The error of one does not touch the others.
        """
        errors: dict[Training, Exception] = {}
        # Only this thread uses the stack; the others write copies of what was in it.
        checkpoints = self._begin({t: t.checkpoint_write() for t in trainings})
        try:
            trained = stack.advance()
        finally:
            errors |= _errors(checkpoints)
        for training in trainings:
            try:
                training.take(judge(trained[training.slot], self._validation))
            except TrialDiverged as error:
                training.leave()
                errors[training] = error
        for training in errors:
            self._best.pop(str(training.folder.path), None)
        left = [training for training in trainings if training not in errors]
        reports = {t: t.report_write(best=self._among_best(t)) for t in left}
        errors |= _errors(self._begin(reports))
        if not self._behind:
            errors |= self.checkpoint([t for t in left if t not in errors])
        return errors

    def checkpoint(self, trainings: Sequence[Training]) -> dict[Training, Exception]:
        """Write checkpoints of the newest epochs now.

        Returns:
            The errors, as `advance`.
        """
        return _errors(self._begin({t: t.checkpoint_write() for t in trainings}))

    def _begin(self, writes: Mapping[Training, Write | None]) -> dict[Training, Future[None]]:
        return {t: self._writers.submit(write) for t, write in writes.items() if write}

    def _among_best(self, training: Training) -> bool:
        """Whether this training's weights may be among those kept in the end.

        The best value of a training never falls: one that is not among the best seen so far
        will not be among the best in the end, unless better ones fail.
        """
        self._best[str(training.folder.path)] = training.value
        count = self._keep_weights + SPARE
        best = nlargest(count, self._best.values())
        bar = best[-1] if len(best) == count else -math.inf
        self._best = {path: value for path, value in self._best.items() if value >= bar}
        return training.value >= bar


def train_to_the_end(
    stack: Stack, trainings: Sequence[Training], validation: LabelledBeats
) -> list[Exception | None]:
    """Train students of one structure side by side, each to its last epoch.

    Returns:
        For each training None, or what ended it: see `Trainer.advance`.
    """
    trainer = Trainer(validation, len(trainings), behind=True)
    ended: dict[Training, Exception] = {}
    for slot, training in enumerate(trainings):
        if not training.done:
            training.enter(stack, slot)
    while left := [t for t in trainings if not t.done and t not in ended]:
        ended |= trainer.advance(stack, left)
        ended |= trainer.checkpoint([t for t in left if t.done and t not in ended])
        for training in left:
            if training.done or training in ended:
                training.leave()
    return [ended.get(training) for training in trainings]


def _errors(writing: Mapping[Training, Future[None]]) -> dict[Training, Exception]:
    """Wait for writes, and return what they raised."""
    raised = {training: future.exception() for training, future in writing.items()}
    return {t: error for t, error in raised.items() if isinstance(error, Exception)}
