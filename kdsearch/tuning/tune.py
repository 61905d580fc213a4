"""Run the trials with Ray Tune: its searcher and scheduler, which use the ledger.

No state of Tune is reused. The trials to run and their results are in the trials' folders.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.errors import StorageFailed
from kdsearch.runs.stop_requests import StopRequests
from kdsearch.runs.study import Suggestion
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.placement import THIN_CPUS, Placement
from kdsearch.tuning.ray_internals import uncounted_callbacks
from kdsearch.tuning.rungs import Rungs
from kdsearch.tuning.signals import Signals
from kdsearch.tuning.workers.messages import BEST_SO_FAR, EPOCH, EPOCHS, FAILURE, STORAGE
from kdsearch.tuning.workers.packed_trial import train_in_packer
from kdsearch.tuning.workers.packer_actor import PackerActor
from kdsearch.tuning.workers.trial import TrialInputs, train_student

logger = logging.getLogger(__name__)
DIED = "the worker process exited without an error message: killed, out of memory, or os._exit"
STOPPED_BY_USER = "stopped by 'kdsearch stop'"
# Calls that a packer answers beside those in which its students wait.
CALLS = 16


class _LivesInTheDriver:
    """Kept out of the snapshots that Tune pickles, which are never read."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _LivesInTheDriver:
        return self


class StudySearcher(_LivesInTheDriver, Searcher):
    """Suggests first what was left unfinished, then new trials, and failed ones again.

    Tune's own retries are off. A lost node can reach Tune as two failures of one try, and the
    second would end a trial that waits for its next try. Here each try is a trial of Tune's,
    which can fail once.
    """

    def __init__(
        self, ledger: Ledger, unfinished: list[Suggestion], total: int, *, retries: int
    ) -> None:
        """Suggest until there are ``total`` trials.

        Args:
            ledger: Writes what is suggested and what fails.
            unfinished: Suggested first.
            total: Trials in all.
            retries: Allowed tries of a trial after its first.
        """
        super().__init__(metric=BEST_SO_FAR, mode="max")
        self._ledger = ledger
        self._unfinished = list(unfinished)
        self._total = total
        self._retries = retries
        self._retried: Counter[int] = Counter()
        self._running: dict[str, Suggestion] = {}

    @property
    def sampler(self) -> str:
        """The name of the sampler; for ``auto``, the one that was picked."""
        return self._ledger.study.sampler

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's number and parameters; None until a running one has ended."""
        if self._unfinished:
            suggestion = self._unfinished.pop(0)
        elif len(self._ledger.study) < self._total and not self._ledger.study.used_up:
            suggestion = self._ledger.study.ask()
        elif self._running:
            # It may fail, and be suggested again.
            return None
        else:
            return cast("None", Searcher.FINISHED)
        self._running[trial_id] = suggestion
        self._ledger.start(suggestion)
        return {"number": suggestion.number, "params": suggestion.params}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Suggest a failed trial again, or write that it failed for good.

        The reason of each try is taken: it must not become the reason of a later one.
        """
        suggestion = self._running.pop(trial_id, None)
        if not error or suggestion is None or not self._ledger.runs(suggestion.number):
            return
        number = suggestion.number
        reason = self._ledger.take_error(number) or DIED
        if self._retried[number] < self._retries:
            self._retried[number] += 1
            logger.info("trial %d is tried again: %s", number, reason)
            self._unfinished.append(suggestion)
        else:
            self._ledger.finish(number, "failed", reason)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials' folders have it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the trials' folders have it."""


