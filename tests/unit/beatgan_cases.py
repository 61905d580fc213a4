"""Tiny beats and shapes that the tests of BeatGAN share."""

from __future__ import annotations

import numpy as np
import torch

from kdsearch.data.beats import LabelledBeats, TrainingData, normalise
from kdsearch.methods.beatgan.networks import Architecture
from kdsearch.methods.beatgan.settings import StudentSettings, TeacherSettings
from kdsearch.methods.beatgan.stack import BeatGanStack
from kdsearch.methods.protocol import Compute, State, Targets, Task, TrainedEpoch

CPU = Compute("cpu", "fp32")
TINY = Architecture(width=4, latent=5, leads=1, length=32)
SMALL = {"width": 4, "latent": 5, "batch_size": 8}
DIFFERENT = [
    {"alpha": 0.0, "temperature": 1.0, "w_adv": 1.0, "lr": 1e-4},
    {"alpha": 0.5, "temperature": 4.0, "w_adv": 0.0, "lr": 3e-4},
    {"alpha": 1.0, "temperature": 0.5, "w_adv": 3.0, "lr": 2e-4},
]


def beats(n: int, seed: int, *, leads: int = 1, length: int = 32) -> np.ndarray:
    """Noisy waves of random phase, normalised and not writable."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2, size=(n, leads, 1))
    wave = np.sin(np.linspace(0, 6, length) + phase) + 0.1 * rng.normal(size=(n, leads, length))
    x = normalise(wave.astype(np.float32))
    x.setflags(write=False)
    return x


def training_data(n: int = 26, *, leads: int = 1, length: int = 32) -> TrainingData:
    """Waves to train on; waves and noise to validate with."""
    abnormal = np.arange(12) % 2 == 1
    x = beats(12, 1, leads=leads, length=length).copy()
    noise = np.random.default_rng(2).normal(size=x[abnormal].shape).astype(np.float32)
    x[abnormal] = normalise(noise)
    validation = LabelledBeats(x, abnormal, np.where(abnormal, "V", "N"), None)
    return TrainingData(beats(n, 0, leads=leads, length=length), validation)


def student(**changes: object) -> StudentSettings:
    return StudentSettings.model_validate({**SMALL, "lr": 1e-3, **changes})


def some_targets(data: TrainingData, seed: int = 5) -> Targets:
    """A teacher's answers that no teacher gave."""
    rng = np.random.default_rng(seed)
    n, _, length = data.train.shape
    attention = rng.random((n, length // 32), dtype=np.float32)
    return {
        "score": rng.lognormal(-4, 0.5, size=n).astype(np.float32),
        "neighbours": rng.lognormal(0, 1, size=n).astype(np.float32),
        "reconstruction": beats(n, seed, leads=data.train.shape[1], length=length),
        "attention": attention / np.linalg.norm(attention, axis=1, keepdims=True),
    }


def student_stack(
    slots: int = 1, data: TrainingData | None = None, compute: Compute = CPU, **changes: object
) -> BeatGanStack:
    data = data or training_data()
    return BeatGanStack(student(**changes), slots, Task(data, compute, {}, some_targets(data)))


def trained_teacher(data: TrainingData, **changes: object) -> State:
    settings = TeacherSettings.model_validate({**SMALL, "lr": 1e-3, **changes})
    stack = BeatGanStack(settings, 1, Task(data, CPU))
    stack.put_in(0, settings, seed=7)
    stack.advance()
    return stack.weights(0)


def finite(trained: TrainedEpoch) -> bool:
    return bool(np.isfinite([*trained.losses.values(), *trained.scores]).all())


def identical(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(identical(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def break_generator(stack: BeatGanStack, slot: int, **changes: object) -> None:
    state = stack.save(slot)
    for value in state["generator"].values():
        value.fill_(torch.nan)
    stack.take_out(slot)
    stack.put_in(slot, student(**changes), seed=slot, state=state)
