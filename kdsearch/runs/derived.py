"""Required contents of a run's derived JSON files; a file that lacks any is damaged.

They are computed from the trials, the teacher and the confirmation, and can be computed again.
"""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

STRICT = ConfigDict(strict=True)


class _Confusion(TypedDict):
    threshold: float


class _Figures(TypedDict):
    roc_auc: float
    average_precision: float
    confusion: _Confusion
    classes: dict[str, dict[str, float]]


class _Data(TypedDict):
    fingerprint: str
    description: str
    simulated: bool | int


class _Epoch(TypedDict):
    epoch: int
    val_auc: float
    val_ap: float
    losses: NotRequired[dict[str, float]]


class _Origin(TypedDict):
    kind: str
    content: str
    note: str


class _Teacher(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]

    fingerprint: str
    seconds: float
    epochs: int
    best_epoch: int
    val_auc: float
    val_ap: float
    history: list[_Epoch]
    origin: NotRequired[_Origin]
    data: _Data


class _Sets(TypedDict):
    validation: NotRequired[_Figures]
    test: _Figures


class _Metrics(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]

    trial: int
    trials: NotRequired[int]
    student: _Sets
    teacher: _Sets


class _Measured(TypedDict):
    val_auc: float
    val_ap: float
    test_auc: float
    test_ap: float


class _Configuration(TypedDict):
    name: str
    role: str
    reason: str
    seeds: dict[str, _Measured]


class _SeedDifference(TypedDict):
    seed: int
    estimate: float


class _Difference(TypedDict):
    of: str
    against: str
    estimate: float | None
    low: float | None
    high: float | None
    covers: list[str]
    judgement: str
    sentence: str
    per_seed: list[_SeedDifference]


class _Baseline(_Measured):
    name: str


class _Adaptive(TypedDict):
    most: int
    seeds: dict[str, int]
    ended: str


class _Smallest(TypedDict):
    name: str
    cost: float
    objective: str
    sentence: str
    estimate: NotRequired[float]
    low: NotRequired[float]
    high: NotRequired[float]


class _Verdict(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]

    chosen: str | None
    sentences: list[str]
    configurations: list[_Configuration]
    differences: list[_Difference]
    baselines: list[_Baseline]
    adaptive: NotRequired[_Adaptive]
    smallest: NotRequired[_Smallest]


class _Generation(TypedDict):
    generation: int
    trial: int
    val_auc: float | None
    val_ap: float | None
    test_auc: float | None
    test_ap: float | None
    seeds: int


class _Descent(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]

    result: int
    ended: str
    generations: list[_Generation]
    against_first_teacher: list[_Difference]
    sentences: list[str]


SHAPES: dict[str, TypeAdapter[Any]] = {
    "teacher.json": TypeAdapter(_Teacher),
    "metrics.json": TypeAdapter(_Metrics),
    "descent.json": TypeAdapter(_Descent),
    "verdict.json": TypeAdapter(_Verdict),
    "costs.json": TypeAdapter(dict[str, Any]),
}
