"""A stack of networks of one structure, which are rows of the same tensors.

Row k of every tensor belongs to one student. `torch.vmap` runs the method's loss for all rows
at once, so that a step takes the same number of operators for one student as for many, and
nothing in a step waits for the device. If vmap refuses a module or a loss, the rows are
computed one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kdsearch.data.beats import BeatShape, TrainingData
from kdsearch.data.context import signal_leads
from kdsearch.methods.checks import expect_structure
from kdsearch.methods.device import autocast, from_numpy
from kdsearch.methods.own_randomness import OwnRandomness
from kdsearch.methods.protocol import State, Task, TrainedEpoch
from kdsearch.methods.torch_networks import TorchNetworks
from kdsearch.methods.torch_rows import Rows, Tensors

logger = logging.getLogger(__name__)

FORMAT = 2
# Number of beats that are scored at once.
BATCH = 512


@dataclass(eq=False)
class Student:
    """One network in training.

    Attributes:
        slot: Number by which the harness refers to it.
        settings: Its settings.
        seed: Seed of its weights and mini-batches.
        epoch: Whole epochs trained so far.
        step: Mini-batches trained since then.
        rng: Generator of its weights and mini-batches, on the CPU; within an epoch, as it was
            at the epoch's start.
        network: Its module. The values in training are in the stack, not in the module.
        losses: The method's `losses` of this network.
        scores: The method's `scores` of this network.
    """

    slot: int
    settings: Any
    seed: int
    epoch: int
    step: int
    rng: torch.Generator
    network: nn.Module
    losses: _Call
    scores: _Call


class TorchStack:
    """A `Stack` of the networks of a `TorchMethod`.

    Students occupy the first rows. If one leaves, the last one moves to its row, so that empty
    slots cost no time. A subclass can override `mini_batches` and `gather` to train on
    other data than the training beats; it then sets ``steps``, the mini-batches of an epoch.

    Args:
        method: Defines the networks.
        settings: Fix the structure; those in the method's `per_student` are ignored.
        slots: Maximum number of students.
        task: What they learn from.
    """

    def __init__(
        self, method: TorchNetworks, settings: BaseModel, slots: int, task: Task
    ) -> None:
        data, compute = task.data, task.compute
        self.slots = slots
        self.method = method
        self.compute = compute
        self.targets = {
            name: from_numpy(np.ascontiguousarray(rows), compute.device)
            for name, rows in task.targets.items()
        }
        self.x = from_numpy(np.ascontiguousarray(data.train), compute.device)
        self._validation = from_numpy(np.ascontiguousarray(data.validation.x), compute.device)
        self.steps = len(self.x) // min(cast("Any", settings).batch_size, len(self.x))
        self._shape = shape_of(data)
        self._settings = settings
        is_teacher = isinstance(settings, method.teacher_settings)
        self._kind = "teacher" if is_teacher else "student"
        self._start = method.start(settings, data)
        self._students: list[Student] = []
        self._rows: Rows | None = None
        # Why one module cannot compute all students in this epoch; None if it can.
        self._differing: str | None = None
        # Why vmap refuses the method's losses or scores, once tried; None if it does not.
        self._refused: dict[str, str | None] = {}

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start a student in an empty slot, new from its seed or resumed from a state.

        Raises:
            ValueError: The slot is occupied or does not exist, or the settings are of another
                structure.
        """
        occupied = {student.slot for student in self._students}
        if not 0 <= slot < self.slots or slot in occupied:
            raise ValueError(f"slot {slot} of {self.slots} is occupied or does not exist")
        expect_structure(settings, self._settings, self.method.per_student)
        student = self._new_student(slot, settings, seed)
        if state is not None:
            load(student.network, state["network"])
            student.epoch, student.step = int(state["epoch"]), int(state["step"])
            student.rng.set_state(state["rng"])
        if self._rows is None:
            self._rows = Rows(student.network, self.slots, self.compute.device)
        self._rows.put(
            len(self._students), student.network, None if state is None else state["adam"]
        )
        self._students.append(student)

    def take_out(self, slot: int) -> None:
        """Empty a slot.

        Raises:
            ValueError: It is empty.
        """
        rows, row = self._occupied(slot)
        last = self._students.pop()
        if row < len(self._students):
            rows.move(len(self._students), row)
            self._students[row] = last

    def advance(self, steps: int | None = None) -> dict[int, TrainedEpoch]:
        """Train every occupied slot for one epoch and score the validation beats.

        Args:
            steps: Number of mini-batches, if not a whole epoch.
        """
        if not self._students:
            return {}
        started = time.perf_counter()
        self._differing = self._difference()
        epochs = [student.epoch + 1 for student in self._students]
        losses = self._train(self.steps if steps is None else steps)
        scores = self._validate()
        seconds = (time.perf_counter() - started) / len(self._students)
        trained = {
            student.slot: TrainedEpoch(epochs[row], losses[row], seconds, scores[row])
            for row, student in enumerate(self._students)
        }
        return dict(sorted(trained.items()))

    def save(self, slot: int) -> State:
        """Return everything needed to resume where `advance` ended, bit for bit."""
        rows, row = self._occupied(slot)
        student = self._students[row]
        return {
            "format": FORMAT,
            "epoch": student.epoch,
            "step": student.step,
            "rng": student.rng.get_state(),
            "network": rows.take(row, student.network),
            "adam": rows.adam.take(row),
        }

    def weights(self, slot: int) -> State:
        """Return the network's values and the settings from which it is created."""
        rows, row = self._occupied(slot)
        student = self._students[row]
        return {
            "format": FORMAT,
            "method": self.method.name,
            "kind": self._kind,
            "settings": student.settings.model_dump(mode="json"),
            "shape": list(self._shape),
            "network": rows.take(row, student.network),
        }

    def mini_batches(self, student: Student) -> Tensor:
        """Draw one epoch's mini-batches with the student's ``rng``.

        Returns:
            Row numbers of training beats, shape (batches, size), on the CPU.
        """
        size = min(student.settings.batch_size, len(self.x))
        order = torch.randperm(len(self.x), generator=student.rng)
        return order[: len(order) // size * size].view(-1, size)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensors]:
        """Collect a mini-batch of each student and its targets.

        Args:
            rows: From `mini_batches`, shape (n, size), on the device.

        Returns:
            Beats, shape (n, size, leads, length), and the targets of the same rows by name.
        """
        return self.x[rows], {name: answers[rows] for name, answers in self.targets.items()}

    def _new_student(self, slot: int, settings: Any, seed: int) -> Student:
        rng = torch.Generator().manual_seed(seed)
        # Drawn from torch's global generator as if it were the student's.
        with torch.random.fork_rng(_gpus()):
            torch.manual_seed(seed)
            network = self.method.network(settings, self._shape)
            rng.set_state(torch.get_rng_state())
        with torch.no_grad():
            for name, value in self._start.items():
                network.get_parameter(name).copy_(value)
        network.to(self.compute.device)
        losses, scores = (_Call(network, f) for f in (self.method.losses, self.method.scores))
        return Student(slot, settings, seed, 0, 0, rng, network, losses, scores)

    def _occupied(self, slot: int) -> tuple[Rows, int]:
        for row, student in enumerate(self._students):
            if student.slot == slot:
                return self._tensors, row
        raise ValueError(f"slot {slot} is empty")

    @property
    def _tensors(self) -> Rows:
        return cast("Rows", self._rows)

    def _train(self, steps: int) -> list[dict[str, float]]:
        """Train each student with so many mini-batches; return the mean of each term."""
        for student in self._students:
            student.network.train()
        device = self.compute.device
        # Copied to the device before the first step, so that no step waits for the host.
        rows = torch.stack([self._next_batches(s, steps) for s in self._students], dim=1)
        rows = rows.to(device)
        rates = self._learning_rates(len(rows)).to(device)
        decay = self._vector([getattr(s.settings, "weight_decay", 0) for s in self._students])
        seeds, numbers = self._seeds(len(rows)), self._numbers()
        on_device = torch.from_numpy(seeds).to(device)
        sums: Tensors = {}
        with _reproducible():
            for step, size in enumerate(rates):
                inputs = (numbers, on_device[step], *self.gather(rows[step]))
                gradients, terms = self._gradients(inputs, seeds[step])
                _clip(gradients, self.method.longest_gradient)
                self._tensors.adam.step(gradients, lr=size, weight_decay=decay.unsqueeze(1))
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0) + term.detach().double()
        for student in self._students:
            epochs, student.step = divmod(student.step + steps, self.steps)
            student.epoch += epochs
        columns = {name: (total / len(rows)).tolist() for name, total in sums.items()}
        return [
            {name: values[row] for name, values in columns.items()}
            for row in range(len(self._students))
        ]

    def _next_batches(self, student: Student, steps: int) -> Tensor:
        """Return the next mini-batches of the student's epoch, shape (steps, size)."""
        start, end = student.step, student.step + steps
        before = student.rng.get_state()
        rows = self.mini_batches(student)
        if end < len(rows):
            # The rest of the epoch draws the same mini-batches again.
            student.rng.set_state(before)
        return rows[start:end]

    def _gradients(
        self, inputs: tuple[Any, ...], seeds: NDArray[np.int64]
    ) -> tuple[Tensor, Tensors]:
        """Compute gradients, shape (n, P), and terms of the losses, shape (n,) each."""
        if self._together("losses", lambda: self._gradients_together(inputs, trial=True)):
            return self._gradients_together(inputs)
        found = [
            self._gradients_alone(row, _row(inputs, row), int(seed))
            for row, seed in enumerate(seeds)
        ]
        gradients, terms = zip(*found, strict=True)
        return torch.cat(gradients), {
            name: torch.stack([one[name] for one in terms]) for name in terms[0]
        }

    def _gradients_together(
        self, inputs: tuple[Any, ...], *, trial: bool = False
    ) -> tuple[Tensor, Tensors]:
        trained, others = self._tensors.first(len(self._students))
        if trial:
            others = {name: value.clone() for name, value in others.items()}
        function = partial(self._loss, self._students[0])
        total, terms, changed = vmap(function)(trained, others, *inputs)
        gradients = self._tensors.gradients(total.sum(), trained, len(total))
        _keep(changed, others)
        return gradients, terms

    def _gradients_alone(
        self, row: int, inputs: tuple[Any, ...], seed: int
    ) -> tuple[Tensor, Tensors]:
        # Seeds random functions that `OwnRandomness` does not replace. Those of other devices
        # only if needed: before CUDA is used, torch keeps the traceback of each such call.
        if self.compute.device == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        trained, others = self._tensors.one(row)
        total, terms, changed = self._loss(self._students[row], trained, others, *inputs)
        gradients = self._tensors.gradients(total, trained, 1)
        _keep(changed, others)
        return gradients, terms

    def _loss(
        self,
        student: Student,
        trained: Tensors,
        others: Tensors,
        numbers: Tensors,
        seed: Tensor,
        x: Tensor,
        taught: Tensors,
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Compute the weighted sum, its terms, and the buffers after the mini-batch."""
        # Not validated: under vmap, the values are tensors.
        settings = student.settings.model_copy(update=numbers)
        values = _prefixed({**trained, **others})
        with OwnRandomness(seed), autocast(self.compute):
            terms = functional_call(student.losses, values, (x, settings, taught))
        weights = self.method.term_weights(settings)
        total = torch.stack(
            [term.float() * weights.get(name, 1) for name, term in terms.items()]
        ).sum()
        changed = {name: values[f"network.{name}"] for name in others}
        return total, {**terms, "total": total}, changed

    def _validate(self) -> NDArray[np.float32]:
        """Score the validation beats, shape (n, beats)."""
        for student in self._students:
            student.network.eval()
        with torch.no_grad():
            parts = [self._scores(x) for x in torch.split(self._validation, BATCH)]
        scores: NDArray[np.float32] = torch.cat(parts, dim=1).cpu().numpy()
        return scores

    def _scores(self, x: Tensor) -> Tensor:
        if self._together("scores", lambda: self._scores_together(x)):
            return self._scores_together(x)
        rows = [
            self._score(student, *self._tensors.one(row), x)
            for row, student in enumerate(self._students)
        ]
        return torch.stack(rows)

    def _scores_together(self, x: Tensor) -> Tensor:
        trained, others = self._tensors.first(len(self._students))
        function = partial(self._score, self._students[0])
        return vmap(function, in_dims=(0, 0, None))(trained, others, x)

    def _score(self, student: Student, trained: Tensors, others: Tensors, x: Tensor) -> Tensor:
        with autocast(self.compute):
            scores = functional_call(student.scores, _prefixed({**trained, **others}), (x,))
        return cast("Tensor", scores).float()

    def _together(self, what: str, attempt: Callable[[], object]) -> bool:
        """Whether one call computes all students; logs the reason if not. One needs no vmap."""
        if len(self._students) == 1:
            return False
        reason = self._differing
        if reason is None:
            if what not in self._refused:
                self._refused[what] = _refusal(attempt)
            reason = self._refused[what]
        if reason is not None:
            _say(f"{self.method.name}: {what} of students are computed one by one: {reason}")
        return reason is None

    def _difference(self) -> str | None:
        """Why one module cannot compute all students; None if it can."""
        first, *others = self._students
        fixed = sorted(self.method.per_student - self._numbers().keys())
        for other in others:
            for name in fixed:
                if getattr(first.settings, name, None) != getattr(other.settings, name, None):
                    return f"{name} differs and is not a float"
            found = _different_attribute(first.network, other.network)
            if found is not None:
                return f"{found} of their networks differs and is neither parameter nor buffer"
        return None

    def _numbers(self) -> Tensors:
        """Collect the settings that may differ between students, shape (n,) each."""
        columns = {
            name: [getattr(student.settings, name, None) for student in self._students]
            for name in sorted(self.method.per_student)
        }
        return {
            name: self._vector(values)
            for name, values in columns.items()
            if all(isinstance(value, float) for value in values)
        }

    def _vector(self, values: list[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.compute.device)

    def _learning_rates(self, steps: int) -> Tensor:
        """Shape (steps, n, 1)."""
        rates = [
            [
                self.method.learning_rate(
                    s.settings, (s.epoch + (s.step + step) / self.steps) / s.settings.epochs
                )
                for s in self._students
            ]
            for step in range(steps)
        ]
        return torch.tensor(rates, dtype=torch.float32).unsqueeze(2)

    def _seeds(self, steps: int) -> NDArray[np.int64]:
        """Compute seeds of dropout and noise from seed, epoch and step alone, (steps, n)."""
        columns = [
            np.random.SeedSequence([s.seed, s.epoch]).generate_state(self.steps, np.uint64)[
                s.step : s.step + steps
            ]
            >> 1
            for s in self._students
        ]
        return np.stack(columns, axis=1).astype(np.int64)


class _Call(nn.Module):
    """A method's function of a network as a module, so that `functional_call` can use it."""

    def __init__(self, network: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        return self._function(self.network, *arguments)


def shape_of(data: TrainingData) -> BeatShape:
    """Return the shape of the beats."""
    leads, length = data.train.shape[1:]
    return BeatShape(leads, length, signal_leads(leads, context=data.context))


def load(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Load values into a network.

    Raises:
        ValueError: They have other names or shapes.
    """
    try:
        network.load_state_dict(values)
    except RuntimeError as error:
        raise ValueError(f"weights of another network: {error}") from None


def _prefixed(values: Tensors) -> Tensors:
    return {f"network.{name}": value for name, value in values.items()}


def _row(value: Any, row: int) -> Any:
    """Select one student's row of nested tensors."""
    if isinstance(value, dict):
        return {name: _row(inner, row) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_row(inner, row) for inner in value)
    return value[row]


def _keep(changed: Tensors, others: Tensors) -> None:
    """Copy back buffers that a module replaced instead of changing them in place."""
    with torch.no_grad():
        for name, value in changed.items():
            if value.data_ptr() != others[name].data_ptr():
                others[name].copy_(value)


def _clip(gradients: Tensor, longest: float | None) -> None:
    """Clip each row's norm, as `torch.nn.utils.clip_grad_norm_` does."""
    if longest is not None:
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients.mul_((longest / (norms + 1e-6)).clamp(max=1))


def _refusal(attempt: Callable[[], object]) -> str | None:
    """Return why vmap refuses a call; None if it does not."""
    try:
        attempt()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        # A module or a loss can raise anything. If it also fails without vmap, the loop raises.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"torch.vmap refuses them ({lines[0]})"
    return None


@cache
def _say(message: str) -> None:
    logger.warning(message)


# Attributes of every module.
_COMMON = frozenset(vars(nn.Module()))


def _different_attribute(one: nn.Module, other: nn.Module) -> str | None:
    """Return the name of a plain value in which two networks of one structure differ."""
    for (name, mine), (_, theirs) in zip(
        one.named_modules(), other.named_modules(), strict=True
    ):
        for key in sorted(vars(mine).keys() - _COMMON):
            if not _alike(vars(mine)[key], vars(theirs).get(key)):
                return f"{name}.{key}".removeprefix(".")
    return None


def _alike(one: object, other: object) -> bool:
    """Whether values are equal; other objects than plain values are not compared."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, bool | int | float | str | tuple | list | dict | BaseModel | None):
        return one == other
    return True


@contextmanager
def _reproducible() -> Iterator[None]:
    """Use deterministic cuDNN kernels, and restore torch's global generators afterwards."""
    deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(_gpus()):
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic


def _gpus() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
