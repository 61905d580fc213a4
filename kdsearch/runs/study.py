"""The study: an Optuna study that knows every trial, parameter, epoch and fate.

It is the one truth about a search. Ray Tune runs the trials but is not asked to remember
them; the leaderboard, the resume, ASHA's rungs and the sampler's knowledge all derive from
here. It lies in a journal file or in a database, and only one process writes to it: the
driver that holds the run folder's lock, and the database's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.space_file import SearchSettings
from kdsearch.runs.database import Database, DatabaseLock
from kdsearch.errors import RunError
from kdsearch.runs.journal import journal_storage, mend
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.sampler import new_sampler
from kdsearch.config.dimensions import Choice, Dimension, Fixed, Float, Integer, Value

Fate = Literal["completed", "stopped", "failed", "running"]
STUDY_NAME = "kdsearch"
# Fewer leave two trials or less in the best quarter.
FEWEST_FOR_IMPORTANCE = 12

_FATE_OF: dict[TrialState, Fate] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}
_OPTUNA_STATE: dict[Fate, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number in the study and what the sampler chose."""

    number: int
    params: dict[str, Value]


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of one trial.

    Attributes:
        number: The trial's number in the study, from 0.
        state: Its fate so far; ``running`` also where a killed search left it.
        params: The searched values.
        curve: Best validation AUC so far, by epoch.
        seconds: Training time of all its epochs.
        reason: Why it failed, or an empty text.
    """

    number: int
    state: Fate
    params: dict[str, Value]
    curve: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return max(self.curve, default=0)

    @property
    def val_auc(self) -> float:
        """Best validation AUC of any epoch; NaN before the first."""
        return max(self.curve.values(), default=float("nan"))

    @property
    def best_epoch(self) -> int:
        """The first epoch that reached the best validation AUC; 0 before the first."""
        return min((e for e, auc in self.curve.items() if auc == self.val_auc), default=0)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state != "running"


class Study:
    """The study of one run, opened for writing by the driver that holds the run's lock."""

    def __init__(
        self, place: Path | Database, space: Mapping[str, Dimension], settings: SearchSettings
    ) -> None:
        """Open the study in a journal or a database, or begin one.

        A journal's last line that a killed driver left half-written is cut off first: Optuna
        would append to it and so make the whole journal unreadable.

        Raises:
            RunError: The journal is damaged in its middle or cannot be written; another
                driver holds the database's study, or it cannot be reached.
        """
        self._place = place
        self._lock = place.lock() if isinstance(place, Database) else None
        if self._lock is None:
            mend(cast("Path", place))
        else:
            _take(self._lock)
        self._study = _open(place, writer=True)
        self._distributions = {
            key: _distribution(dimension)
            for key, dimension in space.items()
            if not isinstance(dimension, Fixed)
        }
        self._settings = settings
        self._running: dict[int, optuna.trial.Trial] = {}
        self._count = len(self._trials())

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Let another driver have the study."""
        if self._lock is not None:
            self._lock.release()

    def records(self) -> list[TrialRecord]:
        """Every trial, by number."""
        return [_record(trial) for trial in self._trials()]

    def ask(self) -> Suggestion:
        """Begin the next trial."""
        # A sampler per trial, seeded by the trial's number: what it suggests depends on the
        # trials before it and not on how often the search was interrupted.
        with self._writing():
            self._study.sampler = new_sampler(self._settings, number=len(self))
            return self._suggest(self._new_trial())

    def _new_trial(self) -> optuna.trial.Trial:
        # Optuna's own `ask` looks through all trials for one that waits, of which there are
        # none here: with 10,000 trials that takes longer than everything else.
        self._study._thread_local.cached_all_trials = None
        trial_id = self._study._storage.create_new_trial(self._study._study_id)
        self._count += 1
        return optuna.trial.Trial(self._study, trial_id)

    def adopt(self) -> list[Suggestion]:
        """Take over every trial that an earlier driver left running, in order."""
        left = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        with self._writing():
            return [self._adopt(trial) for trial in left if trial.number not in self._running]

    def report(self, number: int, epoch: int, best_so_far: float, seconds: float) -> bool:
        """Record an epoch; False if it was known already, as after a resume."""
        trial = self._running[number]
        with self._writing():
            known = self._study._storage.get_trial(trial._trial_id).intermediate_values
            if epoch in known:
                return False
            trial.set_user_attr("seconds", seconds)
            trial.report(best_so_far, step=epoch)
        return True

    def finish(self, number: int, state: Fate, reason: str = "") -> None:
        """Record a trial's fate; its value is the best validation AUC of its epochs."""
        trial = self._running.pop(number)
        with self._writing():
            if reason:
                trial.set_user_attr("reason", reason)
            record = _record(self._study._storage.get_trial(trial._trial_id))
            value = record.val_auc if state == "completed" else None
            self._study.tell(trial, value, state=_OPTUNA_STATE[state])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write only while the study is ours; what a database fails with is an OSError."""
        if self._lock is not None:
            self._lock.hold()
        with _answers(self._place):
            yield

    def _trials(self) -> list[FrozenTrial]:
        with _answers(self._place):
            return self._study.get_trials(deepcopy=False)

    def _adopt(self, frozen: FrozenTrial) -> Suggestion:
        self._study.sampler = new_sampler(self._settings, number=frozen.number)
        return self._suggest(optuna.trial.Trial(self._study, frozen._trial_id))

    def _suggest(self, trial: optuna.trial.Trial) -> Suggestion:
        # A killed driver may have left a trial with some of its parameters only: those stay,
        # the others are drawn now.
        params: dict[str, Value] = {
            key: trial._suggest(key, distribution)
            for key, distribution in self._distributions.items()
        }
        self._running[trial.number] = trial
        return Suggestion(trial.number, params)


def read_records(place: Path | Database) -> list[TrialRecord]:
    """Every trial of a study, also while a driver writes to it or after it was killed.

    Raises:
        RunError: There is no study, it is damaged, or its database cannot be reached.
    """
    if isinstance(place, Path):
        if not place.is_file():
            raise RunError(f"{place}: no such file; the run has no study yet")
        with place.open("rb") as journal:
            if not journal.readline().endswith(b"\n"):
                return []  # A driver is about to begin it, or was killed at that moment.
    elif not _is_in(place):
        return []
    study = _open(place, writer=False)
    with _answers(place):
        return [_record(trial) for trial in study.get_trials(deepcopy=False)]


def trials_of(
    folder: RunFolder, records: Sequence[TrialRecord], space: Mapping[str, Dimension]
) -> list[FrozenTrial]:
    """The trials of a run as Optuna keeps them, with the times at which each began and ended.

    Args:
        records: From which they are made, without times, where the run has no whole journal.
    """
    try:
        journal = folder.own_journal()
        if journal is not None and read_records(journal):
            return _open(journal, writer=False).get_trials(deepcopy=False)
    except RunError:
        pass
    return [_frozen_or_lost(record, space) for record in records]


def importances(
    records: Sequence[TrialRecord], space: Mapping[str, Dimension]
) -> dict[str, float]:
    """How much each searched setting matters, the most important first; they add up to 1.

    By PED-ANOVA (Watanabe et al., IJCAI 2023): how differently a setting is distributed in
    the best quarter of the trials and in all of them. It needs only the trials' order, so
    trials that were stopped early, which rank low, can count with the value they had.

    Raises:
        RunError: There are too few trials to say anything.
    """
    trials = [
        _frozen_or_lost(replace(record, state="completed"), space)
        for record in records
        if record.state in ("completed", "stopped") and record.curve
    ]
    trials = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(trials) < FEWEST_FOR_IMPORTANCE:
        raise RunError(
            f"the importance of settings needs at least {FEWEST_FOR_IMPORTANCE} finished "
            f"trials, and there are {len(trials)}"
        )
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


def write_study(
    place: Path | Database, records: Sequence[TrialRecord], space: Mapping[str, Dimension]
) -> None:
    """Write a whole study anew; a journal that lies there already is kept beside it.

    Args:
        records: Every trial, by number and without gaps.
    """
    trials = [_frozen_or_lost(record, space) for record in records]
    if isinstance(place, Database):
        _rewrite_in_database(place, trials)
        return
    beside = place.with_name(f".{place.name}.tmp")
    beside.unlink(missing_ok=True)
    _open(beside, writer=True).add_trials(trials)
    if place.exists():
        place.replace(place.with_name(f"{place.name}.damaged"))
    beside.replace(place)


def _rewrite_in_database(place: Database, trials: Sequence[FrozenTrial]) -> None:
    """A kill on the way leaves a study that lies behind, and the next resume comes here."""
    lock = place.lock()
    _take(lock)
    try:
        if _is_in(place):
            optuna.delete_study(study_name=place.study, storage=place.storage())
        study = _open(place, writer=True)
        with _answers(place):
            study.add_trials(trials)
    finally:
        lock.release()


def _frozen_or_lost(record: TrialRecord, space: Mapping[str, Dimension]) -> FrozenTrial:
    """The trial as Optuna keeps it; a record that contradicts itself is a failed trial."""
    try:
        return _frozen(record, space)
    except (ValueError, TypeError) as error:
        reason = f"lost together with the study: {error}"
        return _frozen(TrialRecord(record.number, "failed", {}, reason=reason), space)


def _frozen(record: TrialRecord, space: Mapping[str, Dimension]) -> FrozenTrial:
    # Settings that the space no longer has, or an unreadable note: kept out, not guessed.
    params = {key: value for key, value in record.params.items() if key in space}
    return optuna.trial.create_trial(
        state=_OPTUNA_STATE[record.state],
        value=record.val_auc if record.state in ("completed", "stopped") else None,
        params=params,
        distributions={key: _distribution(space[key]) for key in params},
        intermediate_values=dict(record.curve),
        user_attrs={"seconds": record.seconds}
        | ({"reason": record.reason} if record.reason else {}),
    )


def _open(place: Path | Database, *, writer: bool) -> optuna.Study:
    name = place.study if isinstance(place, Database) else STUDY_NAME
    try:
        with _answers(place):
            storage: Any = (
                place.storage() if isinstance(place, Database) else journal_storage(place)
            )
            if writer:
                return optuna.create_study(
                    storage=storage,
                    study_name=name,
                    direction="maximize",
                    load_if_exists=True,
                )
            return optuna.load_study(storage=storage, study_name=name)
    except OSError as error:
        raise RunError(f"{place}: cannot be opened: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise RunError(
            f"{place}: the study is damaged ({type(error).__name__}: {error}); "
            "--resume rebuilds it from the trials' folders"
        ) from None


def _take(lock: DatabaseLock) -> None:
    try:
        lock.take()
    except OSError as error:
        raise RunError(f"{error.filename}: {error.strerror}") from None


def _is_in(place: Database) -> bool:
    try:
        return place.exists()
    except OSError as error:
        raise RunError(f"{place}: cannot be opened: {error.strerror}") from None


def _answers(place: Path | Database) -> AbstractContextManager[None]:
    return place.answers() if isinstance(place, Database) else nullcontext()


def _record(trial: FrozenTrial) -> TrialRecord:
    return TrialRecord(
        number=trial.number,
        state=_FATE_OF[trial.state],
        params=dict(trial.params),
        curve=dict(sorted(trial.intermediate_values.items())),
        seconds=float(trial.user_attrs.get("seconds", 0.0)),
        reason=str(trial.user_attrs.get("reason", "")),
    )


def _distribution(dimension: Dimension) -> BaseDistribution:
    match dimension:
        case Float(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Integer(low, high):
            return IntDistribution(low, high)
        case Choice(options):
            return CategoricalDistribution(options)
        case Fixed():
            raise TypeError("a fixed setting has no distribution")
