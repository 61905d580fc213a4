"""The time of a step, and the kernels that it consists of."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gpu_parts.course import METHODS, UNDISTILLED, Course
from gpu_parts.part import Part, sizes, timed
from kdsearch.methods.beatgan.engine import NO_GRAPH
from kdsearch.methods.device import Precision
from kdsearch.methods.protocol import Compute


def steps(part: Part, options: argparse.Namespace) -> None:
    """A step's time in an epoch, with all that belongs to it but a full validation."""
    size = sizes(options)
    some = tuple(students for students in size.students if students in (1, 2, 16))
    forms: tuple[tuple[str, Precision, str, Sequence[int]], ...] = (
        ("beatgan", "bf16", "", size.students),
        ("memory", "bf16", "", size.students),
        ("beatgan", "bf16", "distilled", some[-1:]),
        ("beatgan", "bf16", "no graph", some),
        ("beatgan", "fp32", "", size.students),
        ("memory", "fp32", "", size.students),
    )
    for name, precision, form, stacks in forms:
        extra = {} if form == "distilled" else UNDISTILLED[name]
        course = Course.new(name, size.steps, options, **extra)
        compute = Compute(options.device, precision)
        for students in stacks:
            if part.left() < 2:
                return part.put(cut_off=f"before {name} {precision} {form} {students}")
            with without_graph() if form == "no graph" else contextlib.nullcontext():
                time_stack(part, course, students, compute, form=form)
    return None


@contextlib.contextmanager
def without_graph() -> Iterator[None]:
    """Have steps launched one kernel at a time, instead of as a CUDA graph."""
    os.environ[NO_GRAPH] = "1"
    try:
        yield
    finally:
        del os.environ[NO_GRAPH]


def time_stack(
    part: Part, course: Course, students: int, compute: Compute, *, form: str
) -> None:
    if compute.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stack = course.stack(range(students), compute)
    first = timed(stack.advance, compute.device)
    times = [timed(stack.advance, compute.device) for _ in epochs_to_time(first)]
    seconds = statistics.median(times) / course.steps
    part.row(
        method=course.method.name,
        precision=compute.precision,
        form=form,
        students=students,
        ms=1e3 * seconds,
        us_per_student=1e6 * seconds / students,
        student_steps_per_s=students / seconds,
        spread=(max(times) - min(times)) / min(times),
        first_epoch_s=first,
        gigabytes=memory_used(compute.device),
    )


def epochs_to_time(first: float) -> Iterator[int]:
    """Two for the slowest, up to seven for the fast ones."""
    return iter(range(2 if first > 3 else 4 if first > 1 else 7))


def memory_used(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


def profile(part: Part, options: argparse.Namespace) -> None:
    """Kernels of a few steps, by time, and how long the device had nothing to do."""
    device = options.device
    students, few = (2, 2) if options.tiny else (16, 8)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    texts = []
    for name in METHODS:
        course = Course.new(name, few, options, **UNDISTILLED[name])
        stack = course.stack(range(students), Compute(device, "bf16"))
        for _ in range(3):
            stack.advance()
        alone = timed(stack.advance, device)
        with torch.profiler.profile(activities=activities) as profiler:
            seconds = timed(stack.advance, device)
        events = profiler.key_averages()
        kernels = [e for e in events if device == "cpu" or on_gpu(e)]
        kernels.sort(key=lambda e: own_time(e, device), reverse=True)
        total = sum(own_time(e, device) for e in kernels) / 1e6
        part.put(
            **{
                name: {
                    "students": students,
                    "steps": few,
                    "seconds": alone,
                    "seconds_profiled": seconds,
                    "kernel_seconds": total,
                    "kernels_per_step": sum(e.count for e in kernels) / few,
                }
            }
        )
        print(
            f"{name}: {students} students, {few} steps and a validation in "
            f"{1e3 * alone:.1f} ms ({1e3 * seconds:.1f} ms profiled), of which kernels "
            f"{1e3 * total:.1f} ms, "
            f"{sum(e.count for e in kernels) / few:.0f} a step\n"
        )
        for event in kernels[:15]:
            part.row(
                table=f"{name}_kernels",
                kernel=event.key,
                calls=event.count,
                ms=own_time(event, device) / 1e3,
                share=own_time(event, device) / 1e6 / total,
            )
        print()
        for order in ("self_cpu_time_total", f"self_{device}_time_total"):
            texts.append(
                f"{name} by {order}\n"
                + events.table(sort_by=order, row_limit=40, max_name_column_width=110)
            )
        (Path(options.output) / "profile.txt").write_text("\n\n".join(texts))


def on_gpu(event: Any) -> bool:
    return event.device_type.name == "CUDA"


def own_time(event: Any, device: str) -> float:
    """Microseconds."""
    return event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
