"""Evaluate the best student and the teacher on validation and test beats, with examples.

This is done once, at the end of a search. The run folder keeps scores, labels and a few beats
of every class with their reconstructions, so that later charts need neither the data nor the
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import (
    NORMAL,
    BoolArray,
    Dataset,
    FloatArray,
    IndexArray,
    LabelledBeats,
    TextArray,
)
from kdsearch.methods.progress import PROGRESS, shown_rows
from kdsearch.methods.protocol import Compute, Method, Reconstructing, State
from kdsearch.metrics.ranking import Metrics, evaluate, rank
from kdsearch.metrics.threshold import Rule
from kdsearch.runs.folder import RunFolder

# Number of example beats per class with an alarm, and as many without.
EXAMPLES = 4


@dataclass(frozen=True)
class Answers:
    """Scores of a student or a teacher, and its reconstructions.

    Attributes:
        validation: Anomaly score of each validation beat, shape (n,).
        test: Likewise, shape (m,).
        reconstruct: Makes reconstructions of beats, or None if there are none.
        nearest: Finds the nearest training beat of each beat, or None if nothing is compared.
        progress: Reconstructions of `shown_rows` of the validation beats, by epoch.
    """

    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    reconstruct: Callable[[FloatArray], FloatArray | None]
    nearest: Callable[[FloatArray], IndexArray | None] = lambda x: None
    progress: Mapping[int, Any] = field(default_factory=dict)


def answers_of(method: Method, weights: State, dataset: Dataset, compute: Compute) -> Answers:
    """Those of a network of this method."""

    def reconstruct(x: FloatArray) -> FloatArray | None:
        if not isinstance(method, Reconstructing):
            return None
        return method.reconstruct(weights, x, compute)

    return Answers(
        method.score(weights, dataset.training.validation.x, compute),
        method.score(weights, dataset.test.x, compute),
        reconstruct,
        progress=weights.get(PROGRESS, {}),
    )


@dataclass(frozen=True)
class Scores:
    """Scores of one network on the validation and test beats.

    Attributes:
        validation: Anomaly score of each validation beat, shape (n,).
        test: Anomaly score of each test beat, shape (m,).
        threshold: Chosen on the validation beats only.
    """

    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    threshold: float

    def metrics(
        self, validation: TextArray, test: TextArray, shared: BoolArray | None = None
    ) -> dict[str, Any]:
        """All figures on both sets of beats, given the classes of each beat.

        Where some test beats are of patients who are in training, shape (m,), also those of the
        test beats without them.
        """
        found: dict[str, Metrics] = {
            "validation": evaluate(self.validation, validation, threshold=self.threshold),
            "test": evaluate(self.test, test, threshold=self.threshold),
        }
        if shared is not None:
            new = ~shared
            found["test_new_patients"] = evaluate(
                self.test[new], test[new], threshold=self.threshold
            )
        return {name: figures.as_dict() for name, figures in found.items()}


@dataclass(frozen=True)
class Examples:
    """Some test beats and their reconstructions.

    Attributes:
        rows: Which of the test beats, shape (k,).
        x: The beats as the networks see them, shape (k, leads, length).
        student: The student's reconstructions, of the same shape, or None if its method
            makes none.
        teacher: The teacher's reconstructions, or None.
        nearest: Of each beat the nearest training beat, as the teacher compares them, of the
            same shape, or None.
        time_ms: Time from the R peak, shape (length,); None if it is unknown how the beats
            were cut.
    """

    rows: IndexArray
    x: FloatArray
    student: FloatArray | None
    teacher: FloatArray | None
    nearest: FloatArray | None
    time_ms: FloatArray | None


@dataclass(frozen=True)
class Progress:
    """Some validation beats and their reconstructions over the student's training.

    Attributes:
        rows: Which of the validation beats, shape (k,).
        x: The beats as the networks see them, shape (k, leads, length).
        epochs: In order, shape (e,); the last is the best epoch.
        student: The reconstructions, shape (e, k, leads, length).
    """

    rows: IndexArray
    x: FloatArray
    epochs: IndexArray
    student: FloatArray


@dataclass(frozen=True)
class Evaluation:
    """The content of a run's ``evaluation.npz``.

    Attributes:
        trial: Number of the trial whose best epoch is the student.
        validation_classes: Class of each validation beat, shape (n,).
        test_classes: Class of each test beat, shape (m,).
        test_record: Record (patient) of each test beat, or None where not known.
        test_shared: As of the `LabelledBeats`.
        progress: None if the method keeps no reconstructions.
    """

    trial: int
    validation_classes: TextArray
    test_classes: TextArray
    test_record: TextArray | None
    student: Scores
    teacher: Scores
    examples: Examples
    test_shared: BoolArray | None = None
    progress: Progress | None = None

    def metrics(self) -> dict[str, Any]:
        """Figures of student and teacher, as in ``best/metrics.json``."""
        return {
            name: scores.metrics(self.validation_classes, self.test_classes, self.test_shared)
            for name, scores in (("student", self.student), ("teacher", self.teacher))
        }

    def alarms(self) -> BoolArray:
        """Whether the student calls each test beat abnormal, shape (m,)."""
        return np.asarray(self.student.test >= self.student.threshold)


def evaluate_run(
    folder: RunFolder,
    dataset: Dataset,
    *,
    trial: int,
    epoch: int | float,
    student: Answers,
    teacher: Answers,
    rule: Rule,
) -> Evaluation:
    """Measure the best student and the teacher, and keep everything in the run folder.

    Args:
        epoch: The epoch of the trial whose student this is, its best.
        rule: Chooses the thresholds. A score that is given is the student's alone, since the
            teacher's are on a scale of their own: its threshold then has the best F1.
    """
    validation, test = dataset.training.validation, dataset.test
    of_student = _scores(student, validation, rule)
    of_teacher = Rule() if rule.kind == "score" else rule
    rows = choose_examples(of_student.test, test.classes, of_student.threshold)
    nearest = teacher.nearest(test.x[rows])
    evaluation = Evaluation(
        trial=trial,
        validation_classes=validation.classes,
        test_classes=test.classes,
        test_record=test.record,
        student=of_student,
        teacher=_scores(teacher, validation, of_teacher),
        examples=Examples(
            rows=rows,
            x=test.x[rows],
            student=student.reconstruct(test.x[rows]),
            teacher=teacher.reconstruct(test.x[rows]),
            nearest=None if nearest is None else dataset.training.train[nearest],
            time_ms=_time_ms(dataset),
        ),
        test_shared=test.shared,
        progress=_progress(student, validation, epoch),
    )
    folder.write_evaluation(dict(_arrays(evaluation)))
    return evaluation


def read_evaluation(folder: RunFolder) -> Evaluation | None:
    """Read the result of `evaluate_run`; None before the end of the search.

    Raises:
        RunError: The file is damaged, or not of this version.
    """
    return folder.read_evaluation(_from_arrays)


def choose_examples(scores: FloatArray, classes: TextArray, threshold: float) -> IndexArray:
    """Rows of a few beats of every class, with and without an alarm.

    They are spread evenly over the scores of their kind.
    """
    alarm = scores >= threshold
    chosen = []
    # The normal class last.
    labels = {str(label) for label in np.unique(classes)}
    for label in sorted(labels, key=lambda label: (label == NORMAL, label)):
        for kind in (alarm, ~alarm):
            rows = np.flatnonzero((classes == label) & kind)
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            spread = (np.arange(EXAMPLES) + 0.5) / EXAMPLES * len(rows)
            chosen.append(rows[np.unique(spread.astype(np.int64))] if len(rows) else rows)
    return np.concatenate(chosen).astype(np.int64)


def _scores(answers: Answers, validation: LabelledBeats, rule: Rule) -> Scores:
    threshold = rule.threshold(rank(answers.validation, validation.abnormal))
    return Scores(answers.validation, answers.test, threshold)


def _progress(student: Answers, validation: LabelledBeats, epoch: float) -> Progress | None:
    rows = shown_rows(validation)
    x = validation.x[rows]
    now = student.reconstruct(x)
    if now is None or not student.progress:
        return None
    earlier = {e: np.asarray(fakes) for e, fakes in student.progress.items() if e < epoch}
    epochs = [*sorted(earlier), epoch]
    fakes = np.stack([*(earlier[e] for e in sorted(earlier)), now])
    return Progress(rows, x, np.array(epochs), fakes)


def _time_ms(dataset: Dataset) -> FloatArray | None:
    if dataset.cutting is None:
        return None
    length = dataset.test.x.shape[-1]
    # Padding repeats the edges on both sides, the smaller half on the left.
    peak = dataset.cutting.samples_before + (length - dataset.length) // 2
    samples = np.arange(length, dtype=np.float32) - peak
    return np.asarray(1000 * samples / dataset.cutting.sampling_rate_hz, dtype=np.float32)


def _arrays(part: Any, prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """An evaluation, or a part of one, as named arrays; what is None is left out."""
    for name, value in vars(part).items():
        if is_dataclass(value):
            yield from _arrays(value, f"{name}_")
        elif value is not None:
            array = np.asarray(value)
            # Fixed-width texts, because reading arrays of Python objects needs pickle.
            yield f"{prefix}{name}", array.astype(np.str_) if array.dtype.hasobject else array


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Evaluation:
    """Reverse `_arrays`; raise KeyError or ValueError if arrays are missing or do not fit."""
    progress = None
    if "progress_rows" in arrays:
        progress = Progress(*(arrays[f"progress_{each.name}"] for each in fields(Progress)))
    evaluation = Evaluation(
        trial=int(arrays["trial"]),
        validation_classes=arrays["validation_classes"],
        test_classes=arrays["test_classes"],
        test_record=arrays.get("test_record"),
        student=_stored_scores(arrays, "student"),
        teacher=_stored_scores(arrays, "teacher"),
        examples=Examples(
            rows=arrays["examples_rows"],
            x=arrays["examples_x"],
            student=arrays.get("examples_student"),
            teacher=arrays.get("examples_teacher"),
            nearest=arrays.get("examples_nearest"),
            time_ms=arrays.get("examples_time_ms"),
        ),
        test_shared=arrays.get("test_shared"),
        progress=progress,
    )
    _check(evaluation)
    return evaluation


def _stored_scores(arrays: Mapping[str, NDArray[Any]], name: str) -> Scores:
    threshold = float(arrays[f"{name}_threshold"])
    return Scores(arrays[f"{name}_validation"], arrays[f"{name}_test"], threshold)


def _check(evaluation: Evaluation) -> None:
    """Refuse arrays that contradict each other."""
    examples = evaluation.examples
    for scores in (evaluation.student, evaluation.teacher):
        _same_shape(scores.validation, evaluation.validation_classes)
        _same_shape(scores.test, evaluation.test_classes)
    if examples.x.ndim != 3 or len(examples.x) != len(examples.rows):
        raise ValueError("examples of another number or shape than their rows")
    if evaluation.test_shared is not None:
        _same_shape(evaluation.test_shared, evaluation.test_classes)
    if not np.isin(examples.rows, np.arange(len(evaluation.test_classes))).all():
        raise ValueError("examples that are no test beats")
    for fake in (examples.student, examples.teacher, examples.nearest):
        if fake is not None:
            _same_shape(fake, examples.x)
    if examples.time_ms is not None:
        _same_shape(examples.time_ms, np.empty(examples.x.shape[-1]))
    progress = evaluation.progress
    if progress is None:
        return
    if progress.x.ndim != 3 or len(progress.x) != len(progress.rows):
        raise ValueError("beats of another number or shape than their rows")
    if not np.isin(progress.rows, np.arange(len(evaluation.validation_classes))).all():
        raise ValueError("beats that are no validation beats")
    if progress.student.shape != (len(progress.epochs), *progress.x.shape):
        raise ValueError("reconstructions of another number or shape than beats and epochs")
    if examples.time_ms is not None:
        _same_shape(examples.time_ms, np.empty(progress.x.shape[-1]))


def _same_shape(one: NDArray[Any], other: NDArray[Any]) -> None:
    if one.shape != other.shape:
        raise ValueError(f"arrays of shapes {one.shape} and {other.shape}, which should agree")
