"""Detectors beyond MIT-BIH: nothing is tuned on these data.

    pip install -c constraints.txt -e '.[search]' && pip install --no-deps aeon
    python -m experiments.external --mocap FOLDER

Each task takes ``search_spaces/memory.yaml`` as it is; what it searches has the method's
default instead of a search. A memory teaches five students (seeds 1 to 5, judged by their last
epoch), and five more learn without it (``alpha: 0``). Two exceptions, by rule: a student starts
from no more components than the training samples have, and mini-batches are no larger than
twice their number. A row per task goes to ``experiments/results/external.csv``; tasks that have
one are not run again.

- Motion capture (CMU), BeatGAN's second benchmark: four joint angles as its authors published
  them, FOLDER/walk, FOLDER/run and FOLDER/other; windows of 64 frames, every 5 frames; walking
  is normal. No recording is in two parts.
- The univariate series of the UCR archive that are inside the package aeon, if their most
  frequent class has at least 50 series; that class is normal.
- scikit-learn's handwritten digits, a row of pixels after the other: each digit against the
  rest.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.table import Table
from kdsearch.config.space_file import load_space
from kdsearch.data import Dataset, load_dataset
from kdsearch.data.beats import LabelledBeats
from kdsearch.evaluation.baselines import baseline_scores
from kdsearch.methods.memory import Memory
from kdsearch.methods.memory.settings import StudentSettings
from kdsearch.methods.protocol import Compute, Stack, State
from kdsearch.methods.protocol import Task as LearningTask
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import compare

SPACE = "memory"
METHOD, COMPUTE = Memory(), Compute("cpu", "fp32")
SEEDS = range(1, 6)
WINDOW, STEP = 64, 5
FEWEST_NORMAL = 50


@dataclass(frozen=True)
class Task:
    """Samples of a normal class and of others.

    Attributes:
        name: For example ``digits/3``.
        x: Shape (n, channels, length).
        y: Classes, shape (n,); ``N`` is normal.
        record: The recording of each sample, where there are several.
        settings: Of ``data``, besides its source.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.str_]
    record: NDArray[np.str_] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as a source of data."""
        arrays: dict[str, Any] = {"x": self.x.astype(np.float32), "y": self.y}
        if self.record is not None:
            arrays["record"] = self.record
        np.savez(path, **arrays)


def tasks(mocap: Path) -> Iterator[Task]:
    """Yield all tasks."""
    yield motion_capture(mocap)
    yield from series()
    yield from digits()


def motion_capture(folder: Path) -> Task:
    """Walking against running and other motions."""
    x, y, record = [], [], []
    for motion in ("walk", "run", "other"):
        for path in sorted((folder / motion).iterdir()):
            angles = np.loadtxt(path).T
            low, high = (f(axis=1, keepdims=True) for f in (angles.min, angles.max))
            angles = 2 * (angles - low) / np.where(high > low, high - low, 1) - 1
            starts = range(0, angles.shape[1] - WINDOW + 1, STEP)
            x += [angles[:, start : start + WINDOW] for start in starts]
            y += ["N" if motion == "walk" else motion] * len(starts)
            record += [path.name.partition(".")[0]] * len(starts)
    settings = {"leads": 4, "split": "inter_patient", "unit": "window"}
    return Task("motion capture", np.stack(x), np.array(y), np.array(record), settings)


def series() -> Iterator[Task]:
    """Yield each data set's most frequent class against the others."""
    spec = importlib.util.find_spec("aeon")
    assert spec is not None, "pip install --no-deps aeon"
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "datasets" / "data"
    for path in sorted(folder.glob("*/*_TRAIN.ts")):
        name = path.parent.name
        read = _read_series(path), _read_series(path.with_name(f"{name}_TEST.ts"))
        if path.name != f"{name}_TRAIN.ts" or None in read:
            continue
        rows = [row for part in read for row in part or ()]
        classes, counts = np.unique([label for label, _ in rows], return_counts=True)
        if counts.max() >= FEWEST_NORMAL:
            normal = classes[counts.argmax()]
            x = np.array([values for _, values in rows])[:, None]
            y = np.array(["N" if label == normal else "abnormal" for label, _ in rows])
            yield Task(f"UCR {name}", x, y, settings={"unit": "series"})


