"""Three kinds of teachers: their scores, reconstructions and targets.

A teacher's state is one of: weights of the searched method; a table of scores of any origin; an
ensemble of these. Trials need only targets, which are the same for all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.data.beats import FloatArray
from kdsearch.methods.protocol import (
    SCORES,
    WEIGHTS,
    Compute,
    Method,
    Reconstructing,
    State,
    Targets,
    Task,
    Teachable,
)

FORMAT = 1
TABLE, ENSEMBLE = "scores", "ensemble"
SMALLEST_STD = 1e-6

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Standard:
    """The scale on which scores of different teachers are compared.

    The logarithm, if all scores of the training beats are positive, and otherwise the score
    itself, in standard deviations from the mean of the training beats.

    Attributes:
        logarithm: Whether the logarithm is taken.
        mean: Of the training beats.
        std: Likewise.
    """

    logarithm: bool
    mean: float
    std: float

    @classmethod
    def of(cls, train: NDArray[np.float32]) -> Standard:
        """The scale of one teacher, from its scores of the training beats, shape (n,)."""
        logarithm = bool((train > 0).all())
        values = np.log(train) if logarithm else train
        return cls(logarithm, float(values.mean()), max(float(values.std()), SMALLEST_STD))

    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of any beats on this scale, shape (n,)."""
        smallest = np.finfo(np.float32).tiny
        values = np.log(np.maximum(scores, smallest)) if self.logarithm else scores
        return np.asarray((values - self.mean) / self.std, dtype=np.float32)


def table(scores: dict[Part, NDArray[np.float32]]) -> State:
    """Return a teacher that consists of scores alone, of each part of the data."""
    parts: dict[str, Any] = {part: torch.from_numpy(scores[part].copy()) for part in PARTS}
    return parts | {"format": FORMAT, "method": TABLE}


def ensemble(
    members: Sequence[State], method: Method, train: FloatArray, compute: Compute
) -> State:
    """Return several teachers as one.

    Args:
        members: Weights of the method, or tables.
        train: The training beats, by whose scores each member's are standardised.
    """
    standards = [
        Standard.of(part_scores(state, method, "train", train, compute)) for state in members
    ]
    return {
        "format": FORMAT,
        "method": ENSEMBLE,
        "members": list(members),
        "standards": [[s.logarithm, s.mean, s.std] for s in standards],
    }


def part_scores(
    state: State, method: Method, part: Part, x: FloatArray, compute: Compute
) -> NDArray[np.float32]:
    """Compute the anomaly scores of one part of the data, shape (n,).

    Those of an ensemble are exponentials of the mean of its members' standardised scores.
    """
    if state["method"] == TABLE:
        scores: NDArray[np.float32] = state[part].numpy()
        return scores
    if state["method"] == ENSEMBLE:
        parts = [
            Standard(*standard)(part_scores(member, method, part, x, compute))
            for member, standard in zip(state["members"], state["standards"], strict=True)
        ]
        return np.asarray(np.exp(np.mean(parts, axis=0)), dtype=np.float32)
    return method.score(state, x, compute)


def reconstructions(
    state: State, method: Method, x: FloatArray, compute: Compute
) -> FloatArray | None:
    """Reconstruct beats, by an ensemble as the mean; None if the teacher cannot."""
    if state["method"] == TABLE or not isinstance(method, Reconstructing):
        return None
    if state["method"] != ENSEMBLE:
        return method.reconstruct(state, x, compute)
    parts = [reconstructions(member, method, x, compute) for member in state["members"]]
    known = [part for part in parts if part is not None]
    return np.mean(known, axis=0, dtype=np.float32) if len(known) == len(parts) else None


def members_of(state: State) -> list[State]:
    """Return the networks of a teacher; none if a part of it is a table of scores."""
    members = state["members"] if state["method"] == ENSEMBLE else [state]
    return [] if any(member["method"] == TABLE for member in members) else members


def gives(state: State, method: Method) -> frozenset[str]:
    """Return the names of what a teacher gives; see `Teachable`."""
    if state["method"] == TABLE:
        return frozenset({SCORES})
    if state["method"] == ENSEMBLE:
        common = frozenset.intersection(*(gives(m, method) for m in state["members"]))
        return common - {WEIGHTS}
    return method.gives(state) if isinstance(method, Teachable) else frozenset({SCORES})


def targets_of(method: Method, students: Sequence[BaseModel], task: Task) -> Targets:
    """Compute the targets of these students by the task's teacher, of any kind."""
    kind = task.teacher["method"]
    if kind not in (TABLE, ENSEMBLE):
        return method.targets(students, task)
    assert isinstance(method, Teachable)
    if kind == TABLE:
        train = task.teacher["train"].numpy()
        return method.targets_of_scores(Standard.of(train)(train), students, task)
    return method.joined(
        [
            targets_of(method, students, replace(task, teacher=member))
            for member in task.teacher["members"]
        ]
    )


def tensors_in(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of a state by their path, in an order that depends on names alone."""
    if isinstance(state, dict):
        for key in sorted(state, key=str):
            yield from tensors_in(state[key], f"{name}/{key}")
    elif isinstance(state, list | tuple):
        for index, item in enumerate(state):
            yield from tensors_in(item, f"{name}/{index}")
    else:
        yield name, state
