"""The trials of a search as an Optuna study: suggestions and importances.

The study is computed from the trials' folders at every start and kept in memory. The sampler
has the same history as in an uninterrupted search.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from kdsearch.config.dimensions import Choice, Dimension, Fixed, Float, Integer, Value
from kdsearch.config.space_file import SearchSettings
from kdsearch.errors import RunError
from kdsearch.runs.sampler import new_sampler
from kdsearch.runs.trial_folder import TrialRecord, TrialState

# Fewer leave two trials or less in the best quarter.
FEWEST_FOR_IMPORTANCE = 12

OPTUNA_STATES: dict[TrialState, OptunaState] = {
    "completed": OptunaState.COMPLETE,
    "stopped": OptunaState.PRUNED,
    "failed": OptunaState.FAIL,
    "running": OptunaState.RUNNING,
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number and its searched values."""

    number: int
    params: dict[str, Value]


class Study:
    """The history of one search, from which new trials are suggested."""

    def __init__(
        self,
        space: Mapping[str, Dimension],
        settings: SearchSettings,
        records: Sequence[TrialRecord],
    ) -> None:
        """Learn what earlier drivers recorded.

        A number without a record between others is an unfinished trial.
        """
        self._settings = settings
        self._distributions = distributions(space)
        self._study = optuna.create_study(direction="maximize")
        self._storage = self._study._storage
        by_number = {record.number: record for record in records}
        for number in range(max(by_number, default=-1) + 1):
            record = by_number.get(number) or TrialRecord(number, "running", {})
            self._add(frozen_trial(record, space))

    def __len__(self) -> int:
        return self._storage.get_n_trials(self._study._study_id)

    def unfinished(self) -> list[int]:
        """Return the numbers of the trials that are not finished, in order."""
        trials = self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,))
        return [trial.number for trial in trials]

    def ask(self) -> Suggestion:
        """Suggest the next trial."""
        number = len(self)
        self._add(None)
        return self.take(number)

    def take(self, number: int) -> Suggestion:
        """Return an unfinished trial: with its own settings, or new ones if they are lost."""
        # A sampler per trial, seeded by the trial's number: what it suggests depends on the
        # trials before it and not on how often the search was interrupted.
        self._study.sampler = new_sampler(self._settings, number=number)
        trial = optuna.trial.Trial(self._study, self._trial_id(number))
        return Suggestion(
            number,
            {key: trial._suggest(key, one) for key, one in self._distributions.items()},
        )

    def report(self, number: int, epoch: int, best_so_far: float) -> None:
        """Record an epoch."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch, best_so_far)

    def finish(self, number: int, state: TrialState) -> None:
        """Record the end of a trial; its value is the best validation AUC of its epochs."""
        trial_id = self._trial_id(number)
        curve = self._storage.get_trial(trial_id).intermediate_values
        values = None if state == "failed" else [max(curve.values())]
        self._storage.set_trial_state_values(trial_id, OPTUNA_STATES[state], values)

    def _add(self, trial: FrozenTrial | None) -> None:
        # Optuna's own `ask` looks through all trials for one that waits, of which there are
        # none here: with 10,000 trials that takes longer than everything else.
        self._study._thread_local.cached_all_trials = None
        self._storage.create_new_trial(self._study._study_id, template_trial=trial)

    def _trial_id(self, number: int) -> int:
        study_id = self._study._study_id
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)


def importances(
    records: Sequence[TrialRecord], space: Mapping[str, Dimension]
) -> dict[str, float]:
    """Return how much each searched setting matters, the most important first; the sum is 1.

    By PED-ANOVA (Watanabe et al., IJCAI 2023): how differently a setting is distributed in
    the best quarter of the trials and in all of them. It needs only the trials' order, so
    trials that were stopped early, which rank low, can count with the value they had.

    Raises:
        RunError: There are too few trials.
    """
    trials = [
        frozen_trial(replace(record, state="completed"), space)
        for record in records
        if record.state in ("completed", "stopped") and record.curve
    ]
    trials = [trial for trial in trials if trial.state == OptunaState.COMPLETE]
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


def frozen_trial(record: TrialRecord, space: Mapping[str, Dimension]) -> FrozenTrial:
    """Return a trial as Optuna keeps it."""
    return _frozen(sound(record, space), distributions(space))


def sound(record: TrialRecord, space: Mapping[str, Dimension]) -> TrialRecord:
    """Return the record; one that contradicts the space is unfinished and has no settings."""
    try:
        _frozen(record, distributions(space))
    except (ValueError, TypeError) as error:
        reason = f"trial.json is damaged: {' '.join(str(error).split())}"
        return TrialRecord(record.number, "running", {}, reason=reason)
    return record


def _frozen(record: TrialRecord, searched: Mapping[str, BaseDistribution]) -> FrozenTrial:
    if record.params.keys() != searched.keys() and (record.params or record.finished):
        raise ValueError(f"params: expected {', '.join(searched)}")
    trial = optuna.trial.create_trial(
        state=OPTUNA_STATES[record.state],
        value=record.val_auc if record.state in ("completed", "stopped") else None,
        params=record.params,
        distributions={key: searched[key] for key in record.params},
        intermediate_values=dict(record.curve),
        user_attrs={"seconds": record.seconds}
        | ({"reason": record.reason} if record.reason else {}),
    )
    if record.began:
        trial.datetime_start = _local_time(record.began)
    if record.ended:
        trial.datetime_complete = _local_time(record.ended)
    return trial


def _local_time(text: str) -> datetime:
    """Return a time as Optuna keeps it, local and without its zone."""
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return the searched settings of a space as Optuna takes them."""
    return {
        key: _distribution(dimension)
        for key, dimension in space.items()
        if not isinstance(dimension, Fixed)
    }


def _distribution(dimension: Float | Integer | Choice) -> BaseDistribution:
    match dimension:
        case Float(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Integer(low, high):
            return IntDistribution(low, high)
        case Choice(options):
            return CategoricalDistribution(options)
