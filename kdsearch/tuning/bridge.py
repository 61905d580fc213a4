"""Between Ray Tune and the study: what Tune asks and tells goes to the study at once.

A trial's fate is told to the study in the moment of the decision and nowhere else, so that
however Tune ends (a signal, a time budget, a crash), what was not decided stays unfinished
and is taken up by the next resume.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.config.dimensions import Value
from kdsearch.errors import StorageFailed
from kdsearch.runs.folder import Note, RunFolder
from kdsearch.runs.study import Fate, Study, Suggestion, TrialRecord
from kdsearch.texts import one_line, redact
from kdsearch.tuning.rungs import Rungs
from kdsearch.tuning.workers.messages import EPOCH, EPOCHS, FAILURE, SECONDS, STORAGE, VAL_AUC

DIED = "the worker process died without a word: killed, out of memory, or os._exit"


@contextmanager
def _storage(folder: RunFolder) -> Iterator[None]:
    """What cannot be kept must not go on: the search ends and can be resumed."""
    try:
        folder.check_ours()
        yield
    except OSError as error:
        raise StorageFailed(f"{error.filename or folder.path}: {error.strerror}") from error


class Observer(Protocol):
    """Who wants to know how the search goes: the progress line."""

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""

    def reported(self, number: int, epoch: int, epochs: int, best_so_far: float) -> None:
        """A trial finished an epoch."""

    def ended(self, number: int, state: Fate, reason: str) -> None:
        """A trial met its fate."""


class Ledger:
    """The study and what has to happen beside each of its entries."""

    def __init__(
        self, study: Study, folder: RunFolder, observer: Observer, keep_weights: int
    ) -> None:
        """Take over the trials that earlier drivers finished."""
        self.study = study
        self.folder = folder
        self.observer = observer
        self._keep = keep_weights
        self._running: dict[int, float] = {}
        self._params: dict[int, dict[str, Value]] = {}
        self._kept: list[tuple[float, int]] = []
        for record in study.records():
            if record.finished:
                self._tidy(record)

    def ask(self) -> Suggestion:
        """Begin the next trial."""
        with _storage(self.folder):
            return self.study.ask()

    def start(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""
        self._running[suggestion.number] = float("nan")
        self._note(suggestion.number, Note(suggestion.params, "running"))
        self._params[suggestion.number] = suggestion.params
        self.observer.started(suggestion)

    def runs(self, number: int) -> bool:
        """Whether the trial has no fate yet."""
        return number in self._running

    def report(self, number: int, result: dict[str, Any]) -> None:
        """A trial finished an epoch, or told again of one that it had finished before."""
        epoch, best_so_far = int(result[EPOCH]), float(result[VAL_AUC])
        self._running[number] = best_so_far
        with _storage(self.folder):
            self.study.report(number, epoch, best_so_far, float(result[SECONDS]))
        self.observer.reported(number, epoch, int(result[EPOCHS]), best_so_far)

    def finish(self, number: int, state: Fate, reason: str = "") -> None:
        """A trial met its fate."""
        reason = one_line(redact(reason))
        best_so_far = self._running.pop(number)
        with _storage(self.folder):
            self.study.finish(number, state, reason)
        self._note(number, Note(self._params.pop(number), state, reason))
        self._tidy(TrialRecord(number, state, {}, {1: best_so_far}))
        self.observer.ended(number, state, reason)

    def _note(self, number: int, note: Note) -> None:
        with _storage(self.folder):
            self.folder.trial(number).write_note(note)

    def _tidy(self, record: TrialRecord) -> None:
        """Bound the disk: the best weights of the best trials stay, and nothing to go on."""
        ranked = record.state != "failed"
        self.folder.trial(record.number).reduce(keep_weights=ranked)
        if not ranked:
            return
        self._kept.append((-record.val_auc, record.number))
        self._kept.sort()
        for _, number in self._kept[self._keep :]:
            self.folder.trial(number).reduce(keep_weights=False)
        del self._kept[self._keep :]


class _LivesInTheDriver:
    """Tune pickles its searcher and scheduler for its own snapshots, which nobody reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _LivesInTheDriver:
        return self


class StudySearcher(_LivesInTheDriver, Searcher):
    """Suggests what the study asks for: first what was left unfinished, then new trials."""

    def __init__(self, ledger: Ledger, unfinished: list[Suggestion], total: int) -> None:
        """Suggest until the study holds ``total`` trials."""
        super().__init__(metric=VAL_AUC, mode="max")
        self._ledger = ledger
        self._unfinished = unfinished
        self._total = total
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's number and parameters."""
        if self._unfinished:
            suggestion = self._unfinished.pop(0)
        elif len(self._ledger.study) < self._total:
            suggestion = self._ledger.ask()
        else:
            return cast("None", Searcher.FINISHED)
        self._numbers[trial_id] = suggestion.number
        self._ledger.start(suggestion)
        return {"number": suggestion.number, "params": suggestion.params}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial that failed for good becomes one failed entry; others were told before."""
        number = self._numbers.pop(trial_id, None)
        if error and number is not None and self._ledger.runs(number):
            reason = self._ledger.folder.trial(number).take_error() or DIED
            self._ledger.finish(number, "failed", reason)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study remembers."""


class StudyScheduler(_LivesInTheDriver, FIFOScheduler):
    """Tells the study of every epoch, and stops what lags behind."""

    def __init__(self, ledger: Ledger, rungs: Rungs | None) -> None:
        """Stop by ``rungs``, or nothing at all."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger
        self._rungs = rungs

    def on_trial_result(
        self, tune_controller: object, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Record the epoch first, then decide."""
        number = int(trial.config["number"])
        if not self._ledger.runs(number):
            return str(TrialScheduler.STOP)
        if STORAGE in result:
            raise StorageFailed(str(result[STORAGE]))
        if FAILURE in result:
            self._ledger.finish(number, "failed", str(result[FAILURE]))
            return str(TrialScheduler.CONTINUE)
        self._ledger.report(number, result)
        return self._decide(number, result)

    def _decide(self, number: int, result: dict[str, Any]) -> str:
        epoch, best_so_far = int(result[EPOCH]), float(result[VAL_AUC])
        if epoch >= int(result[EPOCHS]):
            self._ledger.finish(number, "completed")
        elif self._rungs is not None and self._rungs.lags(number, epoch, best_so_far):
            self._ledger.finish(number, "stopped")
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)
