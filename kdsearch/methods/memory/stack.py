"""Stacks that fill a memory or train its students."""

from __future__ import annotations

import time

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional

from kdsearch.data.beats import FloatArray, TrainingData
from kdsearch.methods.device import from_numpy
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.teacher import fill, own_scores, recall
from kdsearch.methods.protocol import State, Targets, Task, TrainedEpoch
from kdsearch.methods.torch_method import TorchMethod
from kdsearch.methods.torch_stack import Student, TorchStack

# Names of the targets: scores of training beats, distorted beats, and their scores.
OWN, DISTORTED, DISTORTED_SCORES = "own", "distorted", "distorted_scores"
# Name of the memory's scores of a mini-batch.
MEMORY = "memory"


class MemoryStack:
    """A stack of one slot for a memory, which is complete after one epoch."""

    slots = steps = 1

    def __init__(self, data: TrainingData) -> None:
        """Keep the beats to store; nothing is computed yet."""
        self._data = data
        self._settings: TeacherSettings | None = None
        self._memory: State | None = None

    def put_in(
        self, slot: int, settings: BaseModel, *, seed: int, state: State | None = None
    ) -> None:
        """Start an empty memory, or restore a saved one; the seed has no effect."""
        if slot != 0 or self._settings is not None:
            raise ValueError(f"slot {slot} of 1 is occupied or does not exist")
        if not isinstance(settings, TeacherSettings):
            raise ValueError(f"settings of a memory expected, not {type(settings).__name__}")
        self._settings = settings
        self._memory = None if state is None else state["memory"]

    def take_out(self, slot: int) -> None:
        """Empty the slot."""
        self._occupied(slot)
        self._settings = self._memory = None

    def advance(self, steps: int | None = None) -> dict[int, TrainedEpoch]:
        """Store the training beats and score the validation beats.

        The only loss is the standard deviation of the log scores of the stored beats.

        Args:
            steps: None or 1.
        """
        if self._settings is None:
            return {}
        start = time.perf_counter()
        train = from_numpy(self._data.train, "cpu")
        self._memory = fill(self._settings, train, context=self._data.context)
        scores = recall(self._memory, self._data.validation.x)
        losses = {"spread": float(np.mean([view["std"] for view in self._memory["views"]]))}
        return {0: TrainedEpoch(1, losses, time.perf_counter() - start, scores)}

    def save(self, slot: int) -> State:
        """Return the memory; None inside before the first epoch."""
        self._occupied(slot)
        return {"memory": self._memory}

    def weights(self, slot: int) -> State:
        """Return the memory."""
        self._occupied(slot)
        if self._memory is None:
            raise ValueError("the memory is empty: advance() fills it")
        return self._memory

    def _occupied(self, slot: int) -> None:
        if slot != 0 or self._settings is None:
            raise ValueError(f"slot {slot} is empty")


class StudentStack(TorchStack):
    """Students that train on normal and distorted beats in equal numbers.

    Raises:
        ValueError: The targets are not of these beats, or fewer than the settings ask for.
    """

    def __init__(
        self, method: TorchMethod, settings: StudentSettings, slots: int, task: Task
    ) -> None:
        beats, targets = len(task.data.train), task.targets
        wanted, found = settings.distorted * beats, len(targets[DISTORTED])
        if len(targets[OWN]) != beats or found < wanted:
            raise ValueError(
                f"{len(targets[OWN])} normal and {found} distorted targets for "
                f"{beats} training beats and {wanted} distorted ones"
            )
        super().__init__(method, settings, slots, task)
        self._distorted = wanted
        # Normal beats in a mini-batch.
        self._normal = min(settings.batch_size // 2, beats)
        self.steps = beats // self._normal

    def mini_batches(self, student: Student) -> Tensor:
        """Draw row numbers: each normal beat once, then as many random distorted beats."""
        half = self._normal
        order = torch.randperm(len(self.x), generator=student.rng)
        return torch.stack(
            [
                torch.cat(
                    [normal, torch.randint(self._distorted, (half,), generator=student.rng)]
                )
                for normal in torch.split(order, half)[: len(order) // half]
            ]
        )

    def gather(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Collect beats, the normal ones first, and the memory's scores of them."""
        normal, distorted = rows.chunk(2, dim=-1)
        x = torch.cat([self.x[normal], self.targets[DISTORTED][distorted]], dim=1)
        memory = [self.targets[OWN][normal], self.targets[DISTORTED_SCORES][distorted]]
        return x, {MEMORY: torch.cat(memory, dim=1)}


def score_regression(taught: Tensor, memory: Tensor) -> Tensor:
    """Distance of the student's from the memory's scores, quadratic if small, else linear.

    Smooth L1 (Girshick, Fast R-CNN, ICCV 2015) between logarithms of distances, in standard
    deviations of those of normal beats; shapes (n,).
    """
    return functional.smooth_l1_loss(taught, memory)


def contrast(logits: Tensor) -> Tensor:
    """Cross-entropy of classifying beats: the first half is normal, the rest distorted.

    Args:
        logits: Positive where distorted, shape (n,).
    """
    truth = (torch.arange(len(logits), device=logits.device) >= len(logits) // 2).float()
    return functional.binary_cross_entropy_with_logits(logits, truth)


def teach(memory: State, distorted: FloatArray) -> Targets:
    """Compute the students' targets.

    Returns:
        ``own``: the memory's scores of its beats, each left out of its own comparison, (n,);
        ``distorted``: beats that are not normal, (m, leads, length); ``distorted_scores``:
        the memory's scores of them, (m,).
    """
    return {
        OWN: own_scores(memory),
        DISTORTED: distorted,
        DISTORTED_SCORES: recall(memory, distorted),
    }
