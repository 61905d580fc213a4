"""The driver's record of trials: each decision is written to the trial's folder first.

The end of a trial is written when it is decided, and only there. However Tune ends (a signal, a
time budget, a crash), a trial without a decision is unfinished, and the next resume continues
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from kdsearch.errors import StorageFailed
from kdsearch.runs.folder import READERS, RunFolder
from kdsearch.runs.study import Study, Suggestion
from kdsearch.runs.trial_folder import BEST, ERROR, LAST, TrialRecord, TrialState, now
from kdsearch.texts import one_line, redact
from kdsearch.tuning.workers.messages import BEST_SO_FAR, EPOCH, EPOCHS, SECONDS


class Observer(Protocol):
    """What follows the search: the progress line, trackers, the live Optuna study."""

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """A trial was validated.

        Args:
            record: With the curve up to now.
            epochs: Epochs of the trial in all.
        """

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended."""


class Ledger:
    """The trials of a search, as the driver writes them."""

    def __init__(
        self,
        study: Study,
        folder: RunFolder,
        observer: Observer,
        *,
        records: Sequence[TrialRecord],
        keep_weights: int,
        seed_of: Callable[[int], int],
    ) -> None:
        """Continue what earlier drivers wrote, and remove what they left of finished trials.

        Args:
            records: Every trial that has a record.
            keep_weights: How many of the best trials keep their weights.
            seed_of: The seed of a trial, by its number.
        """
        self.study = study
        self.folder = folder
        self.observer = observer
        self._seed_of = seed_of
        self._known = {record.number: record for record in records}
        self._running: dict[int, TrialRecord] = {}
        orders = [record.order for record in records if record.order is not None]
        self._order = max(orders, default=-1) + 1
        ranked = [r for r in records if r.finished and r.state != "failed"]
        self._kept = sorted((-r.value, r.number) for r in ranked)[:keep_weights]
        self._keep = keep_weights
        files = folder.trial_files()
        self._with_files = frozenset(files)
        self._remove_leftovers(files)

    def start(self, suggestion: Suggestion) -> None:
        """Write that a trial begins; one that continues keeps its record."""
        number = suggestion.number
        if number in self._running:
            return
        known = self._known.get(number)
        trial = self.folder.trial(number)
        with _stored(self.folder):
            if known is None or known.reason:
                if number in self._with_files:
                    # The files of a damaged trial are of no use.
                    trial.clear()
                seed = self._seed_of(number)
                known = TrialRecord(
                    number,
                    "running",
                    suggestion.params,
                    seed=seed,
                    began=now(),
                    repeats=suggestion.repeats,
                    costs=suggestion.costs,
                    refused=suggestion.refused,
                )
            trial.write_record(known)
        self._running[number] = known
        self.observer.started(suggestion)

    def runs(self, number: int) -> bool:
        """Return whether the trial has not ended."""
        return number in self._running

    def costs(self, number: int) -> Mapping[str, float]:
        """Return what scoring with a running trial's student costs."""
        return self._running[number].costs

    def report(self, number: int, result: dict[str, Any]) -> None:
        """Take note of an epoch or a part of one, which the worker has written already."""
        epoch, best_so_far = result[EPOCH], float(result[BEST_SO_FAR])
        record = self._running[number]
        record = self._running[number] = replace(
            record,
            # Epochs that an earlier driver saw, and that are trained again, do not count.
            curve={e: value for e, value in record.curve.items() if e < epoch}
            | {epoch: best_so_far},
            seconds=float(result[SECONDS]),
        )
        self.study.report(number, len(record.curve), best_so_far)
        self.observer.reported(record, int(result[EPOCHS]))

    def finish(self, number: int, state: TrialState, reason: str = "") -> None:
        """Write the end of a trial."""
        reason = one_line(redact(reason))
        record = replace(
            self._running.pop(number),
            state=state,
            reason=reason,
            order=self._order,
            ended=now(),
        )
        with _stored(self.folder):
            self.folder.trial(number).write_record(record)
            self._order += 1
            self.study.finish(number, state)
            self._tidy(record)
        self.observer.ended(number, state, reason)

    def take_error(self, number: int) -> str:
        """Read and remove why a try of a trial failed."""
        with _stored(self.folder):
            return self.folder.trial(number).take_error()

    def _tidy(self, record: TrialRecord) -> None:
        """Bound the disk: the best weights of the best trials stay, and no checkpoint."""
        if record.state == "failed":
            self.folder.trial(record.number).reduce(keep_weights=False)
            return
        self._kept = sorted([*self._kept, (-record.value, record.number)])
        for _, number in self._kept[self._keep :]:
            self.folder.trial(number).reduce(keep_weights=False)
        del self._kept[self._keep :]
        if any(number == record.number for _, number in self._kept):
            self.folder.trial(record.number).reduce(keep_weights=True)

    def _remove_leftovers(self, files: Mapping[int, set[str]]) -> None:
        """Finish what a kill left of tidying, several trials at a time.

        The reason of a try that an earlier driver did not read must not become a later try's.
        """
        kept = {number for _, number in self._kept}
        left = [
            number
            for number, names in files.items()
            if number in self._known and self._known[number].finished
            if LAST in names
            or (BEST in names and number not in kept)
            or any(name.endswith(".tmp") for name in names)
        ]

        def reduce(number: int) -> None:
            self.folder.trial(number).reduce(keep_weights=number in kept)

        with _stored(self.folder), ThreadPoolExecutor(READERS) as pool:
            list(pool.map(reduce, left))
            for number in (n for n, names in files.items() if ERROR in names):
                self.folder.trial(number).take_error()


@contextmanager
def _stored(folder: RunFolder) -> Iterator[None]:
    """End the search where something cannot be written; it can be resumed."""
    try:
        folder.check_ours()
        yield
    except OSError as error:
        raise StorageFailed(f"{error.filename or folder.path}: {error.strerror}") from error