class StudyScheduler(_LivesInTheDriver, FIFOScheduler):
    """Takes note of every report, and stops what lags behind."""

    def __init__(self, ledger: Ledger, rungs: Rungs | None, requests: StopRequests) -> None:
        """Stop trials by ``rungs``, if any, and at requests of ``kdsearch stop``."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger
        self._rungs = rungs
        self._requests = requests
        self._signals: Signals | None = None
        self._waiting: set[int] = set()

    def follow(self, signals: Signals) -> None:
        """Let trials wait after their running epochs when a SIGTERM has come."""
        self._signals = signals

    @property
    def _leaving(self) -> bool:
        return self._signals is not None and self._signals.leaving

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Start the next trial, unless the search is about to end."""
        if self._leaving:
            return None
        trial: Trial | None = super().choose_trial_to_run(tune_controller)
        return trial

    def all_wait(self, trials: Sequence[Trial]) -> bool:
        """Return whether no trial trains: each has reported its epoch and waits."""
        training = {int(t.config["number"]) for t in trials if t.status == Trial.RUNNING}
        return all(n in self._waiting or not self._ledger.runs(n) for n in training)

    def on_trial_result(
        self, tune_controller: object, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Record the report first, then decide."""
        number = int(trial.config["number"])
        if not self._ledger.runs(number):
            return str(TrialScheduler.STOP)
        if STORAGE in result:
            raise StorageFailed(str(result[STORAGE]))
        if FAILURE in result:
            self._ledger.finish(number, "failed", str(result[FAILURE]))
            return str(TrialScheduler.CONTINUE)
        self._ledger.report(number, result)
        decision = self._decide(number, result)
        if self._leaving and self._ledger.runs(number):
            self._waiting.add(number)
            # The worker waits: it may not begin another epoch.
            return str(TrialScheduler.NOOP)
        return decision

    def _decide(self, number: int, result: dict[str, Any]) -> str:
        epoch, best_so_far = result[EPOCH], float(result[BEST_SO_FAR])
        if epoch >= result[EPOCHS]:
            self._ledger.finish(number, "completed")
        elif self._requests.trial_stopped(number):
            self._ledger.finish(number, "stopped", STOPPED_BY_USER)
            return str(TrialScheduler.STOP)
        elif self._rungs is not None and self._rungs.lags(
            number, epoch, best_so_far, self._ledger.costs(number)
        ):
            self._ledger.finish(number, "stopped")
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)


class Pause(_LivesInTheDriver, tune.Stopper):
    """Pauses the search after its time budget, or at a request of ``kdsearch stop``."""

    def __init__(self, seconds: float | None, requests: StopRequests) -> None:
        """Start the clock, a monotonic one, unlike that of Tune's own stopper."""
        self._end = time.monotonic() + (math.inf if seconds is None else seconds)
        self._requests = requests

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Return whether the time is over, or a pause is requested."""
        return time.monotonic() >= self._end or self._requests.search_paused()


class _TellPackers(tune.Callback):
    """Tells the packers which trials have ended.

    The process of a stopped trial waits in a report until the next trial uses it. At the
    end of a search there is none, and the stack would wait for the student.
    """

    def __init__(self, packers: Sequence[Any]) -> None:
        self._packers = packers

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Trial, **info: Any
    ) -> None:
        """Release its slot."""
        for packer in self._packers:
            packer.release.remote(int(trial.config["number"]))


class _CheckSignals(tune.Callback):
    """Ends the search after a signal: at once, or when the running epochs are saved."""

    def __init__(
        self, signals: Signals, scheduler: StudyScheduler, packers: Sequence[Any]
    ) -> None:
        self._signals = signals
        self._scheduler = scheduler
        self._packers = packers
        self._saves: list[Any] = []

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the search if a signal has come."""
        self._signals.check()
        if not self._signals.leaving:
            return
        if self._packers:
            self._saves = self._saves or [packer.save.remote() for packer in self._packers]
            saved, _ = ray.wait(self._saves, num_returns=len(self._saves), timeout=0)
            over = len(saved) == len(self._saves)
        else:
            over = self._scheduler.all_wait(trials)
        if over:
            self._signals.leave()


def run_tune(
    inputs: TrialInputs,
    placement: Placement,
    searcher: StudySearcher,
    scheduler: StudyScheduler,
    *,
    trials: int,
    scratch: Path,
    signals: Signals,
    requests: StopRequests,
) -> None:
    """Run what the searcher suggests; the results are in the trials' folders.

    Args:
        trials: How many of a search's trials are left.
        scratch: A folder for Tune's own files, which are never read; removed at the end.
    """
    scheduler.follow(signals)
    packers: list[Any] = []
    if placement.packed:
        # Named, so that they stay in the object store for a packer that has to start again.
        tasks = [replace(inputs.task, compute=kind.compute) for kind in placement.kinds]
        shared = [ray.put(replace(inputs, task=task)) for task in tasks]
        packers = _start_packers(shared, placement, trials)
        function = tune.with_parameters(train_in_packer, packers=packers)
        resources = {"cpu": THIN_CPUS}
    else:
        function = tune.with_parameters(train_student, inputs=inputs)
        resources = {"cpu": placement.main.cpus, "gpu": placement.main.gpus}
    shutil.rmtree(scratch, ignore_errors=True)
    # The terminal has the search's progress; failures are in the leaderboard.
    for name in ("ray.tune", "ray.train", "ray._private", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    tuner = tune.Tuner(
        tune.with_resources(function, resources),
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
            callbacks=[_CheckSignals(signals, scheduler, packers), _TellPackers(packers)],
            stop=Pause(inputs.config.search.time_budget_s, requests),
            verbose=0,
        ),
    )
    try:
        with signals.saving_epochs(polled=True), uncounted_callbacks():
            tuner.fit()
    finally:
        for packer in packers:
            # Their processors and GPUs are needed for what follows.
            ray.kill(packer)
        shutil.rmtree(scratch, ignore_errors=True)


def _start_packers(shared: Sequence[Any], placement: Placement, trials: int) -> list[Any]:
    """Start an actor for each process of a search whose trials only wait; the fastest first."""
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
