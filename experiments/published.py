"""The published recipe: what each distillation target does to a BeatGAN.

    python -m experiments.published --data path/to/mitdb
    python -m experiments.published --data path/to/mitdb --budget width-32

Fold 0 of MIT-BIH, one lead. The budget ``reduced`` has width 16 instead of 32, 6,000 of the
62,437 training beats and 8 epochs instead of 100, so that its figures are to be compared with
each other and not with published ones. ``width-32`` is the published network on all training
beats with the published learning rate, for 8 epochs. What stands in the table is not trained
again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from experiments.table import Table, add_data, dataset_of
from kdsearch.data import Dataset
from kdsearch.data.beats import FloatArray
from kdsearch.methods.beatgan.method import BeatGan
from kdsearch.methods.beatgan.scoring import error_weights, load_generator
from kdsearch.methods.beatgan.settings import Score, StudentSettings, TeacherSettings
from kdsearch.methods.protocol import Compute, Stack, State, Targets, Task
from kdsearch.metrics.ranking import evaluate, rank


@dataclass(frozen=True)
class Budget:
    """How much is trained; the limits are numbers of beats, None for all."""

    width: int
    lr: float
    train_limit: int | None
    validation_limit: int | None
    seeds: int
    recipes: tuple[str, ...]
    epochs: int = 8


COMPUTE = Compute("cpu", "bf16")
METHOD = BeatGan()
SCORES: tuple[Score, ...] = ("plain", "relative", "mahalanobis")

# Temperature and weight of the published form are its own; those of all others are untuned:
# one plain choice each, the same for all seeds.
RECIPES: dict[str, dict[str, object]] = {
    "no distillation": {"target": "none", "alpha": 0},
    "published (DistillKL)": {"target": "published", "alpha": 0.1, "temperature": 4},
    "score KL": {"target": "score", "alpha": 1},
    "score KL, taught by nearest neighbours": {"target": "score", "alpha": 1},
    "reconstruction": {"target": "reconstruction", "alpha": 1},
    "attention": {"target": "attention", "alpha": 1},
    "no distillation, from the teacher's weights": {
        "target": "none",
        "alpha": 0,
        "init": "teacher",
    },
    "score KL, nearest neighbours, from the teacher's weights": {
        "target": "score",
        "alpha": 1,
        "init": "teacher",
    },
}

BUDGETS = {
    "reduced": Budget(16, 2e-4, 6000, 4000, seeds=5, recipes=tuple(RECIPES)),
    "width-32": Budget(
        32,
        1e-4,
        None,
        None,
        seeds=3,
        recipes=("no distillation", "score KL, taught by nearest neighbours"),
    ),
}


def main() -> None:
    """Train what is missing in the table, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data(parser).add_argument("--budget", choices=BUDGETS, default="reduced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = BUDGETS[options.budget]
    table = Table("published.csv", ("budget", "recipe", "seed", "score"))
    dataset = dataset_of(
        options, train_limit=budget.train_limit, validation_limit=budget.validation_limit
    )
    missing = [
        (seed, name)
        for seed in range(1, budget.seeds + 1)
        for name in budget.recipes
        if not table.has(options.budget, name, seed, "plain")
    ]
    teacher: State = {}
    taught: Targets = {}
    # Some need no teacher, which takes as long as any student.
    if any(_asks_teacher(name) for _, name in missing):
        trained = _teacher(budget, dataset)
        teacher = trained.weights
        for row in trained.rows:
            table.add({"budget": options.budget, "recipe": "teacher", "seed": 0, **row})
        kinds = [StudentSettings.model_validate(RECIPES[name]) for _, name in missing]
        taught = METHOD.targets(kinds, Task(dataset.training, COMPUTE, teacher))
    memory = dataset_of(options).training.train
    neighbours = {"score": neighbour_scores(dataset.training.train, memory)}
    for seed, name in missing:
        trained = _student(
            dataset,
            StudentSettings.model_validate(
                {
                    "width": budget.width,
                    "epochs": budget.epochs,
                    "lr": budget.lr,
                    **RECIPES[name],
                }
            ),
            seed=seed,
            teacher=teacher,
            targets=neighbours if "neighbours" in name else taught,
        )
        for row in trained.rows:
            table.add({"budget": options.budget, "recipe": name, "seed": seed, **row})


def _asks_teacher(name: str) -> bool:
    own = RECIPES[name]
    learns = own["target"] not in ("none", "published") and "neighbours" not in name
    return learns or own.get("init") == "teacher"


def _teacher(budget: Budget, dataset: Dataset) -> Trained:
    settings = TeacherSettings(width=budget.width, epochs=budget.epochs, lr=budget.lr, seed=0)
    stack = METHOD.teacher_stack(settings, Task(dataset.training, COMPUTE))
    stack.put_in(0, settings, seed=0)
    return _train(stack, budget.epochs, dataset)


def _student(
    dataset: Dataset, settings: StudentSettings, *, seed: int, teacher: State, targets: Targets
) -> Trained:
    task = Task(dataset.training, COMPUTE, teacher, targets)
    stack = METHOD.student_stack(settings, 1, task)
    stack.put_in(0, settings, seed=seed)
    return _train(stack, settings.epochs, dataset)


@dataclass
class Best:
    """The best epoch by the validation AUC of one score."""

    epoch: int = 0
    val_auc: float = -1.0
    weights: State = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """One training, judged by all scores, which change nothing of it.

    Attributes:
        weights: Of the best epoch by the plain score.
        rows: Of the table.
    """

    weights: State
    rows: list[dict[str, object]]


def _train(stack: Stack, epochs: int, dataset: Dataset) -> Trained:
    start, best = time.perf_counter(), {score: Best() for score in SCORES}
    validation = dataset.training.validation
    for epoch in range(1, epochs + 1):
        report = stack.advance()[0]
        state, last = stack.weights(0), {}
        for score in SCORES:
            weights = _scored_by(score, state, dataset)
            scores = METHOD.score(weights, validation.x, COMPUTE)
            last[score] = rank(scores, validation.abnormal).roc_auc()
            if last[score] > best[score].val_auc:
                best[score] = Best(epoch, last[score], weights)
    rows: list[dict[str, object]] = []
    for score, found in best.items():
        test = evaluate(
            METHOD.score(found.weights, dataset.test.x, COMPUTE), dataset.test.classes
        )
        rows.append(
            {
                "score": score,
                "best_epoch": found.epoch,
                "val_auc": found.val_auc,
                "test_auc": test.roc_auc,
                "test_ap": test.average_precision,
                "last_val_auc": last[score],
                "last_distillation_loss": report.losses.get("distillation", 0.0),
                "weights_sum": _checksum(state["generator"]),
                "seconds": time.perf_counter() - start,
            }
        )
    return Trained(best["plain"].weights, rows)


def _scored_by(score: Score, weights: State, dataset: Dataset) -> State:
    """The same network with another score."""
    generator = load_generator(weights, COMPUTE)
    train = torch.from_numpy(dataset.training.train)
    found = error_weights(score, generator, train)
    return weights if found is None else {**weights, "error_weights": found[0]}


def _checksum(values: Mapping[str, torch.Tensor]) -> float:
    """Sum of all values' sizes: two networks that differ anywhere differ here."""
    return float(sum(value.double().abs().sum() for value in values.values()))


def neighbour_scores(x: FloatArray, memory: FloatArray) -> FloatArray:
    """Mean distance of training beats to 5 neighbours on PCA 40, themselves left out."""
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

    rows, among = x.reshape(len(x), -1), memory.reshape(len(memory), -1)
    pca = PCA(n_components=40, svd_solver="covariance_eigh").fit(among)
    search = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(pca.transform(among))
    found = search.kneighbors(pca.transform(rows))[0]
    return np.asarray(found[:, 1:].mean(axis=1), dtype=np.float32)


if __name__ == "__main__":
    main()
