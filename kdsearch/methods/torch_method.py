"""A method made of two torch modules: what every method of this kind does the same.

Subclass `TorchMethod`, and say in four short methods what is yours: how a network is made, how
it scores, what it is trained on, and what a teacher tells its students. Training, validation,
checkpoints that go on bit for bit, divergence and stacks of students are done here.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from kdsearch.data.beats import FloatArray, TrainingData
from kdsearch.errors import TrialDiverged
from kdsearch.methods.protocol import Compute, EpochReport, Method, Stack, State, Targets
from kdsearch.metrics.ranking import rank
from kdsearch.settings import Count, NotNegative, Positive, Section, Seed

FORMAT = 1
# Beats that are scored at a time.
BATCH = 512


class NetworkSettings(Section):
    """What every network is trained with; add your own, such as a width."""

    epochs: Count = 10
    """Passes over the training beats; for a student the most that a trial may use."""
    batch_size: Count = 64
    """Beats in a mini-batch; the last, incomplete one is dropped."""
    lr: Positive = 1e-3
    """Learning rate of Adam."""


class TeacherSettings(NetworkSettings):
    """The YAML's section ``teacher``."""

    seed: Seed = 0
    """Seed of weights and mini-batches."""


class StudentSettings(NetworkSettings):
    """The YAML's sections ``student`` (fixed) and ``space`` (fixed or searched)."""

    alpha: NotNegative = 0.1
    """Weight of what is distilled; 0 is the control without distillation."""


