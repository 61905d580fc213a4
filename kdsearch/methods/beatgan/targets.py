"""Distillation targets for every training beat, computed once for all students."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.data.beats import FloatArray
from kdsearch.methods.beatgan.losses import SMALLEST_SCORE, attention_map
from kdsearch.methods.beatgan.scoring import (
    BATCH,
    load_discriminator,
    load_generator,
    reconstruct,
    score,
)
from kdsearch.methods.device import from_numpy
from kdsearch.methods.memory.settings import TeacherSettings as Neighbours
from kdsearch.methods.memory.teacher import fill, own_scores
from kdsearch.methods.protocol import Compute, State, Targets, Task

SMALLEST_STD = 1e-6


def teacher_targets(kinds: Collection[str], task: Task) -> Targets:
    """Compute the targets of students for every training beat.

    Args:
        kinds: The names of the students' targets; ``published`` has no array.
        task: With the weights of a trained teacher.

    Returns:
        ``score``: the teacher's anomaly scores, shape (n,); ``neighbours``: those of a memory
        of the beats with its defaults, or of their context if there is one, each left out of
        its own comparison, shape (n,), for which no teacher is needed; ``reconstruction``:
        shape (n, leads, length); ``attention``: the attention map of the teacher's
        discriminator on the teacher's reconstruction, shape (n, length / 32). Row i belongs
        to training beat i.

    Raises:
        ValueError: These are not a teacher's weights.
    """
    x, compute, context = task.data.train, task.compute, task.data.context
    teacher = task.teacher
    found: dict[str, NDArray[np.float32]] = {}
    if "score" in kinds:
        found["score"] = score(teacher, x, compute)
    if "neighbours" in kinds:
        kind = Neighbours(view="patient", density=0) if context else Neighbours()
        memory = fill(kind, from_numpy(x, "cpu"), context=context)
        # These are logarithms; the loss takes the logarithm of all scores.
        found["neighbours"] = np.exp(own_scores(memory))
    if "reconstruction" in kinds:
        found["reconstruction"] = reconstruct(teacher, x, compute)
    if "attention" in kinds:
        found["attention"] = _attention(teacher, x, compute)
    return found


def joined_targets(parts: Sequence[Targets]) -> Targets:
    """The targets of an ensemble, given those of its members.

    Returns:
        The mean of reconstructions and attention maps, the latter of unit length again. Scores
        are averaged as standardised logarithms and given the members' mean location and
        spread, so that no member counts more because its errors are larger.
    """
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if name in ("score", "neighbours"):
        logs = np.log(np.maximum(np.stack(parts), SMALLEST_SCORE))
        mean = logs.mean(axis=1, keepdims=True)
        std = np.maximum(logs.std(axis=1, keepdims=True), SMALLEST_STD)
        joined = ((logs - mean) / std).mean(axis=0)
        return np.asarray(np.exp(mean.mean() + std.mean() * joined), dtype=np.float32)
    mean = np.mean(np.stack(parts), axis=0)
    if name == "attention":
        mean /= np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), SMALLEST_STD)
    return np.asarray(mean, dtype=np.float32)


@torch.inference_mode()
def _attention(teacher: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
    generator = load_generator(teacher, compute)
    discriminator = load_discriminator(teacher, compute)
    norms = generator.evaluation_norms(), discriminator.evaluation_norms()
    maps = []
    for beats in torch.split(from_numpy(x, compute.device), BATCH):
        real = beats.transpose(1, 2).unsqueeze(2).to(generator.matrices[0].dtype)
        fake = generator.forward(real, norms[0]).beats.to(real.dtype)
        features, _ = discriminator.features(fake, norms[1])
        maps.append(attention_map(features.float().permute(0, 2, 3, 1))[:, 0].cpu())
    return torch.cat(maps).numpy()
