"""All that we use of Ray besides its public interface, checked when this is imported."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.tune.schedulers import ASHAScheduler

from kdsearch.extras import require_private
from kdsearch.texts import redact

PRIVATE = (
    "ray:init(_temp_dir)",
    "ray.job_config:JobConfig(_py_driver_sys_path)",
    "ray._private.node:Node.start_api_server(include_dashboard)",
    "ray._private.node:Node.start_log_monitor",
    "ray._private.node:Node.start_monitor",
    "ray._private.services:ConsolePopen",
    "ray._private.utils:set_sigterm_handler",
    "ray._private.utils:get_entrypoint_name",
    "ray.air._internal.usage:tag_callbacks",
    "ray._private.state:available_resources_per_node",
    "ray._private.state:total_resources_per_node",
    "ray.tune.schedulers.async_hyperband:ASHAScheduler(_brackets)",
    "ray.tune.schedulers.async_hyperband:_Bracket(_rungs)",
    "ray.tune.schedulers.async_hyperband:_Bracket.cutoff(recorded)",
)
require_private("ray", ray.__version__, PRIVATE)

_node: Any = ray._private.node
_services: Any = ray._private.services
_state: Any = ray._private.state


class _Node(_node.Node):  # type: ignore[misc]
    """This machine, without three programs that only serve a dashboard, a log and a cluster.

    Ray starts them even where it is told to have none of these. Each takes a third to half a
    second of CPU time, and `ray.init` waits another second until the first one answers.
    """

    def start_api_server(self, **options: Any) -> None:
        """Start no dashboard."""

    def start_log_monitor(self) -> None:
        """Start nothing that sends what workers print."""

    def start_monitor(self) -> None:
        """Start nothing that adds machines."""


def start(*, temporary: Path, import_from: list[str], **options: Any) -> None:
    """Start Ray on this machine.

    Args:
        temporary: Folder for its temporary files.
        import_from: Folders that workers import from, besides installed packages.
        options: Of `ray.init`.
    """
    ray.init(
        address="local",
        job_config=ray.job_config.JobConfig(_py_driver_sys_path=import_from),
        _temp_dir=str(temporary),
        include_dashboard=False,
        **options,
    )


class _Process(_services.ConsolePopen):  # type: ignore[misc]
    """A process of Ray's; SIGTERM is blocked in it (see `Signals.held_back`)."""

    def terminate(self) -> None:
        self.kill()


@contextmanager
def adapted() -> Iterator[None]:
    """Change four things that Ray has no option for, while it starts.

    It would end this process at SIGTERM with status 15 and without a message. It keeps the
    command line in its table of jobs, which may hold a password. It would wait a second for
    each of its processes to react to SIGTERM. And it would start programs that nothing needs.
    """
    utils: Any = ray._private.utils
    own = (utils.set_sigterm_handler, utils.get_entrypoint_name)
    own_classes = (_services.ConsolePopen, _node.Node)
    utils.set_sigterm_handler = lambda handler: None
    utils.get_entrypoint_name = lambda: redact(own[1]())
    _services.ConsolePopen, _node.Node = _Process, _Node
    try:
        yield
    finally:
        utils.set_sigterm_handler, utils.get_entrypoint_name = own
        _services.ConsolePopen, _node.Node = own_classes


@contextmanager
def uncounted_callbacks() -> Iterator[None]:
    """Keep Tune from counting callbacks of MLflow and W&B, which it imports for that."""
    usage: Any = ray.air._internal.usage
    own, usage.tag_callbacks = usage.tag_callbacks, lambda callbacks: False
    try:
        yield
    finally:
        usage.tag_callbacks = own


def total_resources() -> dict[str, dict[str, float]]:
    """What each node of the cluster has, by its id."""
    found: dict[str, dict[str, float]] = _state.total_resources_per_node()
    return found


def available_resources() -> dict[str, dict[str, float]]:
    """What is free on each node of the cluster, by its id."""
    found: dict[str, dict[str, float]] = _state.available_resources_per_node()
    return found


class _Rewards(dict[str, float]):
    """What a rung has recorded by trial, and its values in order."""

    def __init__(self) -> None:
        super().__init__()
        self._sorted: list[float] = []

    def __setitem__(self, trial_id: str, reward: float) -> None:
        bisect.insort(self._sorted, reward)
        super().__setitem__(trial_id, reward)

    def quantile(self, share: float) -> float:
        """As ``numpy.percentile`` interpolates."""
        position = share * (len(self._sorted) - 1)
        below = math.floor(position)
        low, high = self._sorted[below], self._sorted[min(below + 1, len(self) - 1)]
        return low + (high - low) * (position - below)


def with_sorted_rungs(asha: ASHAScheduler) -> ASHAScheduler:
    """The same scheduler; a decision does not sort all that a rung has ever seen."""

    class Bracket(type(asha._brackets[0])):  # type: ignore[misc]
        def __init__(self, rays: Any) -> None:
            self.__dict__.update(rays.__dict__)
            self._rungs = [(milestone, _Rewards()) for milestone, _ in rays._rungs]

        def cutoff(self, recorded: _Rewards) -> float | None:
            return recorded.quantile(1 - 1 / self.rf) if recorded else None

    asha._brackets = [Bracket(bracket) for bracket in asha._brackets]
    return asha
