"""Start Ray and Tune with little output, and stop them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune

from kdsearch.tuning.bridge import StudyScheduler, StudySearcher, TimeBudget
from kdsearch.tuning.placement import THIN_CPUS, Placement, Processes
from kdsearch.tuning.signals import Signals
from kdsearch.tuning.workers.packed_trial import train_in_packer
from kdsearch.tuning.workers.packer_actor import PackerActor
from kdsearch.tuning.workers.trial import TrialInputs, train_student

logger = logging.getLogger(__name__)
# Calls that a packer answers beside those in which its students wait.
CALLS = 16


class _CheckSignals(tune.Callback):
    """Look for a lost signal whenever Tune has done something."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._signals.check()


def run_tune(
    inputs: TrialInputs,
    placement: Placement,
    searcher: StudySearcher,
    scheduler: StudyScheduler,
    *,
    trials: int,
    scratch: Path,
    signals: Signals,
) -> None:
    """Run what the searcher suggests; the results are in the trials' folders.

    Args:
        trials: How many of a search's trials are left.
        scratch: A folder for Tune's own files, which are never read; removed at the end.
    """
    config = inputs.config
    # Named, so that they stay in the object store for a packer that has to start again.
    shared = [_shared(inputs, kind) for kind in placement.kinds] if placement.packed else []
    packers = _start_packers(shared, placement, trials) if placement.packed else []
    if placement.packed:
        function = tune.with_parameters(train_in_packer, packers=packers)
        resources = {"cpu": THIN_CPUS}
    else:
        function = tune.with_parameters(train_student, inputs=inputs)
        resources = {"cpu": placement.main.cpus, "gpu": placement.main.gpus}
    trainable = tune.with_resources(function, resources)
    budget = config.search.time_budget_s
    shutil.rmtree(scratch, ignore_errors=True)
    _silence()
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            # As many as the searcher suggests.
            num_samples=-1,
            max_concurrent_trials=placement.at_a_time,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            callbacks=[_CheckSignals(signals)],
            stop=None if budget is None else TimeBudget(budget),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        for packer in packers:
            # Their processors and GPUs are needed for what follows.
            ray.kill(packer)
        shutil.rmtree(scratch, ignore_errors=True)


def _shared(inputs: TrialInputs, kind: Processes) -> Any:
    return ray.put(replace(inputs, compute=kind.compute))


def _start_packers(shared: Sequence[Any], placement: Placement, trials: int) -> list[Any]:
    """An actor for each process of a search whose trials only wait; the fastest first."""
    packers = []
    for inputs, kind in zip(shared, placement.kinds, strict=True):
        actor = cast("Any", ray.remote(PackerActor)).options(
            num_cpus=kind.cpus_of_packer,
            num_gpus=kind.gpus,
            # A student waits in one call, and others come and go meanwhile.
            max_concurrency=2 * kind.students + CALLS,
            max_restarts=-1,
        )
        expected = max(1, min(kind.students, trials // kind.count))
        packers += [actor.remote([inputs], kind.students, expected) for _ in range(kind.count)]
    return packers


def _silence() -> None:
    """Keep Tune's own messages out of the terminal; failures stand in the leaderboard."""
    for name in ("ray.tune", "ray.train", "ray._private", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