class TorchMethod(ABC):
    """A teacher and its students as torch modules; keeps the protocol ``Method``."""

    name: str = "torch"
    teacher_settings: type[BaseModel] = TeacherSettings
    student_settings: type[BaseModel] = StudentSettings
    per_student: frozenset[str] = frozenset({"alpha", "lr"})
    """Settings that do not change what a student consists of or is taught."""

    @abstractmethod
    def network(self, settings: Any, leads: int, length: int) -> nn.Module:
        """An untrained network for beats of this shape, on the CPU.

        Args:
            settings: Of the teacher's or the student's type, whichever is to be made.
            length: Samples of a padded beat, a multiple of 32.
        """

    @abstractmethod
    def scores(self, network: nn.Module, x: Tensor) -> Tensor:
        """Anomaly score of each beat, higher is more abnormal.

        Args:
            x: Normalised and padded beats, shape (B, leads, length).

        Returns:
            Shape (B,).
        """

    @abstractmethod
    def losses(
        self, network: nn.Module, x: Tensor, settings: Any, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The terms of a mini-batch's loss, weighted; their sum is what is minimised.

        Args:
            x: Normal beats, shape (B, leads, length).
            settings: Of the network that is trained.
            taught: The teacher's answers for these beats, by the names that `teach` gave
                them; empty while a teacher is trained.

        Returns:
            Scalars by name.
        """

    def teach(self, teacher: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """What students are told of each training beat: the teacher's scores, if not more.

        Args:
            teacher: In evaluation mode.
            x: Beats, shape (B, leads, length).

        Returns:
            Arrays by name, a row per beat, shape (B, ...).
        """
        return {"scores": self.scores(teacher, x)}

    def check(self, teacher: BaseModel, student: BaseModel) -> None:  # noqa: B027
        """Any pair goes together; override to refuse some by a ValueError."""

    def teacher_stack(self, settings: BaseModel, data: TrainingData, compute: Compute) -> Stack:
        """A stack of one slot that trains a teacher."""
        return TorchStack(self, 1, data=data, targets=None, compute=compute)

    def targets(
        self,
        teacher: State,
        students: Sequence[BaseModel],
        data: TrainingData,
        compute: Compute,
    ) -> Targets:
        """What `teach` says of every training beat."""
        network = self._loaded(teacher, compute)
        return _in_batches(lambda x: self.teach(network, x), data.train, compute)

    def student_stack(
        self,
        settings: BaseModel,
        slots: int,
        *,
        data: TrainingData,
        teacher: State,
        targets: Targets,
        compute: Compute,
    ) -> Stack:
        """An empty stack for students."""
        return TorchStack(self, slots, data=data, targets=targets, compute=compute)

    def score(self, weights: State, x: FloatArray, compute: Compute) -> NDArray[np.float32]:
        """Anomaly score of each beat, shape (n,).

        Raises:
            ValueError: The beats are not of the shape that the weights were trained on.
        """
        if list(x.shape[1:]) != list(weights["shape"]):
            raise ValueError(f"beats of shape {x.shape[1:]}, not {tuple(weights['shape'])}")
        return self.all_scores(self._loaded(weights, compute), x, compute)

    def all_scores(
        self, network: nn.Module, x: FloatArray, compute: Compute
    ) -> NDArray[np.float32]:
        """Scores, shape (n,), by a network that stands on the device."""
        network.eval()
        return _in_batches(lambda batch: {"": self.scores(network, batch)}, x, compute)[""]

    def _loaded(self, weights: State, compute: Compute) -> nn.Module:
        kind = self.teacher_settings if weights["is_teacher"] else self.student_settings
        settings = kind.model_validate(weights["settings"])
        network = self.network(settings, *weights["shape"])
        network.load_state_dict(weights["network"])
        return network.to(compute.device).eval()


@dataclass
class _Student:
    """A network in training."""

    settings: Any
    seed: int
    epoch: int
    network: nn.Module
    adam: torch.optim.Adam


class TorchStack:
    """The method's ``Stack``: its students are trained one after the other.

    Args:
        method: Whose networks these are.
        slots: How many students there may be at a time.
        data: What they learn from and are validated on.
        targets: The teacher's answers, a row per training beat; None to train a teacher.
        compute: Where and how precisely to calculate.
    """

    def __init__(
        self,
        method: TorchMethod,
        slots: int,
        *,
        data: TrainingData,
        targets: Targets | None,
        compute: Compute,
    ) -> None:
        self.slots = slots
        self._method = method
        self._data = data
        self._compute = compute
        self._shape = [int(size) for size in data.train.shape[1:]]
        self._x = torch.from_numpy(np.ascontiguousarray(data.train)).to(compute.device)
        self._taught = {
            name: torch.tensor(rows).to(compute.device)
            for name, rows in (targets or {}).items()
        }
        self._is_teacher = targets is None
        self._students: dict[int, _Student] = {}

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start a student in an empty slot, new from its seed or going on from a state.

        Raises:
            ValueError: The slot is occupied or does not exist.
        """
        if not 0 <= slot < self.slots or slot in self._students:
            raise ValueError(f"slot {slot} of {self.slots} is occupied or does not exist")
        with _seeded(seed, 0):
            network = self._method.network(settings, *self._shape).to(self._compute.device)
        adam = torch.optim.Adam(network.parameters(), lr=cast("Any", settings).lr)
        student = _Student(settings, seed, 0, network, adam)
        if state is not None:
            network.load_state_dict(state["network"])
            adam.load_state_dict(state["adam"])
            student.epoch = int(state["epoch"])
        self._students[slot] = student

    def take_out(self, slot: int) -> None:
        """Empty a slot.

        Raises:
            KeyError: It is empty.
        """
        del self._students[slot]

    def advance(self) -> dict[int, EpochReport | Exception]:
        """Train every occupied slot for one epoch and validate it; who diverged is out."""
        outcomes: dict[int, EpochReport | Exception] = {}
        for slot, student in sorted(self._students.items()):
            try:
                outcomes[slot] = self._epoch(student)
            except TrialDiverged as diverged:
                outcomes[slot] = diverged
                self.take_out(slot)
        return outcomes

    def save(self, slot: int) -> State:
        """Everything needed to go on bit for bit; chance hangs on seed and epoch alone."""
        student = self._students[slot]
        return {
            "format": FORMAT,
            "epoch": student.epoch,
            "network": _copied(student.network.state_dict()),
            "adam": _copied(student.adam.state_dict()),
        }

    def weights(self, slot: int) -> State:
        """What scoring needs, and how the network is made."""
        student = self._students[slot]
        return {
            "format": FORMAT,
            "method": self._method.name,
            "is_teacher": self._is_teacher,
            "settings": student.settings.model_dump(mode="json"),
            "shape": list(self._shape),
            "network": _copied(student.network.state_dict()),
        }

    def _epoch(self, student: _Student) -> EpochReport:
        started = time.perf_counter()
        student.epoch += 1
        losses = self._train(student)
        validation = self._data.validation
        scores = self._method.all_scores(student.network, validation.x, self._compute)
        for name, value in {**losses, "validation score": float(scores.sum())}.items():
            if not math.isfinite(value):
                raise TrialDiverged(f"{name} became {value} in epoch {student.epoch}")
        ranking = rank(scores, validation.abnormal)
        return EpochReport(
            epoch=student.epoch,
            losses=losses,
            seconds=time.perf_counter() - started,
            val_auc=ranking.roc_auc(),
            val_ap=ranking.average_precision(),
        )

    def _train(self, student: _Student) -> dict[str, float]:
        """One pass over the beats; the mean of each term."""
        rng = np.random.default_rng([student.seed, student.epoch])
        order = torch.from_numpy(rng.permutation(len(self._x))).to(self._x.device)
        size = min(student.settings.batch_size, len(order))
        batches = len(order) // size
        sums: dict[str, Tensor] = {}
        student.network.train()
        with _seeded(student.seed, student.epoch):
            for rows in torch.split(order[: batches * size], size):
                for name, term in self._step(student, rows).items():
                    sums[name] = sums.get(name, 0) + term.double()
        return {name: float(total) / batches for name, total in sums.items()}

    def _step(self, student: _Student, rows: Tensor) -> dict[str, Tensor]:
        taught = {name: answers[rows] for name, answers in self._taught.items()}
        with _precision(self._compute):
            terms = self._method.losses(
                student.network, self._x[rows], student.settings, taught
            )
        student.adam.zero_grad(set_to_none=True)
        torch.stack([term.float() for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        student.adam.step()
        return {name: term.detach() for name, term in terms.items()}


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[None]:
    """Weights and dropout depend on seed and epoch, and nobody else's chance on them."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices):
        torch.backends.cudnn.deterministic = True
        torch.manual_seed(np.random.SeedSequence([seed, epoch]).generate_state(1)[0].item())
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic


@contextmanager
def _precision(compute: Compute) -> Iterator[None]:
    with torch.autocast(
        compute.device, dtype=torch.bfloat16, enabled=compute.precision == "bf16"
    ):
        yield


def _in_batches(
    function: Callable[[Tensor], dict[str, Tensor]], x: FloatArray, compute: Compute
) -> dict[str, NDArray[np.float32]]:
    """What a function says of all beats, row by row, by name."""
    parts: list[dict[str, Tensor]] = []
    with torch.inference_mode(), _precision(compute):
        for start in range(0, len(x), BATCH):
            batch = np.ascontiguousarray(x[start : start + BATCH])
            parts.append(function(torch.from_numpy(batch).to(compute.device)))
    return {
        name: torch.cat([part[name].float() for part in parts]).cpu().numpy()
        for name in parts[0]
    }


def _copied(value: Any) -> Any:
    """The same on the CPU, with every tensor copied: training goes on in the original."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value


if TYPE_CHECKING:
    # The type checker proves here that the protocol is kept.
    def _is_method(method: TorchMethod) -> Method:
        return method
