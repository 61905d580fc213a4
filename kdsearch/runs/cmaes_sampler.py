"""CMA-ES (Hansen and Ostermeier, 2001), restored from the finished trials each time.

Optuna's own CmaEsSampler keeps its state in attributes of trials, which a study that is
computed from the trials' folders does not have. Here the state is computed from the trials
themselves: CMA-ES gets them in the order in which they finished, a population at a time. So a
resumed search suggests what an uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

# Of the first population, where each setting is between 0 and 1.
SIGMA = 0.2


class RestoredCmaEs(RandomSampler):
    """Suggests numbers by CMA-ES and choices at random."""

    def __init__(self, finished: Sequence[FrozenTrial], startup: int, seed: int) -> None:
        """Suggest for one trial.

        Args:
            finished: All that have a value, in the order in which they finished.
            startup: Random trials; CMA-ES begins at the best of them.
        """
        super().__init__(seed=seed)
        self._finished, self._seed = finished, seed
        self._startup = max(1, startup)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the settings that are numbers; none of them during the startup."""
        if len(self._finished) < self._startup:
            return {}
        distributions = self._finished[0].distributions.items()
        return {
            key: one
            for key, one in distributions
            if isinstance(one, FloatDistribution | IntDistribution) and not one.single()
        }

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Suggest all numbers at once."""
        axes = {key: _Axis(distribution) for key, distribution in search_space.items()}
        if not axes:
            return {}

        def point(of: FrozenTrial) -> NDArray[np.float64]:
            return np.array([axis.to_unit(of.params[key]) for key, axis in axes.items()])

        # It loads scipy.stats, which takes half a second: only for those who use it.
        from cmaes import CMA  # noqa: PLC0415

        first, later = self._finished[: self._startup], self._finished[self._startup :]
        bounds = np.array([[0.0, 1.0]] * len(axes))
        mean = point(max(first, key=_value))
        cma = CMA(mean, SIGMA, bounds=bounds, seed=self._seed)
        size = cma.population_size
        for end in range(size, len(later) + 1, size):
            # It minimises.
            cma.tell([(point(one), -_value(one)) for one in later[end - size : end]])
        found = zip(axes.items(), cma.ask(), strict=True)
        return {key: axis.from_unit(float(value)) for (key, axis), value in found}


class _Axis:
    """A setting between 0 and 1, on a logarithmic scale if its own is."""

    def __init__(self, distribution: Any) -> None:
        self._d = distribution
        self._whole = isinstance(distribution, IntDistribution)
        # Every whole number has the same room, also the first and the last.
        half = distribution.step / 2 if distribution.step else 0.0
        self._low = self._scaled(distribution.low - half)
        self._high = self._scaled(distribution.high + half)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._d.log else float(value)

    def to_unit(self, value: float) -> float:
        return (self._scaled(value) - self._low) / (self._high - self._low)

    def from_unit(self, unit: float) -> float:
        value = self._low + unit * (self._high - self._low)
        value = math.exp(value) if self._d.log else value
        if self._d.step:
            value = self._d.low + round((value - self._d.low) / self._d.step) * self._d.step
        value = min(max(value, self._d.low), self._d.high)
        return int(value) if self._whole else value


def _value(trial: FrozenTrial) -> float:
    return float(trial.values[0])
