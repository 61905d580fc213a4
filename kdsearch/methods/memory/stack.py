"""Slots in which a memory is filled, and in which its students train."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional

from kdsearch.data.beats import FloatArray, LabelledBeats, TrainingData
from kdsearch.data.context import signal_leads
from kdsearch.errors import TrialDiverged
from kdsearch.methods.device import autocast, from_numpy, to_cpu
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.student import (
    Scorer,
    Shape,
    initial_components,
    initial_state,
    load_scorer,
    load_scoring,
    weights_state,
)
from kdsearch.methods.memory.teacher import fill, own_scores, recall
from kdsearch.methods.protocol import Compute, EpochReport, State, Targets
from kdsearch.metrics.ranking import rank

PER_STUDENT = frozenset({"alpha", "w_contrast", "lr", "weight_decay"})
"""Settings that may differ in a stack; everything else is its structure."""

# Names of the targets: what the memory says of training beats, and of distorted ones.
OWN, DISTORTED, DISTORTED_SCORES = "own", "distorted", "distorted_scores"

BATCH = 512
# Part of the training in which the learning rate rises.
WARM_UP = 0.05
# Gradients are made no longer than this, which a bad mini-batch would do.
LONGEST_GRADIENT = 1.0


class MemoryStack:
    """A stack of one slot, which is full after one epoch."""

    slots = 1

    def __init__(self, data: TrainingData) -> None:
        """Name the beats to remember; nothing is calculated yet."""
        self._data = data
        self._settings: TeacherSettings | None = None
        self._memory: State | None = None

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Begin an empty memory, or go on with a saved one; the seed changes nothing."""
        if slot != 0 or self._settings is not None:
            raise ValueError(f"slot {slot} of 1 is occupied or does not exist")
        if not isinstance(settings, TeacherSettings):
            raise ValueError(f"settings of a memory expected, not {type(settings).__name__}")
        self._settings = settings
        self._memory = None if state is None else state["memory"]

    def take_out(self, slot: int) -> None:
        """Forget everything."""
        self._occupied(slot)
        self._settings = self._memory = None

    def advance(self) -> dict[int, EpochReport | Exception]:
        """Remember the training beats and try the memory on the validation beats.

        The report's loss is the standard deviation of the log scores of the beats themselves.
        """
        if self._settings is None:
            return {}
        start = time.perf_counter()
        train = from_numpy(self._data.train, "cpu")
        self._memory = fill(self._settings, train, context=self._data.context)
        scores = recall(self._memory, self._data.validation.x)
        losses = {"spread": float(np.mean([view["std"] for view in self._memory["views"]]))}
        seconds = time.perf_counter() - start
        return {0: _report(1, losses, seconds, scores, self._data.validation)}

    def save(self, slot: int) -> State:
        """The memory, or that there is none yet."""
        self._occupied(slot)
        return {"memory": self._memory}

    def weights(self, slot: int) -> State:
        """All that is remembered."""
        self._occupied(slot)
        if self._memory is None:
            raise ValueError("the memory is empty: advance() fills it")
        return self._memory

    def _occupied(self, slot: int) -> None:
        if slot != 0 or self._settings is None:
            raise ValueError(f"slot {slot} is empty")


@dataclass
class _Student:
    settings: StudentSettings
    seed: int
    epoch: int
    rng: torch.Generator
    network: Scorer
    adam: torch.optim.AdamW


