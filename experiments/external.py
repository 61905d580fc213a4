"""Searches beyond MIT-BIH: nothing is tuned on these data.

    pip install -c constraints.txt -e '.[search]' && pip install --no-deps aeon
    python -m experiments.external --mocap FOLDER --runs FOLDER

Each task is searched by shipped spaces as they are. Only ``data`` is replaced and, where
samples have fewer components than a memory's student starts from, ``student.components``. The
figures are those of the verdict: the best trial, the same student without distillation and the
teacher's recipe, trained again with new seeds, and the baselines. A row per search goes to
``experiments/results/external.csv``; searches that have one are not run again.

- Motion capture (CMU), BeatGAN's second benchmark: four joint angles as its authors published
  them, FOLDER/walk, FOLDER/run and FOLDER/other; windows of 64 frames, every 5 frames; walking
  is normal. No recording is in two parts. Searched by ``memory`` and by ``kd``, a BeatGAN.
- The univariate series of the UCR archive that are inside the package aeon, if their most
  frequent class has at least 50 series; that class is normal. Searched by ``memory``.
- scikit-learn's handwritten digits, a row of pixels after the other: each digit against the
  rest. Searched by ``memory``.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdsearch
from experiments.table import Table
from kdsearch.analysis.run import Run
from kdsearch.data import cache_dir, load_dataset
from kdsearch.methods.memory.settings import StudentSettings
from kdsearch.metrics.statistics import mean_and_sd

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
        spaces: The shipped spaces that search it.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.str_]
    record: NDArray[np.str_] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    spaces: tuple[str, ...] = ("memory",)

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
    parts = np.stack(x), np.array(y), np.array(record)
    return Task("motion capture", *parts, settings, ("memory", "kd"))


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
    """Run the searches that have no row yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mocap", type=Path, required=True, help="walk/, run/ and other/")
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the searches")
    parser.add_argument("--only", default="", help="a part of the names of the tasks")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    table = Table("external.csv", ("task", "space"))
    for task in tasks(options.mocap):
        for space in task.spaces:
            if options.only in task.name and not table.has(task.name, space):
                table.add(_row(task, space, options.runs))


def _row(task: Task, space: str, runs: Path) -> dict[str, object]:
    name = f"{space}-{task.name.replace('/', '-').replace(' ', '-')}"
    source = runs / f"{name}.npz"
    task.write(source)
    searched = kdsearch.load_space(space).replace(data={"source": str(source), **task.settings})
    data = load_dataset(searched.data, cache_dir())
    train = data.training.train
    most = min(len(train) - 1, train[0].size)
    if space == "memory" and most < StudentSettings().components:
        # The search refuses more, and says so.
        searched = searched.replace(student={"components": most})
    start = time.monotonic()
    run = kdsearch.search(searched, name=name, runs_dir=runs, resume="auto", progress=False)
    assert run.best is not None
    seconds = time.monotonic() - start
    return {
        "task": task.name,
        "space": space,
        "train": len(train),
        "test": len(data.test.x),
        "abnormal": int(data.test.abnormal.sum()),
        "trials": len(run.records),
        "val_auc": run.best.value,
        **figures(run),
        "seconds": round(seconds),
    }


def figures(run: Run) -> dict[str, object]:
    """Test AUCs of a verdict, and the chosen student's differences with their intervals."""
    verdict = run.verdict
    chosen, control = verdict["chosen"], f"control-of-{verdict['chosen']}"
    areas = {
        found["name"]: [result["test_auc"] for result in found["seeds"].values()]
        for found in verdict["configurations"]
    }
    # Chosen on validation, as everything is.
    baseline = max(verdict["baselines"], key=lambda found: float(found["val_auc"]))
    row: dict[str, object] = {"seeds": len(areas[chosen])}
    for name, of in {"teacher": "teacher", "distilled": chosen, "plain": control}.items():
        row[name], row[f"{name}_sd"] = mean_and_sd(areas[of])
    row |= {"baseline": baseline["name"], "baseline_auc": baseline["test_auc"]}
    differences: dict[str, Mapping[str, Any]] = {
        found["against"]: found for found in verdict["differences"] if found["of"] == chosen
    }
    against = {"plain": control, "teacher": "teacher", "baseline": baseline["name"]}
    for name, other in against.items():
        found = differences[other]
        row[f"less_{name}"] = found["estimate"]
        row[f"less_{name}_low"], row[f"less_{name}_high"] = found["low"], found["high"]
    return row


if __name__ == "__main__":
    main()
