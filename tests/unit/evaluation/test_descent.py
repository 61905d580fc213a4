"""The line of descent: which generation is the result, and what it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from search_cases import tiny_dataset

from kdsearch.data.beats import Dataset
from kdsearch.evaluation.descent import (
    CONTROL,
    FIRST_TEACHER,
    Generation,
    describe_descent,
    is_better,
    read_generation,
)
from kdsearch.evaluation.finalists import Answers, evaluate_run
from kdsearch.evaluation.verdict import conclude
from kdsearch.metrics.ranking import Metric
from kdsearch.metrics.threshold import Rule
from kdsearch.runs.folder import RunFolder

SEEDS = [11, 12]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


def scores(dataset: Dataset, strength: float, seed: int) -> np.ndarray:
    """Noise, and so much more for abnormal beats."""
    noise = np.random.default_rng(seed).normal(size=len(dataset.test.x))
    return (noise + strength * dataset.test.abnormal).astype(np.float32)


def finished(
    parent: RunFolder,
    number: int,
    strength: float,
    dataset: Dataset,
    *,
    diverged: int = 0,
    metric: Metric = "val_auc",
) -> Generation:
    """A search whose students with new seeds are as good as ``strength`` makes them.

    Args:
        diverged: The seed of a student whose training diverged.
    """
    folder = parent.generation_folder(number)
    roles = {"trial-1": "candidate", "control-of-trial-1": "control"}
    for name, how_good in (("trial-1", strength), ("control-of-trial-1", 0.0)):
        for seed in SEEDS:
            confirmation = folder.confirmation(name, seed)
            if name == "trial-1" and seed == diverged:
                confirmation.write_result({"reason": "generator is nan in epoch 1"})
                continue
            found = scores(dataset, how_good, seed)
            confirmation.write_scores({"validation": found, "test": found})
            confirmation.write_result({"best_epoch": 2, "epochs": 3, "seconds": 1.5})
    teacher = scores(dataset, 0.5, 1)
    answers = Answers(teacher, teacher, lambda x: None)
    folder.write_verdict(conclude(folder, roles, SEEDS, dataset, {}, teacher=answers))
    evaluate_run(dataset=dataset, folder=folder, trial=1, epoch=1, student=answers,
                 teacher=answers, rule=Rule())  # fmt: skip
    folder.write_best({}, {}, {"trial": 1}, {})
    return read_generation(folder, number, SEEDS, dataset, metric)


def test_the_result_is_the_last_generation_that_was_better(
    dataset: Dataset, tmp_path: Path
) -> None:
    parent = RunFolder(tmp_path)
    line = [finished(parent, n + 1, s, dataset) for n, s in enumerate([0.5, 3.0, 1.0])]
    assert is_better(line[1], line[0])
    assert not is_better(line[2], line[1])
    descent = describe_descent(line, SEEDS, dataset, planned=3)
    assert descent["result"] == 2
    assert "Generation 3 is not better than generation 2 on validation" in descent["ended"]
    compared = [(d["of"], d["against"]) for d in descent["differences"]]
    assert compared == [
        ("generation 2", FIRST_TEACHER),
        ("generation 2", "generation 1"),
        ("generation 2", CONTROL),
    ]
    assert [d["of"] for d in descent["against_first_teacher"]] == [
        "generation 1",
        "generation 2",
        "generation 3",
    ]
    test_auc = [one["test_auc"] for one in descent["generations"]]
    expected = test_auc[1] - test_auc[0]
    assert descent["differences"][1]["estimate"] == pytest.approx(expected)
    parent.write_descent(descent, line[1].folder)
    assert parent.read_derived(parent.descent_file) == descent
    assert (parent.best / "metrics.json").read_bytes() == (
        line[1].folder.best / "metrics.json"
    ).read_bytes()


def test_the_line_says_by_which_metric_it_ended(dataset: Dataset, tmp_path: Path) -> None:
    parent = RunFolder(tmp_path)
    line = [finished(parent, 1, 3.0, dataset, metric="val_ap")]
    line.append(finished(parent, 2, 1.0, dataset, metric="val_ap"))
    descent = describe_descent(line, SEEDS, dataset, planned=3)
    means = [one["val_ap"] for one in descent["generations"]]
    assert means[1] < means[0]
    assert f"(mean AP {means[1]:.4f} against {means[0]:.4f})" in descent["ended"]


def test_the_first_generation_alone_is_the_result(dataset: Dataset, tmp_path: Path) -> None:
    line = [finished(RunFolder(tmp_path), 1, 1.0, dataset)]
    descent = describe_descent(line, SEEDS, dataset, planned=3)
    assert descent["result"] == 1
    assert descent["ended"] == "2 of 3 generations are left."
    assert [d["against"] for d in descent["differences"]] == [FIRST_TEACHER, CONTROL]


@pytest.mark.parametrize("diverged", SEEDS)
def test_a_generation_has_all_seeds_that_were_trained(
    diverged: int, dataset: Dataset, tmp_path: Path
) -> None:
    generation = finished(RunFolder(tmp_path), 1, 1.0, dataset, diverged=diverged)
    assert set(generation.student.seeds) == set(SEEDS) - {diverged}
    assert generation.student.reason == "generator is nan in epoch 1"
    assert generation.control is not None
    assert set(generation.control.seeds) == set(SEEDS)
    assert generation.value > 0.5
