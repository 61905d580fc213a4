"""Plan where students train: devices, number of processes, students per process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from kdsearch.config.space_file import Config
from kdsearch.errors import RunError, UserError
from kdsearch.methods.device import resolve_precision
from kdsearch.methods.protocol import Compute
from kdsearch.tuning.ray_internals import available_resources, total_resources
from kdsearch.tuning.workers.stack_size import LARGEST, Rate, best_size, rates, sample
from kdsearch.tuning.workers.trial import TrialInputs

# What Ray reserves for a trial that only waits for its packer; none at all is not allowed. Its
# packer has so much less.
THIN_CPUS = 0.001
# TPE and ASHA learn from what is finished: of a search's trials at most one in so many trains
# at a time, if the number is ours to choose.
ROUNDS = 4
# What other jobs use may have been released a moment ago; Ray's figures are up to a second old.
SETTLE_S = 3.0
# How long to wait until other jobs leave room for one process.
WAIT_S = 600.0
POLL_S = 0.5

NO_GPU = "resources.device is cuda, but Ray finds no GPU"


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine, or those of them that are free."""

    cpus: float
    gpus: float

    def fits(self, cpus: float, gpus: float) -> int:
        """Number of processes of this size that fit."""
        # Ray counts in ten-thousandths.
        by_cpus = int(self.cpus / cpus + 1e-6) if cpus else LARGEST
        return min(by_cpus, int(self.gpus / gpus + 1e-6)) if gpus else by_cpus


@dataclass(frozen=True)
class Processes:
    """Processes of one kind that train students.

    Attributes:
        compute: Each has a GPU of its own if its device is ``cuda``.
        cpus: CPUs of each.
        count: Number of processes.
        students: Number of students that each trains side by side.
    """

    compute: Compute
    cpus: int
    count: int
    students: int

    @property
    def gpus(self) -> int:
        """GPUs of each."""
        return int(self.compute.device == "cuda")

    @property
    def cpus_of_packer(self) -> float:
        """What each has beside the trials that wait for it."""
        return self.cpus - self.students * THIN_CPUS


@dataclass(frozen=True)
class Placement:
    """The processes of a search.

    Attributes:
        kinds: The fastest kind first.
        at_a_time: Maximum number of concurrent trials.
    """

    kinds: tuple[Processes, ...]
    at_a_time: int

    @property
    def main(self) -> Processes:
        """The fastest kind; what comes after the trials runs there."""
        return self.kinds[0]

    @property
    def packed(self) -> bool:
        """Whether trials hand their students to packers instead of training them."""
        return len(self.kinds) > 1 or self.main.students > 1


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_cpus(config: Config) -> int:
    """CPUs that Ray may use on this machine, as many as the trials at a time need.

    Raises:
        UserError: One process alone needs more than there are.
    """
    cpus = available_cpus()
    per_process = config.resources.cpus_per_trial
    if per_process > cpus:
        raise UserError(
            f"resources: cpus_per_trial={per_process}, but this machine has {cpus} CPUs"
        )
    wanted = (config.search.max_concurrent or cpus) * per_process
    return min(cpus, wanted)


def trial_compute(config: Config, say: Callable[[str], None]) -> Compute:
    """What the trials compute on: GPUs if the cluster has some, unless the settings say no.

    Raises:
        UserError: GPUs are demanded and there are none, or other jobs have them all.
    """
    wanted, precision = config.resources.device, config.resources.precision
    gpus = any(node.gpus >= 1 for node in cluster_nodes())
    if wanted == "cuda" and not gpus:
        raise UserError(NO_GPU)
    if wanted == "cpu" or not gpus:
        return Compute("cpu", resolve_precision(precision, "cpu"))
    if precision != "auto":
        return Compute("cuda", precision)
    # The driver's machine need not have a GPU, nor the same one.
    wait_for_room(0, 1, say)
    look = ray.remote(num_cpus=0, num_gpus=1)(resolve_precision)
    return Compute("cuda", _answer(look.remote(precision, "cuda")))


def check_cluster(config: Config) -> None:
    """Refuse a cluster on which no trial can run, before anything is trained.

    Raises:
        UserError: It has no GPU, or no machine with enough CPUs.
    """
    nodes, cpus = cluster_nodes(), config.resources.cpus_per_trial
    if config.resources.device == "cuda" and not any(node.gpus >= 1 for node in nodes):
        raise UserError(NO_GPU)
    most = max((node.cpus for node in nodes), default=0)
    if most < cpus:
        raise UserError(
            f"resources: cpus_per_trial={cpus}, but the largest machine of the cluster has "
            f"{most:g} CPUs"
        )


def plan_placement(
    inputs: TrialInputs, say: Callable[[str], None]
) -> tuple[Placement, list[Rate]]:
    """Decide how many students train where.

    A process that trains several students has to fit into what other jobs leave free now. One
    that trains a single student is started by Ray Tune whenever there is room.

    Args:
        say: Called with a line if other jobs are in the way.

    Returns:
        The placement, and what was measured for it, if anything was.

    Raises:
        UserError: No machine is large enough for a process, or other jobs leave no room.
    """
    cpus, gpus = (
        inputs.config.resources.cpus_per_trial,
        int(inputs.task.compute.device == "cuda"),
    )
    free = wait_for_room(cpus, gpus, say)
    fit = sum(node.fits(cpus, gpus) for node in free)
    students, measured = _students(inputs, fit)
    nodes = cluster_nodes()
    placement = placement_on(nodes, inputs.config, inputs.task.compute, students)
    if placement.packed:
        placement = placement_on(free, inputs.config, inputs.task.compute, students)
        taken = sum(node.fits(cpus, gpus) for node in nodes) - fit
        if taken:
            say(f"{fit} processes train students; other jobs have the room for {taken} more")
    return placement, measured


