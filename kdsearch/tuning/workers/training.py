"""Train students from report to report, each from and to its own folder.

A report is due at each rung within the first epoch, at each validation within an epoch, and
after each epoch.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from heapq import nlargest
from typing import Any, TypeAlias, cast

from pydantic import BaseModel

from kdsearch.data.beats import LabelledBeats
from kdsearch.errors import TrialDiverged
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
        early_rungs: Sequence[float] = (),
        validations_per_epoch: int = 1,
    ) -> None:
        """Read the folder's checkpoint, if there is one; nothing is trained yet.

        Weights of a report that comes after it are removed.

        Args:
            metric: By which its best report is chosen.
            early_rungs: The rungs within the first epoch, as fractions of it.
            validations_per_epoch: The last of them after the epoch.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.settings = settings
        self.epochs = int(cast("Any", settings).epochs)
        self.folder = folder
        self.slot = 0
        self._seed = seed
        self._metric: Metric = metric
        count = validations_per_epoch
        self._within_epoch = [k / count for k in range(1, count)]
        self._within_first_epoch = sorted({*self._within_epoch, *early_rungs})
        checkpoint = folder.checkpoint()
        self._state = None if checkpoint is None else checkpoint.state
        self.history: list[EpochReport] = [] if checkpoint is None else checkpoint.history
        self.checkpoint_at = time.monotonic()
        """When the newest checkpoint was taken, or the training began."""
        if any(self._is_best(report) for report in folder.history()):
            # The reports after the checkpoint come again, unless the trial is stopped before.
            folder.remove_best()
        self._stack: Stack | None = None
        # What was trained since the last report, in parts of so many mini-batches.
        self._parts: list[tuple[int, TrainedEpoch]] = []
        self._checkpointed = len(self.history)
        self._best_unwritten = False

    @property
    def done(self) -> bool:
        """Whether the last epoch is trained."""
        return bool(self.history) and self.history[-1].epoch >= self.epochs

    @property
    def best(self) -> EpochReport:
        """The best report so far, the first of equal ones."""
        return max(self.history, key=self._value)

    @property
    def value(self) -> float:
        """The metric at the best report."""
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

    def steps_left(self) -> int:
        """Return the number of mini-batches until the next report."""
        due, _ = self._next_report()
        return due - self._reported_steps() - sum(steps for steps, _ in self._parts)

    def take(self, steps: int, trained: TrainedEpoch, validation: LabelledBeats) -> bool:
        """Add so many mini-batches; return whether this completes a report.

        Raises:
            TrialDiverged: A loss or a score of the report is not finite.
        """
        left = self.steps_left()
        self._parts.append((steps, trained))
        if steps < left:
            return False
        _, epoch = self._next_report()
        report = replace(judge(_joined(self._parts), validation), epoch=epoch)
        self._parts = []
        self._best_unwritten = self._is_best(report)
        self.history = [*self.history, report]
        return True

    def report_write(self, *, best: bool) -> Write:
        """Return what writes the newest report's line, and its weights if they are the best.

        Args:
            best: Whether the weights are needed even if the trial ends with this report. If
                not, they are written with a checkpoint of this report, and those of an earlier
                one are removed: no weights are better than weights of another value.
        """
        outdated, weights = self._best_unwritten and not best, None
        if self._best_unwritten and best:
            weights = self._occupied.weights(self.slot)
            self._best_unwritten = False
        return partial(self._write_report, self.history, weights, outdated)

    def checkpoint_write(self) -> Write | None:
        """Return what writes a checkpoint of the newest report.

        None if there is one, or if more has been trained since the report.
        """
        reports = len(self.history)
        if reports == self._checkpointed or self._parts:
            return None
        self.checkpoint_at = time.monotonic()
        stack = self._occupied
        best = stack.weights(self.slot) if self._best_unwritten else None
        self._best_unwritten, self._checkpointed = False, reports
        return partial(self._write_checkpoint, reports, stack.save(self.slot), best)

    def result(self, number: int) -> Result:
        """What Tune is told of a report, counted from 1."""
        history = self.history[:number]
        return {
            EPOCH: history[-1].epoch,
            EPOCHS: self.epochs,
            BEST_SO_FAR: max(map(self._value, history)),
            SECONDS: sum(report.seconds for report in history),
        }

    def _value(self, report: EpochReport) -> float:
        return report.value(self._metric)

    def _is_best(self, report: EpochReport) -> bool:
        return all(self._value(report) > self._value(earlier) for earlier in self.history)

    @property
    def _occupied(self) -> Stack:
        if self._stack is None:
            raise RuntimeError("not in a stack")
        return self._stack

    def _reported_steps(self) -> int:
        """Return the number of mini-batches trained up to the last report."""
        return mini_batches(self.history[-1].epoch if self.history else 0, self._occupied.steps)

    def _next_report(self) -> tuple[int, int | float]:
        """Return the mini-batch with which the next report is due, and its epoch.

        Of those within one mini-batch only the first is due, and none with the epoch's last.
        """
        of_an_epoch, reported = self._occupied.steps, self._reported_steps()
        epochs = reported // of_an_epoch
        for fraction in self._within_epoch if epochs else self._within_first_epoch:
            due = mini_batches(epochs + fraction, of_an_epoch)
            if reported < due < (epochs + 1) * of_an_epoch:
                return due, epochs + fraction
        return (epochs + 1) * of_an_epoch, epochs + 1

    def _write_report(
        self, history: list[EpochReport], weights: State | None, outdated: bool
    ) -> None:
        if outdated:
            # First: a kill must not leave them beside a history to which they do not belong.
            self.folder.remove_best()
        self.folder.write_history(history)
        if weights is not None:
            self.folder.write_best(weights)

    def _write_checkpoint(self, reports: int, state: State, best: State | None) -> None:
        if best is not None:
            self.folder.write_best(best)
        self.folder.write_checkpoint(reports, state)


