"""Train the teacher of a search: in the driver, or on machines of a cluster that suit it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing
from typing import Any, cast

import ray
from pydantic import BaseModel
from rich.console import Console

from kdsearch.config.space_file import Config
from kdsearch.data import cache_dir
from kdsearch.data.beats import Dataset
from kdsearch.methods.device import threads
from kdsearch.methods.protocol import Compute, EpochReport, Stack, Task
from kdsearch.tuning.placement import local_cpus, teachers_on, trial_compute, wait_for_room
from kdsearch.tuning.progress import ShowEpoch, teacher_progress
from kdsearch.tuning.remote_teacher import RemoteTeacher
from kdsearch.tuning.signals import Signals
from kdsearch.tuning.teacher import (
    OpenStack,
    Teacher,
    TeacherCache,
    ensemble_teacher,
    with_seed,
)

WAITING = "another search trains this teacher; waiting until it has ended"


class TeacherTraining:
    """The training of one teacher, or of several that teach together."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        compute: Compute,
        signals: Signals,
        console: Console,
        say: Callable[[str], None],
    ) -> None:
        """Nothing is trained yet.

        Args:
            compute: Of this process.
            say: Called with a line if others have to be waited for.
        """
        self._config = config
        self._dataset = dataset
        self._compute = compute
        self._signals = signals
        self._console = console
        self._say = say
        self._said_waiting = False
        self._failed = threading.Event()

    def run(self, *, on_cluster: bool) -> Teacher:
        """Return the teacher from the cache, or train what is missing.

        Args:
            on_cluster: Whether to train on the machines of the cluster, in a process that is as
                large as a trial's, or larger if only CPUs compute; otherwise in this process,
                with all CPUs that the search may use.

        Raises:
            SearchFailed: The training diverged or failed.
            UserError: No machine has room for it.
            Interrupted: A signal came; finished epochs are in the cache.
        """
        with teacher_progress(self._console, self._count) as show:
            if on_cluster:
                members = self._on_nodes(show)
            else:
                with self._signals.saving_epochs(), threads(_threads(self._config)):
                    members = [self._member(n, self._compute, show) for n in range(self._count)]
        if len(members) == 1:
            return members[0]
        return ensemble_teacher(members, self._config.method, self._dataset, self._compute)

    @property
    def _count(self) -> int:
        return self._config.teacher_source.members

    def _on_nodes(self, show: ShowEpoch) -> list[Teacher]:
        """Train side by side, each member from its own thread of the driver."""
        compute = trial_compute(self._config, self._say)
        cache, method = TeacherCache(cache_dir()), self._config.method
        known = [
            cache.find(method, self._recipe(number), self._dataset, compute)
            for number in range(self._count)
        ]
        if all(known):
            # Without waiting for room that no training needs.
            return [teacher for teacher in known if teacher is not None]
        least, gpus = self._config.resources.cpus_per_trial, int(compute.device == "cuda")
        free = wait_for_room(least, gpus, self._say)
        processes = teachers_on(free, self._config, compute, self._count)
        task = ray.put(Task(self._dataset.training, compute))

        def open_stack(_: BaseModel) -> AbstractContextManager[Stack]:
            self._signals.leave()
            retries = self._config.search.retries
            return closing(
                RemoteTeacher(
                    self._config.method, task, processes, retries=retries, check=self._check
                )
            )

        with ThreadPoolExecutor(processes.count) as pool, self._signals.saving_epochs():
            trainings = [
                pool.submit(self._member, n, compute, show, open_stack)
                for n in range(self._count)
            ]
            try:
                ended, _ = wait(trainings, return_when=FIRST_EXCEPTION)
                if self._signals.leaving:
                    # The other epochs that run are saved as well.
                    ended, _ = wait(trainings)
                for training in ended:
                    training.result()
            except BaseException:
                self._failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [training.result() for training in trainings]

    def _member(
        self,
        number: int,
        compute: Compute,
        show: ShowEpoch,
        open_stack: OpenStack | None = None,
    ) -> Teacher:
        def on_epoch(report: EpochReport, epochs: int) -> None:
            show(report, epochs, number)
            self._signals.leave()

        return TeacherCache(cache_dir()).get(
            self._config.method,
            self._recipe(number),
            self._dataset,
            compute,
            on_epoch,
            on_wait=self._wait,
            open_stack=open_stack,
        )

    def _recipe(self, number: int) -> BaseModel:
        recipe = self._config.teacher
        return with_seed(recipe, int(cast("Any", recipe).seed) + number)

    def _wait(self) -> None:
        if not self._said_waiting:
            self._said_waiting = True
            self._say(WAITING)
        self._check()

    def _check(self) -> None:
        """Raise an exception if a signal has come, or another member failed."""
        self._signals.check()
        if self._failed.is_set():
            raise CancelledError


def _threads(config: Config) -> int:
    """Threads of a teacher in this process: all CPUs that the search may use.

    On idle cores that is faster. Beside other work the threads wait for each other in every
    step, and one alone is faster (``benchmarks/teacher_threads.py``); ``OMP_NUM_THREADS``
    overrules this.
    """
    # OpenMP takes a list, a number for each level of nesting; torch uses the first.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    given = int(first) if first.isdecimal() else 0
    return given or local_cpus(config)
