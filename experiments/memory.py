"""Memories of normal beats and the students that learn from them, on MIT-BIH.

    python -m experiments.memory --data path/to/mitdb --scores FOLDER

One lead; the published split, new patients, and new patients whose beats come with their
context (`kdsearch.data.context`). Of the memories the one with the best validation AUC teaches;
every student is judged by its last epoch, so that validation chooses between recipes and
nothing else. Rows that stand in the tables already are not measured again; test scores of what
is compared go to FOLDER.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from experiments.table import Table, add_data, dataset_of
from kdsearch.data import Dataset
from kdsearch.data.beats import FloatArray, TrainingData
from kdsearch.evaluation.costs import measure
from kdsearch.methods.memory import Memory, distortions
from kdsearch.methods.memory.method import SEED
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.stack import DISTORTED, DISTORTED_SCORES, OWN, teach
from kdsearch.methods.protocol import Compute, State, Targets, Task
from kdsearch.metrics.ranking import evaluate

SPLITS: dict[str, dict[str, str]] = {
    "fold": {"split": "fold"},
    "inter_patient": {"split": "inter_patient"},
    "context": {"split": "inter_patient", "context": "patient"},
}
COMPUTE = Compute("cpu", "bf16")
METHOD = Memory()

# One thing more in each row.
PLAIN = {"view": "range", "components": 40, "density": 0, "weight_before": 1, "weight_after": 1}
MEMORIES: dict[str, dict[str, object]] = {
    "nearest neighbour, 40 components": PLAIN,
    "20 components": {**PLAIN, "components": 20},
    "20 components, density 0.4": {**PLAIN, "components": 20, "density": 0.4},
    "20 components, density 0.4, both views": {
        **PLAIN,
        "components": 20,
        "density": 0.4,
        "view": "both",
    },
    "20 components, density 0.4, both views, samples weighted 1.5 : 1 : 0.7": {},
    "20 components, 15 neighbours, samples weighted 4 : 1 : 1": {
        **PLAIN,
        "components": 20,
        "neighbours": 15,
        "weight_before": 4,
    },
}
PATIENT = {
    **PLAIN,
    "view": "patient",
    "components": 20,
    "neighbours": 15,
    "weight_rhythm": 0,
}
WITH_CONTEXT: dict[str, dict[str, object]] = {
    "difference from the patient's own beat": PATIENT,
    "difference and rhythm": {**PATIENT, "weight_rhythm": 0.35},
    "difference and rhythm, samples weighted 1.5 : 1 : 0.7": {
        **PATIENT,
        "weight_rhythm": 0.35,
        "weight_before": 1.5,
        "weight_after": 0.7,
    },
}
NORMAL_ONLY = "taught alone, on normal beats only"
# The first is the default; the others change one thing each.
RECIPES: dict[str, dict[str, object]] = {
    "taught, and normal against distorted": {},
    "not taught: normal against distorted alone": {"alpha": 0},
    "taught alone": {"w_contrast": 0},
    "taught alone, width 64": {"w_contrast": 0, "width": 64},
    "width 64": {"width": 64},
    "width 512": {"width": 512},
    NORMAL_ONLY: {"w_contrast": 0},
}
# These in every split; their test scores are kept.
MAIN = tuple(RECIPES)[:3]
FURTHER = {
    "fold": ("width 64", "width 512", NORMAL_ONLY),
    "inter_patient": ("width 64", "width 512", NORMAL_ONLY),
    "context": ("taught alone, width 64",),
}
SEEDS = range(1, 4)


def memories(split: str) -> dict[str, dict[str, object]]:
    """What may teach."""
    return WITH_CONTEXT if split == "context" else MEMORIES


@dataclass(frozen=True)
class Lessons:
    """What recipes learn from, made when the first of them asks.

    Attributes:
        teacher: The memory.
        train: The beats that it remembers.
        context: Whether they come with their context.
    """

    teacher: State
    train: FloatArray
    context: bool

    def of(self, name: str, made: dict[bool, Targets]) -> Targets:
        """The targets of one recipe."""
        normal_only = name == NORMAL_ONLY
        if normal_only not in made:
            # One set at a time: they are large.
            made.clear()
            made[normal_only] = self._of_normal() if normal_only else self._of_distorted()
        return made[normal_only]

    def _of_distorted(self) -> Targets:
        rng = np.random.default_rng(SEED)
        made = [
            distortions.distort(self.train, rng, context=self.context)
            for _ in range(StudentSettings().distorted)
        ]
        return teach(self.teacher, np.concatenate(made))

    def _of_normal(self) -> Targets:
        rounds = StudentSettings().distorted
        own = teach(self.teacher, self.train[:1])[OWN]
        return {
            OWN: own,
            DISTORTED: np.concatenate([self.train] * rounds),
            DISTORTED_SCORES: np.concatenate([own] * rounds),
        }


def main() -> None:
    """Measure what is missing in the tables."""
    parser = add_data(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--scores", type=Path, required=True, help="a folder for test scores")
    parser.add_argument("--split", choices=SPLITS, action="append", help="all by default")
    options = parser.parse_args()
    options.scores.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for split in options.split or SPLITS:
        dataset = dataset_of(options, **SPLITS[split])
        teacher = _memories(split, dataset, options.scores)
        _students(split, dataset, teacher, options.scores)


def _memories(split: str, dataset: Dataset, scores: Path) -> State:
    """Measure all memories; the best by validation AUC."""
    table = Table("memories.csv", ("split", "memory"))
    for name, chosen in memories(split).items():
        if table.has(split, name):
            continue
        start = time.perf_counter()
        found = METHOD.score(filled(chosen, dataset), dataset.test.x, COMPUTE)
        np.save(scores / f"{split}-{file_name(name)}.npy", found)
        validated = METHOD.score(
            filled(chosen, dataset), dataset.training.validation.x, COMPUTE
        )
        row = _figures(validated, found, dataset)
        table.add(
            {
                "split": split,
                "memory": name,
                **row,
                "seconds": time.perf_counter() - start,
            }
        )
    rows = [row for row in table.rows if row["split"] == split]
    best = max(rows, key=lambda row: float(row["val_auc"]))["memory"]
    return filled(memories(split)[best], dataset)


def filled(chosen: Mapping[str, object], dataset: Dataset) -> State:
    """The memory of the training beats; the last one is kept."""
    key = (dataset.fingerprint, str(chosen))
    if key not in _MADE:
        _MADE.clear()
        settings = TeacherSettings.model_validate(chosen)
        stack = METHOD.teacher_stack(settings, Task(dataset.training, COMPUTE))
        stack.put_in(0, settings, seed=0)
        stack.advance()
        _MADE[key] = stack.weights(0)
    return _MADE[key]


_MADE: dict[tuple[str, str], State] = {}


def _students(split: str, dataset: Dataset, teacher: State, scores: Path) -> None:
    table = Table("students.csv", ("split", "recipe", "seed"))
    lessons = Lessons(teacher, dataset.training.train, dataset.training.context)
    made: dict[bool, Targets] = {}
    for name, seed in product((*MAIN, *FURTHER[split]), SEEDS):
        if table.has(split, name, seed):
            continue
        settings = StudentSettings.model_validate(RECIPES[name])
        start = time.perf_counter()
        weights = trained(settings, seed, dataset.training, teacher, lessons.of(name, made))
        seconds = time.perf_counter() - start
        found = METHOD.score(weights, dataset.test.x, COMPUTE)
        if name in MAIN:
            np.save(scores / f"{split}-{file_name(name)}-{seed}.npy", found)
        validated = METHOD.score(weights, dataset.training.validation.x, COMPUTE)
        _, leads, length = dataset.test.x.shape
        cost = measure(METHOD, weights, leads, length)
        table.add(
            {
                "split": split,
                "recipe": name,
                "seed": seed,
                "parameters": cost.parameters,
                "operations": cost.operations,
                **_figures(validated, found, dataset),
                "seconds": seconds,
            }
        )


def trained(
    settings: StudentSettings, seed: int, data: TrainingData, teacher: State, targets: Targets
) -> State:
    """A student after its last epoch."""
    task = Task(data, COMPUTE, teacher, targets)
    stack = METHOD.student_stack(settings, 1, task)
    stack.put_in(0, settings, seed=seed)
    for _ in range(settings.epochs):
        stack.advance()
    return stack.weights(0)


def _figures(validated: FloatArray, found: FloatArray, dataset: Dataset) -> dict[str, object]:
    validation = evaluate(validated, dataset.training.validation.classes)
    test = evaluate(found, dataset.test.classes)
    classes = {f"test_auc_{c}": test.classes[c].roc_auc for c in "SVFQ"}
    return {
        "val_auc": validation.roc_auc,
        "val_ap": validation.average_precision,
        "test_auc": test.roc_auc,
        "test_ap": test.average_precision,
        **classes,
    }


def file_name(name: str) -> str:
    """The name of a memory or a recipe, as one of files."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


if __name__ == "__main__":
    main()
