"""The published recipe at a small budget: what each distillation target does to a BeatGAN.

    python -m experiments.published --data path/to/mitdb

Fold 0 of MIT-BIH, one lead; width 16 instead of 32, 6,000 of the 62,437 training beats and 8
epochs instead of 100, so figures are to be compared with each other and not with published
ones. Seeds that stand in the table already are not trained again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import numpy as np
import torch

from experiments.table import Table, add_data, dataset_of
from kdsearch.beatgan.method import BeatGan
from kdsearch.beatgan.settings import StudentSettings, TeacherSettings
from kdsearch.data import Dataset
from kdsearch.data.beats import FloatArray
from kdsearch.method import Compute, EpochReport, Stack, State, Targets
from kdsearch.metrics import evaluate

TRAINED, VALIDATED = 6000, 4000
WIDTH, EPOCHS, LR = 16, 8, 2e-4
SEEDS = range(1, 6)
COMPUTE = Compute("cpu", "bf16")
METHOD = BeatGan()

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


def main() -> None:
    """Train what is missing in the table, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = add_data(parser).parse_args()
    torch.set_num_threads(1)
    table = Table("published.csv", ("recipe", "seed"))
    dataset = dataset_of(options, train_limit=TRAINED, validation_limit=VALIDATED)
    settings = TeacherSettings(width=WIDTH, epochs=EPOCHS, lr=LR, seed=0)
    stack = METHOD.teacher_stack(settings, dataset.training, COMPUTE)
    stack.put_in(0, settings, seed=0)
    _, teacher, row = _train(stack, EPOCHS, dataset)
    table.add({"recipe": "teacher", "seed": 0, **row})
    taught: Targets = {}
    neighbours: Targets = {}
    for seed in SEEDS:
        for name, chosen in RECIPES.items():
            if table.has(name, seed):
                continue
            if not taught:
                kinds = [StudentSettings.model_validate(r) for r in RECIPES.values()]
                taught = METHOD.targets(teacher, kinds, dataset.training, COMPUTE)
                memory = dataset_of(options).training.train
                neighbours = {"score": neighbour_scores(dataset.training.train, memory)}
            row = _student(
                dataset,
                StudentSettings.model_validate(
                    {"width": WIDTH, "epochs": EPOCHS, "lr": LR, **chosen}
                ),
                seed=seed,
                teacher=teacher,
                targets=neighbours if "neighbours" in name else taught,
            )
            table.add({"recipe": name, "seed": seed, **row})


def _student(
    dataset: Dataset, settings: StudentSettings, *, seed: int, teacher: State, targets: Targets
) -> dict[str, object]:
    stack = METHOD.student_stack(
        settings,
        1,
        data=dataset.training,
        teacher=teacher,
        targets=targets,
        compute=COMPUTE,
    )
    stack.put_in(0, settings, seed=seed)
    return _train(stack, settings.epochs, dataset)[2]


def _train(
    stack: Stack, epochs: int, dataset: Dataset
) -> tuple[EpochReport, State, dict[str, object]]:
    """Best epoch by validation AUC, its weights, and its row of the table."""
    start, best, weights = time.perf_counter(), None, None
    for _ in range(epochs):
        report = stack.advance()[0]
        if isinstance(report, Exception):
            raise report
        if best is None or report.val_auc > best.val_auc:
            best, weights = report, stack.weights(0)
    assert best is not None
    assert weights is not None
    test = evaluate(METHOD.score(weights, dataset.test.x, COMPUTE), dataset.test.classes)
    return (
        best,
        weights,
        {
            "best_epoch": best.epoch,
            "val_auc": best.val_auc,
            "test_auc": test.roc_auc,
            "test_ap": test.average_precision,
            "last_val_auc": report.val_auc,
            "last_distillation_loss": report.losses.get("distillation", 0.0),
            "weights_sum": _checksum(stack.weights(0)["generator"]),
            "seconds": time.perf_counter() - start,
        },
    )


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
