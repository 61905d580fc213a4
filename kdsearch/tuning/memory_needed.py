"""Whether what is to be trained fits into this machine, before anything is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ValidationError

from kdsearch.config.space_file import Config
from kdsearch.data.beats import BeatShape
from kdsearch.errors import ConfigError
from kdsearch.methods.device import resolve_device
from kdsearch.methods.protocol import Sized
from kdsearch.tuning.placement import local_cpus

# Beats are not cut yet. Those of records have so many samples; their number decides little.
BEAT = 320
# Where the kernel says how much a container may use, if it is in one.
CONTAINER = Path("/sys/fs/cgroup/memory.max")
GB = 1e9


def check_memory(config: Config) -> None:
    """Refuse networks whose training takes more memory than this machine, or its GPU, has.

    Raises:
        ConfigError: Names the setting at fault, what is needed and what there is.
    """
    gpu = resolve_device(config.resources.device) == "cuda"
    there = gpu_memory() if gpu else machine_memory()
    if not config.teacher_source.exists:
        _check(config, "teacher", config.teacher, 1, there, gpu=gpu)
    # Students that share the memory: those of one process on a GPU, or else of all.
    resources, search = config.resources, config.search
    wanted = resources.students_per_gpu if gpu else resources.students_per_cpu
    processes = 1 if gpu else max(1, local_cpus(config) // resources.cpus_per_trial)
    most = min(config.trials, search.max_concurrent or config.trials)
    # Fewer are tried first where the number is measured.
    together = min(most, processes * (1 if wanted == "auto" else wanted))
    for point in config.corners():
        _check(config, "student", config.student_settings(point), together, there, gpu=gpu)


def machine_memory() -> int:
    """Bytes of this machine, or of the container that this process is in."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CONTAINER.read_text().strip() if CONTAINER.exists() else ""
    return min(physical, int(limit)) if limit.isdecimal() else physical


def gpu_memory() -> int:
    """Bytes of this machine's first GPU."""
    return int(torch.cuda.get_device_properties(0).total_memory)


def _check(
    config: Config, section: str, settings: BaseModel, together: int, there: int, *, gpu: bool
) -> None:
    needed = together * _bytes(config, settings)
    if needed <= there:
        return
    numbers = {name: value for name, value in settings if type(value) is int}

    def without(name: str) -> int:
        try:
            smaller = type(settings).model_validate(settings.model_dump() | {name: 1})
        except ValidationError:
            return needed
        return _bytes(config, smaller)

    name = min(numbers, key=without)
    where = "space" if section == "student" and name in config.space else section
    at_a_time = f", {together} students at a time" if together > 1 else ""
    machine = "its GPU" if gpu else "this machine"
    mend = "lower it, or search.max_concurrent" if together > 1 else "lower it"
    raise ConfigError(
        f"{where}.{name}={numbers[name]} needs about {needed / GB:,.1f} GB of memory to "
        f"train{at_a_time}, but {machine} has {there / GB:,.1f} GB; {mend}"
    )


def _bytes(config: Config, settings: BaseModel) -> int:
    """What training one network holds; 0 where the method does not know."""
    method, leads = cast("Any", config.method), config.data.lead_count
    if not isinstance(method, Sized):
        return 0
    return 4 * method.training_values(settings, BeatShape(leads, BEAT, leads))
