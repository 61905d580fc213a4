"""A teacher that trains in a process of Ray's, on the machine of a cluster that suits it.

The driver receives every epoch and keeps it in its cache. If the process or its machine is
lost, another process continues after the last epoch.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, cast

import ray
from pydantic import BaseModel

from kdsearch.errors import RunError, SearchFailed
from kdsearch.methods.device import use_threads
from kdsearch.methods.protocol import Method, State, Task, TrainedEpoch
from kdsearch.texts import one_line, redact
from kdsearch.tuning.placement import WAIT_S, Processes

logger = logging.getLogger(__name__)
# How often it is looked whether the search is to end.
POLL_S = 0.5


class _TeacherActor:
    """The process that trains."""

    def begin(
        self,
        method: Method,
        settings: BaseModel,
        task: Task,
        threads: int,
        seed: int,
        state: State | None,
    ) -> None:
        """Start the training, or continue it."""
        use_threads(threads)
        self._stack = method.teacher_stack(settings, task)
        self._stack.put_in(0, settings, seed=seed, state=state)

    def advance(self) -> tuple[TrainedEpoch, State, State]:
        """Train an epoch; return it, the state to resume from, and the weights."""
        trained = self._stack.advance()[0]
        return trained, self._stack.save(0), self._stack.weights(0)


class RemoteTeacher:
    """A stack of one slot whose network trains in another process.

    Args:
        method: The teacher's.
        task: A `Task` in Ray's object store.
        processes: Device and CPUs of the process.
        retries: How often a process may be lost without an epoch in between.
        check: Called often; raises an exception if the search is to end.
    """

    slots = steps = 1

    def __init__(
        self,
        method: Method,
        task: Any,
        processes: Processes,
        *,
        retries: int,
        check: Callable[[], None],
    ) -> None:
        self._method = method
        self._task = task
        self._processes = processes
        self._retries = retries
        self._check = check
        self._actor: Any = None
        self._arguments: tuple[BaseModel, int] | None = None
        self._state: State | None = None
        self._weights: State = {}

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Remember what the process begins with; it starts with the first epoch."""
        self._arguments, self._state = (settings, seed), state

    def take_out(self, slot: int) -> None:
        """End the process."""
        self.close()

    def advance(self, steps: int | None = None) -> dict[int, TrainedEpoch]:
        """Train an epoch, in another process if one is lost.

        Args:
            steps: None or 1: a teacher is not trained in parts.

        Raises:
            SearchFailed: Several processes in a row are lost, or the method fails.
            RunError: No machine has room for a process.
        """
        for _ in range(1 + self._retries):
            try:
                if self._actor is None:
                    self._begin()
                trained, self._state, self._weights = self._answer(self._actor.advance.remote())
                return {0: trained}
            except ray.exceptions.RayTaskError as error:
                cause = cast("Any", error).cause
                reason = f"{type(cause).__name__}: {one_line(redact(str(cause)))}"
                raise SearchFailed(f"the teacher's training failed: {reason}") from error
            except ray.exceptions.RayError as error:
                self.close()
                logger.warning("the teacher's process is lost: %s", one_line(str(error)))
        raise SearchFailed(
            f"the teacher's process was lost {1 + self._retries} times in one epoch: killed, "
            "out of memory, or with its machine; finished epochs are saved, rerun with --resume"
        )

    def save(self, slot: int) -> State:
        """Return the state after the last epoch."""
        assert self._state is not None
        return self._state

    def weights(self, slot: int) -> State:
        """Return the weights after the last epoch."""
        return self._weights

    def close(self) -> None:
        """End the process. Safe to call twice."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _begin(self) -> None:
        assert self._arguments is not None
        settings, seed = self._arguments
        cpus, gpus = self._processes.cpus, self._processes.gpus
        actor = cast("Any", ray.remote(_TeacherActor))
        self._actor = actor.options(num_cpus=cpus, num_gpus=gpus).remote()
        begun = self._actor.begin.remote(
            self._method, settings, self._task, cpus, seed, self._state
        )
        self._answer(begun, WAIT_S)

    def _answer(self, result: Any, limit_s: float = math.inf) -> Any:
        end = time.monotonic() + limit_s
        while not ray.wait([result], timeout=POLL_S)[0]:
            self._check()
            if time.monotonic() > end:
                raise RunError(
                    f"no machine has had room for the teacher for {limit_s / 60:.0f} minutes; "
                    "rerun with --resume when other jobs have ended"
                )
        return ray.get(result)
