"""The trials of a search as an Optuna study: suggestions and importances.

The study is computed from the trials' folders at every start and kept in memory. The sampler
has the same history as in an uninterrupted search.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from kdsearch.config.dimensions import (
    Choice,
    Dimension,
    Fixed,
    Float,
    Integer,
    Value,
    finite_points,
)
from kdsearch.config.space_file import SearchSettings
from kdsearch.errors import RunError
from kdsearch.runs.learned import Learned
from kdsearch.runs.optuna_internals import add_trial, all_trials
from kdsearch.runs.sampler import LEARNED_FROM, new_sampler, picked_sampler
from kdsearch.runs.trial_folder import TrialRecord, TrialState

# Fewer leave two trials or less in the best quarter.
FEWEST_FOR_IMPORTANCE = 12
# So often a sampler is asked again for a trial; then a point is drawn from what is left.
MOST_REPEATS, MOST_POINTS = 10, 100_000
# So many suggestions in a row may break a limit.
MOST_REFUSED = 200

OPTUNA_STATES: dict[TrialState, OptunaState] = {
    "completed": OptunaState.COMPLETE,
    "stopped": OptunaState.PRUNED,
    "failed": OptunaState.FAIL,
    "running": OptunaState.RUNNING,
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number and its searched values.

    Attributes:
        repeats: How many suggestions for it were not taken: they repeated an earlier trial.
        costs: What scoring with it costs, by the names of the search's costs.
        refused: Suggestions for it that break a limit.
    """

    number: int
    params: dict[str, Value]
    repeats: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    refused: list[dict[str, Value]] = field(default_factory=list)


# What scoring costs, by the searched values of a student.
CostOf = Callable[[Mapping[str, Value]], dict[str, float]]


