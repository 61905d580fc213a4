"""All that we use of Optuna besides its public interface, checked when this is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import QMCSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from kdsearch.extras import require_private

PRIVATE = (
    "optuna.trial:FrozenTrial(_trial_id)",
    "optuna.study:Study(_storage)",
    "optuna.study:Study(_study_id)",
    "optuna.study:Study._get_trials(use_cache)",
    "optuna.study:Study._get_trials(_thread_local.cached_all_trials)",
    "optuna.samplers:QMCSampler._find_sample_id",
    "optuna.samplers:QMCSampler._sample_qmc(_find_sample_id)",
    "optuna.samplers:TPESampler._sample(_get_trials)",
    "optuna.samplers:GPSampler.sample_relative(_get_trials)",
)
require_private("optuna", optuna.__version__, PRIVATE)


def add_trial(study: optuna.Study, storage: BaseStorage, trial: FrozenTrial | None) -> None:
    """Add a trial, or a running one if it is None.

    Optuna's own `ask` looks through all trials for one that waits, of which there are none
    here: with 10,000 trials that takes longer than everything else.
    """
    study._thread_local.cached_all_trials = None
    study_id = storage.get_study_id_from_name(study.study_name)
    storage.create_new_trial(study_id, template_trial=trial)


def storage_and_id(study: optuna.Study) -> tuple[BaseStorage, int]:
    """Where a study is kept, and its id there."""
    return study._storage, study._study_id


def ids(study: optuna.Study) -> list[int]:
    """The ids of all trials in the study's storage, in order."""
    return [trial._trial_id for trial in study.get_trials(deepcopy=False)]


class NumberedQmc(QMCSampler):
    """The point of a Sobol sequence that belongs to a trial, however often a search starts."""

    def __init__(self, seed: int, number: int) -> None:
        """Suggest for the trial of this number."""
        super().__init__(seed=seed, scramble=True)
        self._number = number

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        return self._number


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials as they are now, not copied."""
    return study._get_trials(deepcopy=False, use_cache=False)


class View:
    """A study of which a sampler sees some trials only."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Show these trials."""
        self._study = study
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Sequence[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [t for t in self._trials if states is None or t.state in states]
