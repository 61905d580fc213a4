"""Searches beyond MIT-BIH, by a shipped space as it is: nothing is tuned on these data.

    pip install -c constraints.txt -e '.[external]'
    python -m experiments.external --mocap FOLDER --runs FOLDER

Each task is a search of ``search_spaces/memory.yaml`` whose ``data`` alone are replaced, with
its confirmation: the best distilled student and the same student without distillation, three
new seeds each, the teacher, and the baselines. A row per task goes to
``experiments/results/external.csv``; tasks that have one are not run again.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdsearch
from experiments.table import Table
from kdsearch.analysis.run import Run

SPACE = "memory"
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
        arrays = {"x": self.x.astype(np.float32), "y": self.y}
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
    assert spec is not None, "pip install -e '.[external]'"
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
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    table = Table("external.csv", ("task",))
    for task in tasks(options.mocap):
        if not table.has(task.name):
            table.add(_row(task, _search(task, options.runs)))


def _search(task: Task, runs: Path) -> Run:
    name = task.name.replace("/", "-").replace(" ", "-")
    source = runs / f"{name}.npz"
    task.write(source)
    space = kdsearch.load_space(SPACE).replace(data={"source": str(source), **task.settings})
    return kdsearch.search(
        space, name=name, runs_dir=runs, resume=(runs / name).exists(), progress=False
    )


def _row(task: Task, run: Run) -> dict[str, object]:
    verdict = run.verdict
    chosen = verdict["chosen"]
    by_name = {found["name"]: found for found in verdict["configurations"]}
    control = f"control-of-{chosen}"
    # Chosen on validation, as everything is.
    baseline = max(verdict["baselines"], key=lambda found: float(found["val_auc"]))
    against = {d["against"]: d for d in verdict["differences"] if d["of"] == chosen}
    test = run.teacher["metrics"]["test"]
    return {
        "task": task.name,
        "n_test": test["n"],
        "n_abnormal": test["n_abnormal"],
        "teacher": test["roc_auc"],
        "distilled": float(np.mean(by_name[chosen]["test_auc"])),
        "distilled_sd": float(np.std(by_name[chosen]["test_auc"], ddof=1)),
        "plain": float(np.mean(by_name[control]["test_auc"])),
        "plain_sd": float(np.std(by_name[control]["test_auc"], ddof=1)),
        **_interval("less_plain", against[control]),
        "baseline": baseline["name"],
        "baseline_auc": baseline["test_auc"],
        **_interval("less_baseline", against[baseline["name"]]),
    }


def _interval(name: str, difference: dict[str, Any]) -> dict[str, object]:
    ends = (difference["estimate"], difference["low"], difference["high"])
    keys = (name, f"{name}_low", f"{name}_high")
    return {key: "" if end is None else end for key, end in zip(keys, ends, strict=True)}


if __name__ == "__main__":
    main()
