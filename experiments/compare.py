"""Intervals, and where the students fail, from the test scores that `memory.py` has kept.

    python -m experiments.compare --data path/to/mitdb --scores FOLDER

Writes `comparisons.csv`, `records.csv` and a picture of S beats that are missed and found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.memory import (
    MAIN,
    MEMORIES,
    METHOD,
    RECIPES,
    SEEDS,
    SPLITS,
    WITH_CONTEXT,
    file_name,
    filled,
    memories,
)
from experiments.table import RESULTS, Table, add_data, dataset_of
from kdsearch.data import Dataset
from kdsearch.data.beats import FloatArray
from kdsearch.evaluation.costs import measure
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import StudentSettings
from kdsearch.methods.beatgan.stack import BeatGanStack
from kdsearch.methods.protocol import Compute, Exporting, State, Task
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import compare

MISSED, FOUND = 4, 4


def main() -> None:
    """Compare what has been scored."""
    parser = add_data(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--scores", type=Path, required=True, help="of memory.py")
    options = parser.parse_args()
    for split in SPLITS:
        dataset = dataset_of(options, **SPLITS[split])
        _costs(split, dataset)
        student = chosen(split, "students.csv", "recipe")
        memory = chosen(split, "memories.csv", "memory")
        scores = Scores(options.scores, split)
        _comparisons(split, dataset, scores, student=student, memory=memory)
        _records(split, dataset, scores.of(student))
        if split == "fold":
            _draw(dataset, scores.of(student))


def _costs(split: str, dataset: Dataset) -> None:
    """What a published BeatGAN and the memories that are compared cost."""
    table = Table("costs.csv", ("split", "network"))
    _, leads, length = dataset.test.x.shape
    few = replace(dataset.training, train=dataset.training.train[:64])
    published = StudentSettings(alpha=0)
    stack = BeatGanStack(published, 1, Task(few, Compute()))
    stack.put_in(0, published, seed=0)
    networks: dict[str, tuple[Exporting, State]] = {
        "BeatGAN, width 32": (BeatGan(), stack.weights(0))
    }
    every = memories(split)
    for name in {next(iter(every)): 0, chosen(split, "memories.csv", "memory"): 0}:
        if not table.has(split, name):
            networks[name] = METHOD, filled(every[name], dataset)
    for name, (method, weights) in networks.items():
        cost = measure(method, weights, leads, length)
        row = {"parameters": cost.parameters, "operations": cost.operations}
        table.add({"split": split, "network": name, **row})


def chosen(split: str, table: str, kind: str) -> str:
    """The memory or the recipe with the best validation AUC, over seeds on average.

    Recipes whose scores are not kept, such as other widths, are no candidates.
    """
    rows = [row for row in Table(table, (kind,)).rows if row["split"] == split]
    names = {row[kind] for row in rows} & {*MAIN, *MEMORIES, *WITH_CONTEXT}

    def mean(name: str) -> float:
        return float(np.mean([float(row["val_auc"]) for row in rows if row[kind] == name]))

    return max(sorted(names), key=mean)


class Scores:
    """Test scores of one split."""

    def __init__(self, folder: Path, split: str) -> None:
        """Name them; nothing is read yet."""
        self._folder, self._split = folder, split

    def of(self, name: str, seed: int = 1) -> FloatArray:
        """Of a memory, or of a student of a recipe; shape (n,)."""
        end = f"-{seed}" if name in RECIPES else ""
        found: FloatArray = np.load(self._folder / f"{self._split}-{file_name(name)}{end}.npy")
        return found

    def of_seeds(self, name: str) -> FloatArray:
        """Of the students of a recipe, or of a memory for each of them; shape (seeds, n)."""
        return np.stack([self.of(name, seed) for seed in SEEDS])


def _comparisons(
    split: str, dataset: Dataset, scores: Scores, *, student: str, memory: str
) -> None:
    table = Table("comparisons.csv", ("split", "first", "second"))
    control = MAIN[1]
    first = scores.of_seeds(student)
    for second in ("chance", next(iter(memories(split))), memory, control):
        if table.has(split, student, second) or second == student:
            continue
        other = np.zeros_like(first) if second == "chance" else scores.of_seeds(second)
        found = compare(first, other, dataset.test.abnormal, dataset.test.record)
        table.add(
            {
                "split": split,
                "first": student,
                "second": second,
                "difference": found.difference.estimate,
                "low": found.difference.low,
                "high": found.difference.high,
                "p_value": found.p_value,
            }
        )


def _records(split: str, dataset: Dataset, scores: FloatArray) -> None:
    """S and F beats of each record, against all normal beats and against the record's own."""
    table = Table("records.csv", ("split", "class", "record"))
    test = dataset.test
    assert test.record is not None
    for label, record in _pairs(dataset):
        if table.has(split, label, record):
            continue
        here = (test.record == record) & (test.classes == label)
        normal = test.classes == "N"
        own = normal & (test.record == record)
        table.add(
            {
                "split": split,
                "class": label,
                "record": record,
                "beats": int(here.sum()),
                "auc": _auc(scores, here, normal),
                "own_normals": int(own.sum()),
                "auc_own": _auc(scores, here, own) if own.any() else "",
            }
        )


def _pairs(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """The records with the most beats of a hard class."""
    assert dataset.test.record is not None
    for label in ("S", "F"):
        records, counts = np.unique(
            dataset.test.record[dataset.test.classes == label], return_counts=True
        )
        for index in np.argsort(-counts, kind="stable")[:6]:
            yield label, str(records[index])


def _auc(scores: FloatArray, positive: np.ndarray, negative: np.ndarray) -> float:
    used = positive | negative
    return rank(scores[used], positive[used]).roc_auc()


def _draw(dataset: Dataset, scores: FloatArray) -> None:
    """S beats that score lowest and highest, each over the nearest normal training beat."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    of_class = np.flatnonzero(dataset.test.classes == "S")
    ranked = of_class[np.argsort(scores[of_class], kind="stable")]
    # Every fortieth of them, or one patient's beats alone would be seen.
    rows = [*ranked[: 40 * MISSED : 40], *ranked[::-1][: 40 * FOUND : 40]]
    figure = Figure(figsize=(9, 4), layout="constrained")
    normal_scores = np.sort(scores[dataset.test.classes == "N"])
    milliseconds = (np.arange(dataset.length) - 140) / 360 * 1000
    for place, row in enumerate(rows):
        beat = dataset.test.x[row, 0]
        train = dataset.training.train[:, 0]
        nearest = train[np.argmin(((train - beat) ** 2).sum(axis=1))]
        axes = figure.add_subplot(2, MISSED, place + 1)
        axes.plot(milliseconds, nearest, color="0.6", linewidth=1)
        axes.plot(milliseconds, beat, color="tab:red", linewidth=1)
        share = np.searchsorted(normal_scores, scores[row]) / len(normal_scores)
        assert dataset.test.record is not None
        axes.set_title(f"{dataset.test.record[row]}: above {share:.0%} of N", fontsize=8)
        axes.tick_params(labelsize=6)
        axes.set_yticks([])
    figure.savefig(RESULTS / "s_beats.png", dpi=70, metadata={"Software": None})


if __name__ == "__main__":
    main()
