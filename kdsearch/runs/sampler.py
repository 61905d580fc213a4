"""Optuna's samplers, and the limit on the history that TPE uses in a long search."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.space_file import SearchSettings

# TPE models all trials for every suggestion: 0.1 s with 3,000 of them. So many are enough to
# tell the good from the rest.
LEARNS_FROM = 1000
OF_THEM_BEST = 250


def new_sampler(settings: SearchSettings, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by its number."""
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # Multivariate TPE, the constant liar and QMC are marked experimental in Optuna 5.0.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.sampler == "qmc":
            return NumberedQmc(seed=settings.seed, number=number)
        return WindowedTpe(
            n_startup_trials=settings.startup_trials,
            multivariate=True,
            constant_liar=True,
            seed=seed,
        )


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


class WindowedTpe(TPESampler):
    """TPE that learns from the best and the newest trials, or from all while they are few.

    One for each suggestion: what it sees does not change while it suggests.
    """

    _seen_study: Any = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The settings that TPE models together."""
        return super().infer_relative_search_space(self._seen(study), trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Suggest all of them at once."""
        return super().sample_relative(self._seen(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Suggest one alone, as in the random trials before TPE starts to learn."""
        return super().sample_independent(
            self._seen(study), trial, param_name, param_distribution
        )

    def _seen(self, study: optuna.Study) -> Any:
        if self._seen_study is None:
            trials = study._get_trials(deepcopy=False, use_cache=False)
            few = len(trials) <= LEARNS_FROM
            self._seen_study = study if few else _View(study, window(trials))
        return self._seen_study


def window(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best finished trials, the newest ones and all that run, in the order given."""
    if len(trials) <= LEARNS_FROM:
        return list(trials)
    kept = {t.number for t in trials[-(LEARNS_FROM - OF_THEM_BEST) :]}
    older = trials[: -(LEARNS_FROM - OF_THEM_BEST)]
    kept |= {t.number for t in heapq.nlargest(OF_THEM_BEST, older, key=_value)}
    return [t for t in trials if t.number in kept or t.state == TrialState.RUNNING]


def _value(trial: FrozenTrial) -> float:
    return max(trial.intermediate_values.values(), default=float("-inf"))


class _View:
    """A study of which a sampler sees some trials only."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
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