class Study:
    """The history of one search, from which new trials are suggested."""

    def __init__(
        self,
        space: Mapping[str, Dimension],
        settings: SearchSettings,
        records: Sequence[TrialRecord],
        learned: Sequence[Learned] = (),
        cost_of: CostOf = lambda _: {},
    ) -> None:
        """Learn what earlier drivers recorded.

        A number without a record between others is an unfinished trial.

        Args:
            space: Every setting that is searched, fixed ones included.
            settings: The sampler, and the points that are tried first.
            records: This search's own trials.
            learned: Trials of earlier runs, whose best points are tried next.
            cost_of: Called where the settings have costs.
        """
        self._cost_of = cost_of
        self._costs: dict[int, dict[str, float]] = {}
        self._refused: list[FrozenTrial] = []
        self._settings = picked_sampler(settings, space)
        self._space = {k: d for k, d in space.items() if not isinstance(d, Fixed)}
        # Each point once: the user's own, then the best ones of earlier runs.
        points = [*settings.points, *(point for run in learned for point in run.best())]
        self._first = list({_key(point): point for point in points}.values())
        self._distributions = distributions(space)
        self._storage = InMemoryStorage()
        directions = [
            StudyDirection.MAXIMIZE,
            *[StudyDirection.MINIMIZE] * (len(settings.objectives) - 1),
        ]
        self._study = optuna.create_study(storage=self._storage, directions=directions)
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        # Of this search's trial 0.
        self._offset = 0
        # Numbers of the trials with a value, in the order in which they finished.
        ended = [r for r in records if r.state in ("completed", "stopped")]
        ended.sort(key=lambda r: (math.inf if r.order is None else r.order, r.number))
        self._ended = [record.number for record in ended]
        # What breaks a limit, and what of a finite space was found to keep them.
        self._breaking: set[Key] = set()
        self._keeping: set[Key] = set()
        for earlier in learned:
            for record in earlier.trials:
                if self._violations(costs := self._known_costs(record)):
                    self._refuse(record.params, costs)
                    continue
                trial = self._with_objectives(record)
                trial.user_attrs = {LEARNED_FROM: earlier.run}
                add_trial(self._study, self._storage, trial)
                self._offset += 1
        self._tried = {_key(record.params) for record in records if record.params}
        by_number = {record.number: record for record in records}
        for number in range(max(by_number, default=-1) + 1):
            record = by_number.get(number) or TrialRecord(number, "running", {})
            if record.params:
                for params in record.refused:
                    self._refuse(params, self._costs_of(params))
                    self._breaking.add(_key(params))
                self._costs[number] = self._known_costs(record)
            add_trial(self._study, self._storage, self._with_objectives(record))

    def __len__(self) -> int:
        return self._storage.get_n_trials(self._id) - self._offset

    @property
    def used_up(self) -> bool:
        """Whether no point of a finite space is left that keeps the limits."""
        points = None if self._settings.repeats else finite_points(self._space)
        return points is not None and len(self) >= points - len(self._breaking - self._tried)

    @property
    def sampler(self) -> str:
        """The name of the sampler: for ``auto``, the one that was picked."""
        return self._settings.sampler

    def unfinished(self) -> list[int]:
        """Return the numbers of the trials that are not finished, in order."""
        trials = self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,))
        return [trial.number - self._offset for trial in trials]

    def ask(self) -> Suggestion:
        """Suggest the next trial."""
        number = len(self)
        add_trial(self._study, self._storage, None)
        return self.take(number)

    def take(self, number: int) -> Suggestion:
        """Return an unfinished trial: with its own settings, or new ones if they are lost."""
        trial_id = self._trial_id(number)
        trial = self._storage.get_trial(trial_id)
        if trial.params or not self._space:
            return Suggestion(number, dict(trial.params))
        given = self._given(number)
        repeats, refused = 0, list[dict[str, Value]]()
        params = self._suggest(trial, given, 0)
        while True:
            costs = self._costs_of(params)
            if self._violations(costs):
                refused.append(params)
                self._refuse(params, costs)
                self._breaking.add(_key(params))
                # A point of the user's that breaks a limit is not asked for again.
                given = {}
                if len(refused) == MOST_REFUSED:
                    if (found := self._untried(number, given)) is None:
                        raise RunError(self._no_room(refused))
                    params = found
                    continue
            elif self._is_repeated(params) and repeats < MOST_REPEATS:
                repeats += 1
            else:
                break
            params = self._suggest(trial, given, repeats + len(refused))
        if self._is_repeated(params):
            params = self._untried(number, given) or params
            costs = self._costs_of(params)
        self._costs[number] = costs
        for key, distribution in self._distributions.items():
            internal = distribution.to_internal_repr(params[key])
            self._storage.set_trial_param(trial_id, key, internal, distribution)
        self._tried.add(_key(params))
        refused += self._rest()
        return Suggestion(number, params, repeats, costs, refused)

    def _rest(self) -> list[dict[str, Value]]:
        """The last points of a finite space, if all of them break a limit."""
        rest: dict[Key, dict[str, Value]] = {}
        for point in self._points() if self._settings.constraints else ():
            key = _key(point)
            if key in self._tried or key in self._breaking:
                continue
            if key in self._keeping or not self._violations(self._costs_of(point)):
                self._keeping.add(key)
                return []
            rest[key] = point
        self._breaking |= rest.keys()
        return list(rest.values())

    def _known_costs(self, record: TrialRecord) -> dict[str, float]:
        return record.costs or self._costs_of(record.params)

    def _costs_of(self, params: Mapping[str, Value]) -> dict[str, float]:
        if not self._settings.costs:
            return {}
        costs = self._cost_of(params)
        return {name: costs[name] for name in self._settings.costs}

    def _violations(self, costs: Mapping[str, float]) -> dict[str, float]:
        """By how much limits are broken, as a ratio's logarithm."""
        over = {
            name: math.log(costs[name] / limit.max)
            for name, limit in self._settings.constraints.items()
        }
        return {name: value for name, value in over.items() if value > 0}

    def _refuse(self, params: Mapping[str, Value], costs: Mapping[str, float]) -> None:
        """Let the sampler learn from a point that breaks a limit."""
        trial = optuna.trial.create_trial(
            state=OptunaState.PRUNED,
            params=dict(params),
            distributions=dict(self._distributions),
        )
        for name, value in self._violations(costs).items():
            trial.set_constraint(name, value)
        self._refused.append(trial)

    def _no_room(self, refused: Sequence[Mapping[str, Value]]) -> str:
        """Say that no student within the limits was found, and how near the nearest was."""
        costs = [self._costs_of(params) for params in refused]
        parts = [
            f"at most {limit.max:g} {name}, but the smallest of {len(costs)} suggestions has "
            f"{min(one[name] for one in costs):g}"
            for name, limit in self._settings.constraints.items()
        ]
        return f"search.constraints: {'; '.join(parts)}; raise the limit or widen the space"

    def _with_objectives(self, record: TrialRecord) -> FrozenTrial:
        """A trial as the sampler sees it."""
        trial = frozen_trial(record, self._space)
        ended = trial.state in (OptunaState.COMPLETE, OptunaState.PRUNED)
        if ended and self._settings.cost_objectives:
            # Optuna cannot compare stopped trials of several objectives: they count with the
            # value that they had.
            trial.state = OptunaState.COMPLETE
            trial.values = self._values(record.value, self._known_costs(record))
        return trial

    def _values(self, value: float, costs: Mapping[str, float]) -> list[float]:
        """The objectives; costs by their logarithm, since their ratios matter."""
        return [value, *(math.log(costs[name]) for name in self._settings.cost_objectives)]

    def _given(self, number: int) -> dict[str, Value]:
        """Return the settings of a trial that are given before the sampler is asked."""
        if number < len(self._first):
            return dict(self._first[number])
        grid = {k: d for k, d in self._space.items() if isinstance(d, Choice) and d.grid}
        given: dict[str, Value] = {}
        combination = number - len(self._first)
        for key, dimension in reversed(grid.items()):
            combination, option = divmod(combination, len(dimension.options))
            given[key] = dimension.options[option]
        return given

    def _suggest(
        self, trial: FrozenTrial, given: Mapping[str, Value], attempt: int
    ) -> dict[str, Value]:
        # A sampler per trial, seeded by the trial's number: what it suggests depends on the
        # trials before it and not on how often the search was interrupted.
        number = trial.number - self._offset
        finished: Sequence[FrozenTrial] = ()
        if self._settings.sampler == "cmaes":
            trials = all_trials(self._study)
            finished = [trials[ended + self._offset] for ended in self._ended]
        sampler = new_sampler(self._settings, number, attempt, self._refused, finished)
        together = sampler.infer_relative_search_space(self._study, trial)
        params = sampler.sample_relative(self._study, trial, together) | dict(given)
        return {
            key: params[key]
            if key in params
            else sampler.sample_independent(self._study, trial, key, distribution)
            for key, distribution in self._distributions.items()
        }

    def _is_repeated(self, params: Mapping[str, Value]) -> bool:
        return not self._settings.repeats and _key(params) in self._tried

    def _untried(self, number: int, given: Mapping[str, Value]) -> dict[str, Value] | None:
        """A point at random that no trial has had, if possible one with what is given."""
        untried = [
            point
            for point in self._points()
            if _key(point) not in self._tried and not self._violations(self._costs_of(point))
        ]
        fitting = [p for p in untried if all(p[k] == value for k, value in given.items())]
        rng = np.random.default_rng([self._settings.seed, number])
        chosen = fitting or untried
        return chosen[int(rng.integers(len(chosen)))] if chosen else None

    def _points(self) -> Iterator[dict[str, Value]]:
        """All points of a finite space that has not too many."""
        count = finite_points(self._space)
        if count is None or count > MOST_POINTS:
            return
        values = [dimension.points() for dimension in self._space.values()]
        for point in product(*values):
            yield dict(zip(self._space, point, strict=True))

    def report(self, number: int, step: int, best_so_far: float) -> None:
        """Record what a trial has reached.

        Args:
            step: How many times it has been validated. Optuna's steps are integers; without
                reports within an epoch, it is the epoch.
        """
        self._storage.set_trial_intermediate_value(self._trial_id(number), step, best_so_far)

    def finish(self, number: int, state: TrialState) -> None:
        """Record the end of a trial; its value is the best of its reports'."""
        trial_id = self._trial_id(number)
        curve = self._storage.get_trial(trial_id).intermediate_values
        values, ended = None, OPTUNA_STATES[state]
        if state != "failed":
            values = self._values(max(curve.values()), self._costs.get(number, {}))
            # As of a trial that is read back, see `_with_objectives`.
            ended = OptunaState.COMPLETE if len(values) > 1 else ended
            self._ended.append(number)
        self._storage.set_trial_state_values(trial_id, ended, values)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(
            self._id, number + self._offset
        )