def mini_batches(epochs: float, of_an_epoch: int) -> int:
    """Return the mini-batches of so many epochs; a part of one counts as one."""
    # Without the rounding, 5 1/3 epochs of 975 would be one mini-batch too many.
    return math.ceil(round(epochs * of_an_epoch, 6))


def _joined(parts: Sequence[tuple[int, TrainedEpoch]]) -> TrainedEpoch:
    """Return one epoch's parts as one; each has a number of mini-batches."""
    _, last = parts[-1]
    if len(parts) == 1:
        return last
    total = sum(steps for steps, _ in parts)
    losses = {
        name: sum(steps * part.losses[name] for steps, part in parts) / total
        for name in last.losses
    }
    return replace(last, losses=losses, seconds=sum(part.seconds for _, part in parts))


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
    """Trains stacks up to the next report of a student and writes what is kept of it.

    The line of a report is written before Tune is told, and so are the best weights if they
    might be among those kept in the end. So a trial that is stopped needs no checkpoint.

    Args:
        validation: The beats that the stacks score.
        keep_weights: Number of trials whose best weights are kept in the end.
        behind: Whether checkpoints are written while training continues. No report follows
            before they are written.
        interval_s: How old a training's newest checkpoint is, at least, when another one is
            written behind, unless its next report needs more than one part.
    """

    def __init__(
        self,
        validation: LabelledBeats,
        keep_weights: int,
        *,
        behind: bool,
        interval_s: float = 0,
    ) -> None:
        self._validation = validation
        self._keep_weights = keep_weights
        self._behind = behind
        self._interval_s = interval_s
        self._best: dict[str, float] = {}
        self._writers = ThreadPoolExecutor(WRITERS, "writer")

    def advance(self, stack: Stack, trainings: Sequence[Training]) -> dict[Training, Exception]:
        """Train the whole stack until the first report is due.

        Returns:
            What ended trainings: TrialDiverged, an OSError if the folder cannot be written, or
            Superseded. The error of one does not touch the others.
        """
        errors: dict[Training, Exception] = {}
        steps = min(training.steps_left() for training in trainings)
        # Only this thread uses the stack; the others write copies of what was in it.
        old = time.monotonic() - self._interval_s
        # In the middle of a report none can be written, not even at the end of a search.
        due = [t for t in trainings if t.checkpoint_at <= old or t.steps_left() > steps]
        checkpoints = self._begin({t: t.checkpoint_write() for t in due})
        try:
            trained = stack.advance(steps)
        finally:
            errors |= _errors(checkpoints)
        reported = []
        for training in trainings:
            try:
                if training.take(steps, trained[training.slot], self._validation):
                    reported.append(training)
            except TrialDiverged as error:
                training.leave()
                errors[training] = error
        for training in errors:
            self._best.pop(str(training.folder.path), None)
        left = [training for training in reported if training not in errors]
        reports = {t: t.report_write(best=self._among_best(t)) for t in left}
        errors |= _errors(self._begin(reports))
        if not self._behind:
            errors |= self.checkpoint([t for t in left if t not in errors])
        return errors

    def checkpoint(self, trainings: Sequence[Training]) -> dict[Training, Exception]:
        """Write checkpoints of the newest reports now.

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
    stack: Stack,
    trainings: Sequence[Training],
    validation: LabelledBeats,
    *,
    interval_s: float = 0,
) -> list[Exception | None]:
    """Train students of one structure side by side, each to its last epoch.

    Args:
        interval_s: As of `Trainer`.

    Returns:
        For each training None, or what ended it: see `Trainer.advance`.
    """
    trainer = Trainer(validation, len(trainings), behind=True, interval_s=interval_s)
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
