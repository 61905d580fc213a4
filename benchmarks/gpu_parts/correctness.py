"""Stacks on the device, compared with students alone on the CPU."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from gpu_parts.course import UNDISTILLED, Course, Outcome
from gpu_parts.part import Part
from kdsearch.methods.protocol import Compute

# Differences from the CPU in float32 that pass, of losses and of validation scores. Adam
# divides by the gradient's size: rounding alone moves a weight whose gradient is all but zero.
# How far rounding leads is shown by students on the CPU whose beats are changed by a millionth.
TOLERANCE = {"fp32": 0.02, "bf16": 0.1}
STACKS = (1, 4)
# Method, form and mini-batches: the distilled scores, through a softmax, magnify rounding. Both
# numbers are of more steps than pass before a stack's step becomes a CUDA graph.
TRAINED = (("beatgan", "", 8), ("beatgan", "distilled", 4), ("memory", "", 8))


def correctness(part: Part, options: argparse.Namespace) -> None:
    """A short epoch in stacks on the device and of each student alone on the CPU."""
    torch.backends.cudnn.allow_tf32 = False
    for name, form, count in TRAINED:
        course = Course.new(name, count, options, **({} if form else UNDISTILLED[name]))
        cpu, alone = Compute("cpu", "fp32"), [[k] for k in range(max(STACKS))]
        reference = [course.trained(one, cpu)[0] for one in alone]
        runs: list[tuple[str, str, list[Outcome]]] = []
        if name == "beatgan":  # students of `memory` start elsewhere with other beats
            nearly = course.of_nearly_the_same_beats()
            changed = [nearly.trained(one, cpu)[0] for one in alone]
            runs.append(("cpu, changed", "fp32", changed))
        for precision in ("fp32", "bf16"):
            compute = Compute(options.device, precision)
            runs += [
                (options.device, precision, course.trained(range(students), compute))
                for students in STACKS
            ]
        for device, precision, found in runs:
            pairs = list(zip(found, reference, strict=False))
            losses, term = max(difference(f[0], r[0]) for f, r in pairs)
            scores = max(relative(f[1], r[1]) for f, r in pairs)
            part.row(
                method=name,
                form=form,
                device=device,
                precision=precision,
                students=len(found),
                losses=losses,
                most_in=term,
                scores=scores,
                agrees=bool(max(losses, scores) <= TOLERANCE[precision]),
            )


def difference(found: dict[str, float], reference: dict[str, float]) -> tuple[float, str]:
    """Of losses as a whole, and the term that differs most."""
    term = max(reference, key=lambda name: abs(found[name] - reference[name]))
    return relative(*(np.array(list(one.values())) for one in (found, reference))), term


def relative(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))