Key = tuple[tuple[str, Value], ...]


def _key(params: Mapping[str, Value]) -> Key:
    return tuple(sorted(params.items()))


def trials_in_all(wanted: int, points: int | None, records: Sequence[TrialRecord]) -> int:
    """Trials of a search: as many as are asked for, or all of its space that keep its limits.

    Args:
        points: Of the space; None where it is infinite, or a point may be trained again.
        records: Which points break a limit is found while the search runs.
    """
    if points is None:
        return wanted
    tried = {_key(record.params) for record in records if record.params}
    breaking = {_key(params) for record in records for params in record.refused} - tried
    return min(wanted, points - len(breaking))


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
        value=record.value if record.state in ("completed", "stopped") else None,
        params=record.params,
        distributions={key: searched[key] for key in record.params},
        intermediate_values={
            step: record.curve[epoch] for step, epoch in enumerate(sorted(record.curve), 1)
        },
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
    found: dict[str, BaseDistribution] = {}
    for key, dimension in space.items():
        match dimension:
            case Float(low, high, log, step):
                found[key] = FloatDistribution(low, high, log=log, step=step)
            case Integer(low, high, log, whole):
                found[key] = IntDistribution(low, high, log=log, step=whole)
            case Choice(options):
                found[key] = CategoricalDistribution(options)
    return found
