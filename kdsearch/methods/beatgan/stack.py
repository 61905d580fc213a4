"""BeatGAN's stack: slots in which students start and end one at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from pydantic import BaseModel
from torch import Tensor

from kdsearch.methods.beatgan.engine import Engine, Parts, Student, new_parts
from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    NetworkState,
    require_same_architecture,
)
from kdsearch.methods.beatgan.scoring import (
    FORMAT,
    METHOD,
    architecture_of,
    check_values,
    error_weights,
    load_generator,
    weights_state,
)
from kdsearch.methods.beatgan.settings import (
    TAUGHT,
    NetworkSettings,
    StudentSettings,
)
from kdsearch.methods.checks import expect_structure
from kdsearch.methods.device import from_numpy
from kdsearch.methods.progress import PROGRESS, is_shown, shown_rows
from kdsearch.methods.protocol import State, Task, TrainedEpoch

PER_STUDENT = frozenset(
    {"temperature", "alpha", "w_adv", "lr", *(f"weight_{name}" for name in TAUGHT)}
)
"""Settings that may differ within a stack; all others are its structure."""

PARTS = ("generator", "discriminator", "generator_adam", "discriminator_adam", "redrawn")


class BeatGanStack:
    """The method's ``Stack``.

    Args:
        settings: Fix the structure; those in `PER_STUDENT` are ignored.
        slots: Maximum number of networks.
        task: What they learn from; training beats are kept once on the device.

    Raises:
        ValueError: The students are to start from a teacher of another architecture, or there
            is not a row of targets per training beat.
    """

    def __init__(self, settings: NetworkSettings, slots: int, task: Task) -> None:
        data, compute = task.data, task.compute
        for name, rows in task.targets.items():
            if len(rows) != len(data.train):
                raise ValueError(
                    f"{len(rows)} targets of kind {name!r} for {len(data.train)} training beats"
                )
        self.slots = slots
        self._settings = settings
        self._architecture = Architecture(
            settings.width, settings.latent, *data.train.shape[1:]
        )
        self._compute = compute
        self._start = _start_from(settings, task.teacher, self._architecture)
        self._targets = task.targets
        self._x = from_numpy(data.train, compute.device)
        self._validation = from_numpy(data.validation.x, compute.device)
        self._shown = self._validation[shown_rows(data.validation)]
        self._students: dict[int, Student] = {}
        self._engine = Engine(
            self._architecture, slots, settings, self._x, task.targets, compute
        )

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start a student in an empty slot, new from its seed or resumed from a saved state.

        Args:
            slot: From 0 to ``slots`` - 1.
            settings: Of the stack's structure.
            seed: Seed of weights and mini-batches, not negative; equal when it is resumed.
            state: From `save`, of this architecture.

        Raises:
            ValueError: The slot is occupied or does not exist, the settings or the saved state
                are of another structure, or the targets that they need are missing.
        """
        if not 0 <= slot < self.slots or slot in self._students:
            raise ValueError(f"slot {slot} of {self.slots} is occupied or does not exist")
        settings = expect_structure(settings, self._settings, PER_STUDENT)
        rng = torch.Generator().manual_seed(seed)
        if state is None:
            parts = {**new_parts(self._architecture, rng), **self._start}
            student = Student(settings, seed, 0, rng)
        else:
            parts = _saved_parts(state, self._architecture)
            rng.set_state(state["rng"])
            progress = dict(state[PROGRESS])
            student = Student(settings, seed, state["epoch"], rng, progress, state["step"])
        self._require_targets(student)
        self._engine.put(slot, student, parts)
        self._students[slot] = student

    def take_out(self, slot: int) -> None:
        """Empty a slot.

        Raises:
            ValueError: It is empty.
        """
        self._student(slot)
        self._engine.clear(slot)
        del self._students[slot]

    @property
    def steps(self) -> int:
        """Mini-batches of an epoch."""
        return self._engine.steps

    def advance(self, steps: int | None = None) -> dict[int, TrainedEpoch]:
        """Train every occupied slot for one epoch and score the validation beats.

        Args:
            steps: Number of mini-batches, if not a whole epoch.
        """
        if not self._students:
            return {}
        started = time.perf_counter()
        epochs = {slot: student.epoch + 1 for slot, student in self._students.items()}
        losses = self._engine.train(self._students, self.steps if steps is None else steps)
        scores = self._engine.scores(self._validation)
        self._keep_progress()
        seconds = (time.perf_counter() - started) / len(self._students)
        return {
            slot: TrainedEpoch(epoch, losses[slot], seconds, scores[:, slot])
            for slot, epoch in epochs.items()
        }

    def save(self, slot: int) -> State:
        """Return everything needed to resume where `advance` ended, bit for bit.

        Returns:
            Numbers, strings and tensors on the CPU, of this one student alone.
        """
        student = self._student(slot)
        return {
            "format": FORMAT,
            "method": METHOD,
            "architecture": self._architecture.as_dict(),
            "settings": student.settings.model_dump(mode="json"),
            "seed": student.seed,
            "epoch": student.epoch,
            "step": student.step,
            "rng": student.rng.get_state(),
            PROGRESS: dict(student.progress),
            **self._engine.take(slot),
        }

    def weights(self, slot: int) -> State:
        """What scoring needs, and the discriminator: a student may teach the next one.

        A student's also have its reconstructions so far, see `kdsearch.methods.progress`.
        """
        student = self._student(slot)
        networks = self._engine.take_networks(slot)
        generator = networks["generator"]
        state = weights_state(
            self._architecture,
            generator,
            networks["discriminator"],
            error_weights=self._error_weights(generator),
        )
        return state | ({PROGRESS: dict(student.progress)} if student.progress else {})

    def _keep_progress(self) -> None:
        """Keep reconstructions of a few beats of every student at the end of a shown epoch."""
        shown = {
            slot: student
            for slot, student in self._students.items()
            if student.step == 0 and is_shown(student.epoch)
            if isinstance(student.settings, StudentSettings)
        }
        if shown:
            fakes = self._engine.reconstructions(self._shown)
            for slot, student in shown.items():
                student.progress[student.epoch] = fakes[:, slot].clone()

    def _error_weights(self, generator: NetworkState) -> Tensor | None:
        if self._settings.score == "plain":
            return None
        network = load_generator(weights_state(self._architecture, generator), self._compute)
        weights = error_weights(self._settings.score, network, self._x)
        return None if weights is None else weights[0].cpu()

    def _require_targets(self, student: Student) -> None:
        missing = student.arrays - self._targets.keys()
        if student.alpha > 0 and missing:
            raise ValueError(
                f"no targets of kind {min(missing)!r}; there are {sorted(self._targets)}"
            )

    def _student(self, slot: int) -> Student:
        if slot not in self._students:
            raise ValueError(f"slot {slot} is empty")
        return self._students[slot]


def _start_from(settings: NetworkSettings, teacher: State, architecture: Architecture) -> Parts:
    """Return values that replace random ones; none for ``init: random``."""
    if not isinstance(settings, StudentSettings) or settings.init != "teacher":
        return {}
    if not teacher:
        raise ValueError("init 'teacher' needs a teacher")
    require_same_architecture(architecture_of(teacher), architecture)
    _check_networks(teacher, architecture)
    return {
        "generator": dict(teacher["generator"]),
        "discriminator": dict(teacher["discriminator"]),
    }


def _saved_parts(state: State, architecture: Architecture) -> Parts:
    saved = architecture_of(state)
    if saved != architecture:
        raise ValueError(f"the saved state is of {saved}, this stack of {architecture}")
    _check_networks(state, architecture)
    missing = [n for n in (*PARTS, "rng", "epoch", "step", PROGRESS) if n not in state]
    if missing:
        raise ValueError(f"the saved state has no {', '.join(missing)}")
    return {name: state[name] for name in PARTS}


def _check_networks(state: Mapping[str, object], architecture: Architecture) -> None:
    check_values(Generator, architecture, state.get("generator"), part="generator")
    check_values(Discriminator, architecture, state.get("discriminator"), part="discriminator")