def _read_series(path: Path) -> list[tuple[str, list[float]]] | None:
    """Labels and values; None unless it has classes and one channel, all equally long."""
    if not path.is_file():
        return None
    lines = [line.strip() for line in path.read_text().splitlines()]
    head = {line.lower() for line in lines if line.startswith("@")}
    if not {"@univariate true", "@timestamps false"} <= head or not any(
        line.startswith("@classlabel true") for line in head
    ):
        return None
    rows = []
    for line in lines:
        if line and line[0] not in "@#":
            values, _, label = line.rpartition(":")
            if "?" in values or ":" in values:
                return None
            rows.append((label, [float(value) for value in values.split(",") if value]))
    return rows if len({len(values) for _, values in rows}) == 1 else None


def digits() -> Iterator[Task]:
    """Yield each digit against the others."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    x, labels = load_digits(return_X_y=True)
    for digit in range(10):
        y = np.where(labels == digit, "N", "abnormal")
        yield Task(f"digits/{digit}", x[:, None], y, settings={"unit": "digit"})


def main() -> None:
    """Measure the tasks that have no row yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mocap", type=Path, required=True, help="walk/, run/ and other/")
    parser.add_argument("--only", default="", help="a part of the names of the tasks")
    options = parser.parse_args()
    table = Table("external.csv", ("task",))
    for task in tasks(options.mocap):
        if options.only in task.name and not table.has(task.name):
            table.add(_row(task))


def _row(task: Task) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "task.npz"
        task.write(source)
        space = load_space(SPACE).replace(data={"source": str(source), **task.settings})
        data = load_dataset(space.data, Path(folder))
        baselines = baseline_scores(data, Path(folder))
    learned = LearningTask(data.training, COMPUTE)
    teacher = _weights(METHOD.teacher_stack(space.teacher, learned), space.teacher, 0)
    learned = replace(learned, teacher=teacher)
    train = data.training.train
    given = {
        **space.student,
        "batch_size": min(int(space.student["batch_size"]), 2 * len(train)),
        "components": min(StudentSettings().components, len(train) - 1, train[0].size),
    }
    distilled, plain = (
        np.stack([_scores({**given, **changes}, learned, data, seed) for seed in SEEDS])
        for changes in ({}, {"alpha": 0.0})
    )
    of_teacher = METHOD.score(teacher, data.test.x, COMPUTE)
    # Chosen on validation, as everything is.
    abnormal = data.training.validation.abnormal
    name = max(baselines, key=lambda one: rank(baselines[one].validation, abnormal).roc_auc())
    test = data.test
    return {
        "task": task.name,
        "train": len(train),
        "test": len(test.x),
        "abnormal": int(test.abnormal.sum()),
        "teacher": rank(of_teacher, test.abnormal).roc_auc(),
        **_areas("distilled", distilled, test),
        **_areas("plain", plain, test),
        "baseline": name,
        "baseline_auc": rank(baselines[name].test, test.abnormal).roc_auc(),
        **_less("plain", distilled, plain, test),
        **_less("teacher", distilled, np.stack([of_teacher] * len(SEEDS)), test),
        **_less("baseline", distilled, np.stack([baselines[name].test] * len(SEEDS)), test),
    }


def _scores(
    given: dict[str, Any], learned: LearningTask, data: Dataset, seed: int
) -> NDArray[np.float32]:
    """Train a student; return its scores of the test samples."""
    settings = StudentSettings.model_validate(given)
    ready = replace(learned, targets=METHOD.targets([settings], learned))
    weights = _weights(METHOD.student_stack(settings, 1, ready), settings, seed)
    return METHOD.score(weights, data.test.x, COMPUTE)


def _weights(stack: Stack, settings: Any, seed: int) -> State:
    stack.put_in(0, settings, seed=seed)
    for _ in range(settings.epochs):
        stack.advance()
    return stack.weights(0)


def _areas(name: str, scores: NDArray[np.float32], test: LabelledBeats) -> dict[str, float]:
    areas = [rank(one, test.abnormal).roc_auc() for one in scores]
    return {name: float(np.mean(areas)), f"{name}_sd": float(np.std(areas, ddof=1))}


def _less(
    name: str, a: NDArray[np.float32], b: NDArray[np.float32], test: LabelledBeats
) -> dict[str, float]:
    """The difference of two areas, with its 95 % interval."""
    found = compare(a, b, test.abnormal, test.patients).difference
    return {
        f"less_{name}": found.estimate,
        f"less_{name}_low": found.low,
        f"less_{name}_high": found.high,
    }


if __name__ == "__main__":
    main()