class StudentStack:
    """Students that train one after the other; each is small enough for a core of its own.

    Args:
        settings: Those that fix the structure; the settings in `PER_STUDENT` do not matter.
        slots: How many students there may be at a time.
        data: Training beats, and what validates every epoch.
        targets: From `teach`.
        compute: Where and how precisely to calculate.

    Raises:
        ValueError: The targets are not of these beats, or fewer than the settings ask for.
    """

    def __init__(
        self,
        settings: StudentSettings,
        slots: int,
        *,
        data: TrainingData,
        targets: Targets,
        compute: Compute,
    ) -> None:
        self.slots = slots
        self._structure = _structure(settings)
        self._shape = shape_of(settings, data)
        self._data = data
        self._compute = compute
        self._lessons = _lessons(settings, data.train, targets, compute.device)
        self._components = (
            initial_components(
                from_numpy(data.train, "cpu"), self._shape.signal_leads, settings.components
            )
            if settings.init == "components"
            else None
        )
        self._students: dict[int, _Student] = {}

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start a student in an empty slot, new from its seed or going on from a saved state.

        Raises:
            ValueError: The slot is occupied or does not exist, or the settings are of another
                structure.
        """
        if not 0 <= slot < self.slots or slot in self._students:
            raise ValueError(f"slot {slot} of {self.slots} is occupied or does not exist")
        settings = self._of_this_structure(settings)
        rng = torch.Generator().manual_seed(seed)
        values = (
            initial_state(self._shape, rng, self._components)
            if state is None
            else state["network"]
        )
        network = load_scorer(self._shape, values).to(self._compute.device)
        adam = torch.optim.AdamW(
            network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        epoch = 0
        if state is not None:
            epoch = state["epoch"]
            # A state may be shared with others, and the optimiser keeps what it is given.
            adam.load_state_dict(deepcopy(state["adam"]))
            rng.set_state(state["rng"])
        self._students[slot] = _Student(settings, seed, epoch, rng, network, adam)

    def take_out(self, slot: int) -> None:
        """Empty a slot.

        Raises:
            ValueError: It is empty.
        """
        self._student(slot)
        del self._students[slot]

    def advance(self) -> Mapping[int, EpochReport | Exception]:
        """Train every student for one epoch and validate it; one that diverged is taken out."""
        outcomes: dict[int, EpochReport | Exception] = {}
        for slot, student in sorted(self._students.items()):
            try:
                outcomes[slot] = self._epoch(student)
            except TrialDiverged as diverged:
                outcomes[slot] = diverged
                self.take_out(slot)
        return outcomes

    def save(self, slot: int) -> State:
        """Everything needed to go on from the end of the last epoch, bit for bit."""
        student = self._student(slot)
        return {
            "epoch": student.epoch,
            "seed": student.seed,
            "rng": student.rng.get_state(),
            "network": _copied(student.network),
            "adam": to_cpu(deepcopy(student.adam.state_dict())),
        }

    def weights(self, slot: int) -> State:
        """The network, and how its answers make a score."""
        student = self._student(slot)
        return weights_state(
            self._shape,
            _copied(student.network),
            alpha=student.settings.alpha,
            w_contrast=student.settings.w_contrast,
        )

    def _epoch(self, student: _Student) -> EpochReport:
        start = time.perf_counter()
        losses = self._train(student)
        student.epoch += 1
        slot = next(key for key, value in self._students.items() if value is student)
        scores = score(self.weights(slot), self._data.validation.x, self._compute)
        for name, value in {**losses, "validation score": float(scores.sum())}.items():
            if not math.isfinite(value):
                raise TrialDiverged(f"{name} became {value} in epoch {student.epoch}")
        seconds = time.perf_counter() - start
        return _report(student.epoch, losses, seconds, scores, self._data.validation)

    def _train(self, student: _Student) -> dict[str, float]:
        student.network.train()
        half = min(student.settings.batch_size // 2, len(self._lessons.normal))
        order = torch.randperm(len(self._lessons.normal), generator=student.rng)
        batches = torch.split(order, half)[: len(order) // half]
        sums: dict[str, Tensor] = {}
        for step, normal in enumerate(batches):
            progress = (student.epoch + step / len(batches)) / student.settings.epochs
            for group in student.adam.param_groups:
                group["lr"] = student.settings.lr * _rate(progress)
            distorted = torch.randint(
                len(self._lessons.distorted), (half,), generator=student.rng
            )
            terms = self._step(student, normal, distorted)
            sums = {name: sums.get(name, 0) + value for name, value in terms.items()}
        return {name: float(value) / len(batches) for name, value in sums.items()}

    def _step(self, student: _Student, normal: Tensor, distorted: Tensor) -> dict[str, Tensor]:
        lessons, settings = self._lessons, student.settings
        normal, distorted = normal.to(self._compute.device), distorted.to(self._compute.device)
        x = torch.cat([lessons.normal[normal], lessons.distorted[distorted]])
        memory = torch.cat([lessons.normal_scores[normal], lessons.distorted_scores[distorted]])
        with autocast(self._compute):
            taught, logits = student.network(x)
        terms = {
            "distillation": score_regression(taught, memory),
            "contrast": contrast(logits, normals=len(normal)),
        }
        total = settings.alpha * terms["distillation"] + settings.w_contrast * terms["contrast"]
        student.adam.zero_grad()
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(student.network.parameters(), LONGEST_GRADIENT)
        student.adam.step()
        return {name: term.detach() for name, term in {**terms, "student": total}.items()}

    def _of_this_structure(self, settings: BaseModel) -> StudentSettings:
        if not isinstance(settings, StudentSettings):
            raise ValueError(
                f"settings of a memory's student expected, not {type(settings).__name__}"
            )
        for name, there in _structure(settings).items():
            here = self._structure[name]
            if here != there:
                raise ValueError(f"{name} is {here} in this stack, not {there}")
        return settings

    def _student(self, slot: int) -> _Student:
        if slot not in self._students:
            raise ValueError(f"slot {slot} is empty")
        return self._students[slot]


def score_regression(taught: Tensor, memory: Tensor) -> Tensor:
    """How far the student's scores are from the memory's, quadratic near and linear far off.

    Smooth L1 (Girshick, Fast R-CNN, ICCV 2015) between logarithms of distances, in standard
    deviations of those of normal beats; shapes (n,).
    """
    return functional.smooth_l1_loss(taught, memory)


def contrast(logits: Tensor, *, normals: int) -> Tensor:
    """Cross-entropy of telling the first ``normals`` beats, normal, from the distorted rest.

    Args:
        logits: Positive where distorted, shape (n,).
    """
    truth = torch.zeros_like(logits)
    truth[normals:] = 1
    return functional.binary_cross_entropy_with_logits(logits, truth)


def teach(memory: State, distorted: FloatArray) -> Targets:
    """What students learn from.

    Returns:
        ``own``: the memory's scores of its beats, each left out of its own comparison, (n,);
        ``distorted``: beats that are not normal, (m, leads, length); ``distorted_scores``:
        what the memory says of them, (m,).
    """
    return {
        OWN: own_scores(memory),
        DISTORTED: distorted,
        DISTORTED_SCORES: recall(memory, distorted),
    }


@torch.inference_mode()
def score(weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
    """A student's scores of normalised and padded beats (n, leads, length), shape (n,)."""
    network = load_scoring(weights, compute.device)
    parts = []
    for beats in torch.split(from_numpy(x, compute.device), BATCH):
        with autocast(compute):
            parts.append(network(beats).float())
    return torch.cat(parts).cpu().numpy()