def placement_on(
    nodes: Sequence[Node], config: Config, compute: Compute, students: int
) -> Placement:
    """As many processes as fit on these machines and are of use.

    Args:
        compute: Of the fastest kind.
        students: Number of students that a process of this kind trains.
    """
    resources, cpus = config.resources, config.resources.cpus_per_trial
    gpus = int(compute.device == "cuda")
    fits = [node.fits(cpus, gpus) for node in nodes]
    without_gpu = [node.fits(cpus, 0) for node in nodes]
    left = config.search.max_concurrent or LARGEST * sum(without_gpu)
    kinds = [_so_many(compute, cpus, sum(fits), students, left)]
    left -= kinds[0].count * students
    spare = sum(without_gpu) - sum(fits)
    if gpus and resources.device == "all" and spare > 0 and left > 0:
        compute = Compute("cpu", resolve_precision(resources.precision, "cpu"))
        beside = 1 if resources.students_per_cpu == "auto" else resources.students_per_cpu
        kinds.append(_so_many(compute, cpus, spare, beside, left))
    room = sum(kind.count * kind.students for kind in kinds)
    return Placement(tuple(kinds), min(room, config.search.max_concurrent or room))


def teachers_on(
    nodes: Sequence[Node], config: Config, compute: Compute, members: int
) -> Processes:
    """Processes for the teachers of an ensemble, side by side as far as these machines allow.

    Each has a GPU, or as many CPUs as all of them can have at the same time.
    """
    least, gpus = config.resources.cpus_per_trial, int(compute.device == "cuda")
    trials = config.search.max_concurrent

    def fit(cpus: int) -> int:
        here = sum(node.fits(cpus, gpus) for node in nodes)
        return here if trials is None else min(here, trials * least // cpus)

    largest = least if gpus else int(max(node.cpus for node in nodes))
    cpus = next((c for c in range(largest, least, -1) if fit(c) >= members), least)
    return Processes(compute, cpus, min(members, fit(cpus)), students=1)


def wait_for_room(cpus: int, gpus: int, say: Callable[[str], None]) -> Sequence[Node]:
    """Wait until a process of this size fits beside other jobs; return what is free then.

    Raises:
        UserError: It does not fit on any machine, also without other jobs.
        RunError: Other jobs left no room for ten minutes.
    """
    waited, said = 0.0, False
    wanted = [f"{cpus} CPU{'s' if cpus > 1 else ''}"] * (cpus > 0) + ["a GPU"] * gpus
    size = " and ".join(wanted)
    while True:
        here, free = cluster_nodes(), _nodes(available_resources())
        fit, at_most = (sum(node.fits(cpus, gpus) for node in of) for of in (free, here))
        if not at_most:
            largest = max((node.cpus for node in here if node.gpus >= gpus), default=0)
            beside = " with a GPU" if gpus else ""
            raise UserError(
                f"resources: cpus_per_trial={cpus}, but the largest machine{beside} has "
                f"{largest:g} CPUs"
            )
        if fit >= at_most or (fit and waited >= SETTLE_S):
            return free
        if waited >= WAIT_S:
            raise RunError(
                f"other jobs on this cluster have left no room for {size} for "
                f"{WAIT_S / 60:.0f} minutes; rerun with --resume when one of them has ended"
            )
        if not fit and waited >= SETTLE_S and not said:
            say(f"waiting for {size}: other jobs use the cluster")
            said = True
        time.sleep(POLL_S)
        waited += POLL_S


def cluster_nodes() -> list[Node]:
    """Every machine of the cluster, as if nothing ran there."""
    return _nodes(total_resources())


def _nodes(by_node: dict[str, dict[str, float]]) -> list[Node]:
    return [Node(there.get("CPU", 0), there.get("GPU", 0)) for there in by_node.values()]


def _so_many(compute: Compute, cpus: int, count: int, students: int, most: int) -> Processes:
    """As many processes as ``most`` trials at a time can fill."""
    return Processes(compute, cpus, min(count, math.ceil(most / students)), students)


def _students(inputs: TrialInputs, processes: int) -> tuple[int, list[Rate]]:
    """How many students a process trains, and what was measured for it, if anything was."""
    config, gpu = inputs.config, inputs.task.compute.device == "cuda"
    resources = config.resources
    wanted = resources.students_per_gpu if gpu else resources.students_per_cpu
    if wanted != "auto":
        return wanted, []
    most = max(1, config.trials // (ROUNDS * processes))
    task = ray.remote(num_cpus=inputs.threads, num_gpus=int(gpu))(rates)
    measured = _answer(task.remote(sample(inputs), most))
    return best_size(measured), measured


def _answer(task: Any) -> Any:
    """The result of a task, unless another job takes its room for too long."""
    try:
        return ray.get(task, timeout=WAIT_S)
    except ray.exceptions.GetTimeoutError:
        raise RunError(
            f"no machine has answered for {WAIT_S / 60:.0f} minutes; rerun with --resume when "
            "other jobs have ended"
        ) from None
