"""Distilled detectors as scikit-learn estimators.

    from kdsearch.sklearn import DistilledDetector

    detector = DistilledDetector(contamination=0.05).fit(windows)
    detector.predict(others)  # 1 for normal ones, -1 for abnormal ones

There is no search: teacher and student are trained once, with the settings given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from kdsearch.config.space_file import load_method
from kdsearch.data.beats import NORMAL, FloatArray, LabelledBeats, TrainingData, normalise, pad
from kdsearch.errors import UserError
from kdsearch.extras import needs
from kdsearch.methods.protocol import Compute, Stack, State, Task

with needs("search", "kdsearch.sklearn"):
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data

COMPUTE = Compute("cpu", "fp32")
LARGEST_SEED = 2**31 - 1


class DistilledDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """A small network that learned from a teacher what normal samples are.

    Signs are scikit-learn's: `score_samples` and `decision_function` are lower for what is more
    abnormal. The attributes with PyOD's names have PyOD's signs.

    Args:
        method: ``memory``, ``beatgan`` or ``package.module:Class``, as in a space file.
        teacher: The teacher's settings, as in the section ``teacher`` of a space file.
        student: The student's settings, as in the sections ``student`` and ``space``.
            ``{"alpha": 0}`` trains without distillation.
        leads: Channels of a sample: its features are those of the first, then of the next.
        scaling: To [-1, 1]: ``sample``, each channel of each sample by its own extremes, as in
            a search, for windows of signals; ``feature``, each feature by its extremes in
            training, for tables.
        contamination: Share of the training samples that are called abnormal.
        random_state: Seed of the training.

    Attributes:
        decision_scores_: Of the training samples, shape (n,); higher is more abnormal.
        threshold_: Samples that score more are abnormal.
        labels_: 1 for abnormal training samples, else 0, shape (n,).
        offset_: ``-threshold_``.
        weights_: The student.
        teacher_: The teacher.
    """

    def __init__(
        self,
        method: str = "memory",
        *,
        teacher: Mapping[str, Any] | None = None,
        student: Mapping[str, Any] | None = None,
        leads: int = 1,
        scaling: Literal["sample", "feature"] = "sample",
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        """Keep the parameters; `fit` checks them."""
        self.method = method
        self.teacher = teacher
        self.student = student
        self.leads = leads
        self.scaling = scaling
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: N803
        """Train teacher and student on samples, nearly all of them normal.

        Args:
            X: Shape (n, features).
            y: Ignored.

        Raises:
            ValueError: Samples or settings that cannot be learned from.
        """
        checked = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._check()
        if self.scaling == "feature":
            self._low, self._high = checked.min(axis=0), checked.max(axis=0)
        try:
            self._train(self._beats(checked))
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def _check(self) -> None:
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination: expected (0, 0.5], found {self.contamination}")
        if self.scaling not in ("sample", "feature"):
            raise ValueError(f"scaling: expected 'sample' or 'feature', found {self.scaling!r}")
        if self.leads < 1 or self.n_features_in_ % self.leads:
            raise ValueError(
                f"leads: {self.n_features_in_} features are not those of {self.leads} leads"
            )

    def _train(self, x: FloatArray) -> None:
        self._method = load_method(self.method, "method")
        rng = check_random_state(self.random_state)
        nothing = LabelledBeats(x[:1], np.zeros(1, dtype=np.bool_), np.array([NORMAL]), None)
        task = Task(TrainingData(x, nothing), COMPUTE)
        teacher = self._method.teacher_settings.model_validate({**(self.teacher or {})})
        given = dict(self.student or {})
        # A memory's student cannot start from more components than there are.
        few = min(len(x) - 1, self.n_features_in_)
        if self.method == "memory" and few < given.get("components", 40):
            given.setdefault("init", "random")
        student = self._method.student_settings.model_validate(given)
        self._method.check(teacher, student)
        stack = self._method.teacher_stack(teacher, task)
        self.teacher_ = _trained(stack, teacher, rng)
        task = replace(task, teacher=self.teacher_)
        task = replace(task, targets=self._method.targets([student], task))
        stack = self._method.student_stack(student, 1, task)
        self.weights_ = _trained(stack, student, rng)
        self.decision_scores_ = self._scores(x)
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        self.offset_ = -self.threshold_

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """How normal samples are, shape (n,): lower is more abnormal."""
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=np.float64, reset=False)
        return -self._scores(self._beats(checked))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """`score_samples` less ``offset_``: below 0 a sample is abnormal, shape (n,)."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:  # noqa: N803
        """1 for normal samples and -1 for abnormal ones, shape (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _beats(self, checked: NDArray[np.float64]) -> FloatArray:
        """Scaled samples as a method takes them, shape (n, leads, padded length)."""
        if self.scaling == "feature":
            span = np.where(self._high > self._low, self._high - self._low, 1)
            # What training has not seen may be as far away again on each side.
            checked = (2 * (checked - self._low) / span - 1).clip(-3, 3)
        x = checked.astype(np.float32).reshape(len(checked), self.leads, -1)
        return np.ascontiguousarray(pad(normalise(x) if self.scaling == "sample" else x))

    def _scores(self, x: FloatArray) -> NDArray[np.float64]:
        scores = self._method.score(self.weights_, x, COMPUTE)
        if not np.isfinite(scores).all():
            raise ValueError("the training diverged: scores are not finite")
        return scores.astype(np.float64)


def _trained(stack: Stack, settings: BaseModel, rng: np.random.RandomState) -> State:
    stack.put_in(0, settings, seed=int(rng.randint(LARGEST_SEED)))
    for _ in range(settings.epochs):  # type: ignore[attr-defined]
        stack.advance()
    return stack.weights(0)