def shape_of(settings: StudentSettings, data: TrainingData) -> Shape:
    """The architecture of a student of such beats."""
    leads, length = data.train.shape[1:]
    signal = signal_leads(leads, context=data.context)
    return Shape(leads, signal, length, settings.width, settings.depth, settings.components)


@dataclass(frozen=True)
class _Lessons:
    normal: Tensor
    normal_scores: Tensor
    distorted: Tensor
    distorted_scores: Tensor


def _lessons(
    settings: StudentSettings, train: FloatArray, targets: Targets, device: str
) -> _Lessons:
    wanted, found = settings.distorted * len(train), len(targets[DISTORTED])
    if len(targets[OWN]) != len(train) or found < wanted:
        raise ValueError(
            f"{len(targets[OWN])} normal and {found} distorted targets for {len(train)} "
            f"training beats and {wanted} distorted ones"
        )
    return _Lessons(
        normal=from_numpy(train, device),
        normal_scores=from_numpy(targets[OWN], device),
        distorted=from_numpy(targets[DISTORTED][:wanted], device),
        distorted_scores=from_numpy(targets[DISTORTED_SCORES][:wanted], device),
    )


def _structure(settings: StudentSettings) -> dict[str, object]:
    return settings.model_dump(exclude=set(PER_STUDENT))


def _rate(progress: float) -> float:
    """Part of the largest learning rate after this part of the training."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.01)
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def _copied(network: Scorer) -> dict[str, Tensor]:
    return {name: value.cpu().clone() for name, value in network.state_dict().items()}


def _report(
    epoch: int,
    losses: dict[str, float],
    seconds: float,
    scores: NDArray[np.float32],
    validation: LabelledBeats,
) -> EpochReport:
    ranking = rank(scores, validation.abnormal)
    return EpochReport(
        epoch=epoch,
        losses=losses,
        seconds=seconds,
        val_auc=ranking.roc_auc(),
        val_ap=ranking.average_precision(),
    )
