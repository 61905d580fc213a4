"""ASHA's rungs, restored from the trials' records: a resumed search stops trials as before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from kdsearch.config.space_file import SchedulerSettings
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.ray_internals import with_sorted_rungs
from kdsearch.tuning.workers.messages import BEST_SO_FAR, EPOCH


class Rungs:
    """Ray's ASHA, asked about trials by their numbers."""

    def __init__(
        self, settings: SchedulerSettings, max_epochs: int, alike: Sequence[str] = ()
    ) -> None:
        """Begin with empty rungs.

        Args:
            alike: Costs in which trials must be alike to be compared: between the same powers
                of two.
        """
        self._settings, self._max_epochs, self._alike = settings, max_epochs, alike
        self._asha: dict[tuple[int, ...], Any] = {}
        self._known: set[int] = set()

    def refill(self, records: Iterable[TrialRecord]) -> None:
        """Learn what earlier drivers saw, in the order in which trials finished.

        Of an unfinished trial the last report is left out: its driver may have died between
        the report and the decision, and the trial will report it again.
        """
        unfinished = math.inf
        in_order = sorted(
            records, key=lambda r: (unfinished if r.order is None else r.order, r.number)
        )
        for record in in_order:
            reports = sorted(record.curve.items())
            for epoch, best_so_far in reports if record.finished else reports[:-1]:
                self.lags(record.number, epoch, best_so_far, record.costs)

    def lags(
        self,
        number: int,
        epoch: int | float,
        best_so_far: float,
        costs: Mapping[str, float] | None = None,
    ) -> bool:
        """Enter a trial's value and say whether it falls behind at the rung it has reached."""
        trial: Any = SimpleNamespace(trial_id=str(number))
        no_controller: Any = None
        size = tuple(math.frexp((costs or {}).get(name, 0))[1] for name in self._alike)
        if size not in self._asha:
            # Below 1 too: Ray calculates with floats.
            grace_period: Any = self._settings.grace_period
            new = ASHAScheduler(
                time_attr=EPOCH,
                metric=BEST_SO_FAR,
                mode="max",
                max_t=self._max_epochs,
                grace_period=grace_period,
                reduction_factor=self._settings.reduction_factor,
                # The last epoch ends a trial by itself; the scheduler is not asked.
                stop_last_trials=False,
            )
            self._asha[size] = with_sorted_rungs(new)
        asha = self._asha[size]
        if number not in self._known:
            self._known.add(number)
            asha.on_trial_add(no_controller, trial)
        result = {EPOCH: epoch, BEST_SO_FAR: best_so_far}
        decision: str = asha.on_trial_result(no_controller, trial, result)
        return decision == TrialScheduler.STOP
