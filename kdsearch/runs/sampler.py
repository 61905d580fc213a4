"""Optuna's samplers, and the limit on the history that TPE uses in a long search."""

from __future__ import annotations

import copy
import heapq
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.dimensions import Choice, Dimension
from kdsearch.config.space_file import SearchSettings
from kdsearch.runs.cmaes_sampler import RestoredCmaEs
from kdsearch.runs.optuna_internals import NumberedQmc, View, all_trials

# TPE models all trials for every suggestion: 0.1 s with 3,000 of them. So many are enough to
# tell the good from the rest.
LEARNS_FROM = 1000
# A Gaussian process takes seconds for a suggestion with more trials.
MOST_FOR_GP = 250
# The attribute of a trial that names the earlier run which it is from.
LEARNED_FROM = "learned_from"


def new_sampler(
    settings: SearchSettings,
    number: int,
    attempt: int = 0,
    refused: Sequence[FrozenTrial] = (),
    finished: Sequence[FrozenTrial] = (),
) -> BaseSampler:
    """The sampler of one trial, seeded by its number.

    Args:
        attempt: How many suggestions for this trial were not taken.
        refused: Points that break a limit, which TPE learns from.
        finished: Trials with a value in the order in which they finished, for CMA-ES.
    """
    entropy = [settings.seed, number] + ([attempt] if attempt else [])
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    # A Gaussian process and a sequence would suggest the same point again.
    if settings.sampler == "random" or (settings.sampler in ("gp", "qmc") and attempt):
        return RandomSampler(seed=seed)
    if settings.sampler == "cmaes":
        return RestoredCmaEs(finished, settings.startup_trials, seed)
    with warnings.catch_warnings():
        # Multivariate TPE, the constant liar and QMC are marked experimental in Optuna 5.0.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.sampler == "qmc":
            return NumberedQmc(seed=settings.seed, number=number)
        if settings.sampler == "gp":
            return WindowedGp(n_startup_trials=settings.startup_trials, seed=seed)
        return WindowedTpe(
            refused,
            n_startup_trials=settings.startup_trials,
            multivariate=True,
            constant_liar=True,
            seed=seed,
        )


def picked_sampler(settings: SearchSettings, space: Mapping[str, Dimension]) -> SearchSettings:
    """Return the settings with ``auto`` replaced by a sampler.

    The rules are those of AutoSampler (OptunaHub) for one objective: TPE for a space with
    choices of words, and for a long search; otherwise a Gaussian process. AutoSampler uses
    CMA-ES for long searches of numbers; here ASHA stops most trials of those, whose values
    CMA-ES would take as they are. A search with costs has TPE.
    """
    if settings.sampler != "auto":
        return settings
    if settings.costs:
        return settings.changed(sampler="tpe")
    words = any(
        isinstance(d, Choice) and not all(type(o) in (int, float) for o in d.options)
        for d in space.values()
    )
    long = settings.num_samples > MOST_FOR_GP
    return settings.changed(sampler="tpe" if words or long else "gp")


class _Windowed(BaseSampler):
    """Learns from the best and the newest trials, or from all while they are few.

    One for each suggestion: what it sees does not change while it suggests.
    """

    _seen_study: Any = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The settings that are modelled together."""
        return super().infer_relative_search_space(self._seen(study), trial)  # type: ignore[safe-super]

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Suggest all of them at once."""
        return super().sample_relative(self._seen(study), trial, search_space)  # type: ignore[safe-super]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Suggest one alone, as in the random trials at the start."""
        return super().sample_independent(  # type: ignore[safe-super]
            self._seen(study), trial, param_name, param_distribution
        )

    def _seen(self, study: optuna.Study) -> Any:
        if self._seen_study is None:
            self._seen_study = self._view(study)
        return self._seen_study

    def _view(self, study: optuna.Study) -> Any:
        trials = all_trials(study)
        few = len(trials) <= LEARNS_FROM and not any(map(run_of, trials))
        return study if few else View(study, comparable(window(trials)))


class WindowedTpe(_Windowed, TPESampler):
    """TPE on a part of a long history."""

    def __init__(self, refused: Sequence[FrozenTrial], **options: Any) -> None:
        """Learn from trials that were refused as well."""
        super().__init__(**options)
        self._refused = refused

    def _view(self, study: optuna.Study) -> Any:
        seen = super()._view(study)
        if not self._refused:
            return seen
        return View(study, [*self._refused[-LEARNS_FROM:], *all_trials(seen)])


class WindowedGp(_Windowed, GPSampler):
    """A Gaussian process on a part of a long history.

    Optuna's ignores pruned trials. Here they have the value that they were stopped with, since
    ASHA stops most trials of a search.
    """

    def _view(self, study: optuna.Study) -> Any:
        trials = window(all_trials(study), MOST_FOR_GP)
        seen = [copy.copy(trial) for trial in comparable(trials)]
        for trial in seen:
            # Optuna's notes on running trials do not survive a resume; their params do.
            trial.system_attrs = {}
            if trial.state == TrialState.PRUNED:
                trial.state = TrialState.COMPLETE
        return View(study, seen)


def window(trials: Sequence[FrozenTrial], most: int | None = None) -> list[FrozenTrial]:
    """Return the best finished trials, the newest ones and all running ones, in their order.

    Args:
        most: Number of trials; `LEARNS_FROM` without it. A quarter are the best ones.
    """
    most = most or LEARNS_FROM
    if len(trials) <= most:
        return list(trials)
    newest = most - most // 4
    kept = {t.number for t in trials[-newest:]}
    best = heapq.nlargest(
        most // 4,
        trials[:-newest],
        key=lambda trial: max(trial.intermediate_values.values(), default=-math.inf),
    )
    kept |= {t.number for t in best}
    return [t for t in trials if t.number in kept or t.state == TrialState.RUNNING]


def run_of(trial: FrozenTrial) -> str:
    """The earlier run that a trial is from; an empty text for the search's own."""
    return str(trial.user_attrs.get(LEARNED_FROM, ""))


def comparable(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials, with values that can be compared between runs.

    Each value becomes its quantile among its own run's completed trials: other data, or another
    width, shift the values of all trials (Salinas et al., ICML 2020). Trials of one run
    alone stay as they are.
    """
    runs = {run_of(trial) for trial in trials}
    if len(runs) < 2:
        return list(trials)
    values = {
        run: np.array(
            [t.values[0] for t in trials if run_of(t) == run and t.state == TrialState.COMPLETE]
        )
        for run in runs
    }
    changed = []
    for trial in trials:
        one = trial
        if trial.state == TrialState.COMPLETE:
            among, value = values[run_of(trial)], trial.values[0]
            worse = np.count_nonzero(among < value)
            equal = np.count_nonzero(among == value)
            one = copy.copy(trial)
            # Costs are the same in all runs.
            one.values = [(worse + equal / 2) / len(among), *trial.values[1:]]
        changed.append(one)
    return changed
