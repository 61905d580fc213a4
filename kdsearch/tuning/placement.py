"""Where the students of a search train: on what, in how many processes, how many in each."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import ray

from kdsearch.config.space_file import Config
from kdsearch.errors import UserError
from kdsearch.methods.device import resolve_precision
from kdsearch.methods.protocol import Compute
from kdsearch.tuning.workers.stack_size import LARGEST, Rate, best_size, rates, sample
from kdsearch.tuning.workers.trial import TrialInputs

# What Ray reserves for a trial that only waits for its packer; none at all is not allowed. Its
# packer has so much less.
THIN_CPUS = 0.001
# TPE and ASHA learn from what is finished: of a search's trials at most one in so many trains
# at a time, if the number is ours to choose.
ROUNDS = 4


@dataclass(frozen=True)
class Processes:
    """Processes of one kind that train students.

    Attributes:
        compute: On what; each has a GPU of its own where that is ``cuda``.
        cpus: CPUs of each.
        count: How many of them there are.
        students: How many students each trains side by side.
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
    """How a search lies on its cluster.

    Attributes:
        kinds: Its processes, the fastest kind first.
        at_a_time: Trials at a time in all.
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
        raise _too_few_cpus(per_process, cpus)
    wanted = (config.search.max_concurrent or cpus) * per_process
    return min(cpus, wanted)


def _too_few_cpus(asked: int, there: float) -> UserError:
    return UserError(
        f"resources.cpus_per_trial: must not exceed the machine's CPUs, but {asked} are asked "
        f"for and {there:g} there"
    )


def trial_compute(config: Config) -> Compute:
    """On what the trials calculate: GPUs where the cluster has some, unless told otherwise.

    Raises:
        UserError: GPUs are demanded and there are none.
    """
    wanted, there = config.resources.device, _cluster_resources().get("GPU", 0) >= 1
    if wanted == "cuda" and not there:
        raise UserError("resources.device is cuda, but Ray finds no GPU")
    if wanted == "cpu" or not there:
        return Compute("cpu", resolve_precision(config.resources.precision, "cpu"))
    # The driver's machine need not have a GPU, nor the same one.
    look = ray.remote(num_cpus=0, num_gpus=1)(resolve_precision)
    return Compute("cuda", ray.get(look.remote(config.resources.precision, "cuda")))


def place(inputs: TrialInputs) -> tuple[Placement, list[Rate]]:
    """Decide how many students train where.

    Returns:
        The placement, and what was measured for it, if anything was.

    Raises:
        UserError: A process asks for more CPUs than there are.
    """
    config = inputs.config
    gpu = inputs.compute.device == "cuda"
    resources = config.resources
    there = _cluster_resources()
    fits = int(there.get("CPU", 1) / resources.cpus_per_trial)
    if not fits:
        raise _too_few_cpus(resources.cpus_per_trial, there.get("CPU", 1))
    count = min(fits, int(there["GPU"])) if gpu else fits
    students, measured = _students(inputs, count)
    left = config.search.max_concurrent or LARGEST * fits
    kinds = [_so_many(inputs.compute, resources.cpus_per_trial, count, students, left)]
    if gpu and resources.device == "all":
        left -= kinds[0].count * students
        cpu = Compute("cpu", resolve_precision(resources.precision, "cpu"))
        wanted = resources.students_per_cpu
        beside = 1 if wanted == "auto" else wanted
        if fits > count and left > 0:
            spare = fits - count
            kinds.append(_so_many(cpu, resources.cpus_per_trial, spare, beside, left))
    room = sum(kind.count * kind.students for kind in kinds)
    return Placement(tuple(kinds), min(room, config.search.max_concurrent or room)), measured


def _so_many(compute: Compute, cpus: int, count: int, students: int, most: int) -> Processes:
    """As many processes as ``most`` trials at a time can fill."""
    return Processes(compute, cpus, min(count, math.ceil(most / students)), students)


def _students(inputs: TrialInputs, processes: int) -> tuple[int, list[Rate]]:
    """How many students a process trains; what was measured, if that was to be measured."""
    config, gpu = inputs.config, inputs.compute.device == "cuda"
    resources = config.resources
    wanted = resources.students_per_gpu if gpu else resources.students_per_cpu
    if wanted != "auto":
        return wanted, []
    measured = _measure(inputs, max(1, config.search.num_samples // (ROUNDS * processes)))
    return best_size(measured), measured


def _measure(inputs: TrialInputs, most: int) -> list[Rate]:
    gpus = 1 if inputs.compute.device == "cuda" else 0
    task = ray.remote(num_cpus=inputs.threads, num_gpus=gpus)(rates)
    return ray.get(task.remote(sample(inputs), most))


def _cluster_resources() -> dict[str, float]:
    resources: dict[str, Any] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources
