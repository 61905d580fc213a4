"""Where the students of a search train: on what, in how many processes, how many in each."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import ray

from kdsearch.compute import resolve_precision
from kdsearch.config import Config
from kdsearch.errors import UserError
from kdsearch.method import Compute
from kdsearch.tuning.stack_size import Rate, best_size, rates, sample
from kdsearch.tuning.trainable import TrialInputs

# What Ray reserves for a trial that only waits for its packer; none at all is not allowed. Its
# packer has so much less.
THIN_CPUS = 0.001
# TPE and ASHA learn from what is finished: of a search's trials at most one in so many trains
# at a time, if the number is ours to choose.
ROUNDS = 4


@dataclass(frozen=True)
class Placement:
    """How a search lies on its cluster.

    Attributes:
        gpu: Whether every process has a GPU of its own.
        cpus: CPUs of a process.
        processes: How many of them train at a time.
        students: How many students a process trains side by side.
        at_a_time: Trials at a time in all.
    """

    gpu: bool
    cpus: int
    processes: int
    students: int
    at_a_time: int

    @property
    def cpus_of_packer(self) -> float:
        """What a process has beside the trials that wait for it."""
        return self.cpus - self.students * THIN_CPUS

    @property
    def stacked(self) -> bool:
        """Whether students of several trials share a process."""
        return self.students > 1


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
        UserError: A trial asks for more CPUs than there are.
    """
    config, gpu = inputs.config, inputs.compute.device == "cuda"
    resources = config.resources
    wanted = resources.students_per_gpu if gpu else resources.students_per_cpu
    processes = _processes(config, gpu)
    measured: list[Rate] = []
    if wanted == "auto":
        most = max(1, config.search.num_samples // (ROUNDS * processes))
        measured = _measure(inputs, most)
        wanted = best_size(measured)
    at_a_time = min(wanted * processes, config.search.max_concurrent or wanted * processes)
    processes = min(processes, math.ceil(at_a_time / wanted))
    placement = Placement(gpu, resources.cpus_per_trial, processes, wanted, at_a_time)
    return placement, measured


def _processes(config: Config, gpu: bool) -> int:
    have = _cluster_resources()
    cpus, per_process = have.get("CPU", 1), config.resources.cpus_per_trial
    if cpus < per_process:
        raise _too_few_cpus(per_process, cpus)
    fits = int(cpus / per_process)
    return min(fits, int(have["GPU"])) if gpu else fits


def _measure(inputs: TrialInputs, most: int) -> list[Rate]:
    gpus = 1 if inputs.compute.device == "cuda" else 0
    task = ray.remote(num_cpus=inputs.threads, num_gpus=gpus)(rates)
    return ray.get(task.remote(sample(inputs), most))


def _cluster_resources() -> dict[str, float]:
    resources: dict[str, Any] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources
