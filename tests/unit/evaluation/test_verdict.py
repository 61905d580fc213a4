"""The verdict on scores made by hand: chosen on validation, judged on test, nothing hidden."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdsearch.data.beats import Dataset, LabelledBeats, TrainingData
from kdsearch.evaluation.baselines import BaselineScores
from kdsearch.evaluation.verdict import Costs, choose, conclude
from kdsearch.runs.folder import RunFolder

SEEDS = [1, 2, 3]
ROLES = {
    "teacher": "teacher",
    "trial-4": "candidate",
    "control-of-trial-4": "control",
    "trial-9": "candidate",
    "control-of-trial-9": "control",
}


@pytest.fixture
def dataset() -> Dataset:
    """Many beats, of which only the truth about them matters here."""
    abnormal = np.arange(600) % 3 == 0
    x = np.zeros((600, 1, 32), dtype=np.float32)
    beats = LabelledBeats(x, abnormal, np.where(abnormal, "V", "N"), None)
    training = TrainingData(x[~abnormal], beats)
    return Dataset(training, beats, "f" * 64, "made up", simulated=True, length=32)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def scores(beats: LabelledBeats, quality: float, seed: int) -> np.ndarray:
    """Scores that separate the classes the better, the higher the quality."""
    rng = np.random.default_rng(seed)
    return (quality * beats.abnormal + rng.normal(size=len(beats.x))).astype(np.float32)


def train(
    folder: RunFolder, dataset: Dataset, name: str, validation: float, test: float
) -> None:
    for seed in SEEDS:
        place = folder.confirmation(name, seed)
        made = {
            "validation": scores(dataset.training.validation, validation, seed),
            "test": scores(dataset.test, test, seed),
        }
        place.write_scores(made)
        trained = {"best_epoch": 2, "epochs": 3, "seconds": 1.5}
        place.write_result({"name": name, "role": ROLES[name], "seed": seed, **trained})


def baselines(dataset: Dataset) -> dict[str, BaselineScores]:
    made = scores(dataset.training.validation, 9, 0), scores(dataset.test, 9, 0)
    return {"nearest neighbour": BaselineScores(*made, seconds=1.0)}


def train_all(folder: RunFolder, dataset: Dataset) -> None:
    """Trial 9 wins on validation, trial 4 on test."""
    train(folder, dataset, "teacher", 1, 1)
    train(folder, dataset, "trial-4", 1, 8)
    train(folder, dataset, "control-of-trial-4", 1, 1)
    train(folder, dataset, "trial-9", 8, 1)
    train(folder, dataset, "control-of-trial-9", 1, 1)


def test_chosen_on_validation_alone(folder: RunFolder, dataset: Dataset) -> None:
    train_all(folder, dataset)
    verdict = conclude(folder, ROLES, SEEDS, dataset, baselines(dataset))
    assert verdict["chosen"] == "trial-9"
    assert [c["name"] for c in verdict["configurations"]] == list(ROLES)
    json.dumps(verdict, allow_nan=False)


def test_differences_pair_the_seeds(folder: RunFolder, dataset: Dataset) -> None:
    train_all(folder, dataset)
    verdict = conclude(folder, ROLES, SEEDS, dataset, baselines(dataset))
    found = {(d["of"], d["against"]): d for d in verdict["differences"]}
    assert set(found) == {
        ("trial-4", "control-of-trial-4"),
        ("trial-4", "teacher"),
        ("trial-9", "control-of-trial-9"),
        ("trial-9", "teacher"),
        ("trial-9", "nearest neighbour"),
    }
    better = found["trial-4", "control-of-trial-4"]
    assert better["judgement"] == "better"
    assert 0 < better["low"] < better["estimate"] < better["high"] <= 1
    same = found["trial-9", "control-of-trial-9"]
    assert same["estimate"] == 0, "the same scores for the same seeds"
    assert same["judgement"] == "not distinguishable"
    hidden = found["trial-9", "nearest neighbour"]
    assert hidden["judgement"] == "worse", "a baseline that is better is said to be"
    assert hidden["sentence"] in verdict["sentences"]
    assert [p["seed"] for p in hidden["per_seed"]] == SEEDS
    for difference in verdict["differences"]:
        told_apart = difference["judgement"] != "not distinguishable"
        assert told_apart == (difference["p_value"] < 0.05), "one coherent pair"
        assert difference["covers"] == ["seeds", "beats"]


def test_the_interval_covers_patients_where_they_are_known(
    folder: RunFolder, dataset: Dataset
) -> None:
    train_all(folder, dataset)
    record = np.array([f"p{number // 30}" for number in range(600)])
    known = replace(dataset, test=replace(dataset.test, record=record))
    verdict = conclude(folder, ROLES, SEEDS, known, baselines(dataset))
    assert all(d["covers"] == ["seeds", "patients"] for d in verdict["differences"])
    assert (
        "for other seeds and other patients; from 3 seeds and 20 patients"
        in (verdict["sentences"][-1])
    )


def test_a_control_that_is_left_out_says_why(folder: RunFolder, dataset: Dataset) -> None:
    train_all(folder, dataset)
    why = {"control-of-trial-9": "alpha and w_contrast are both 0, so nothing is learned"}
    verdict = conclude(folder, ROLES, SEEDS, dataset, {}, why)
    assert verdict["sentences"][0] == (
        "The student of trial 9 cannot be compared with the same student without distillation: "
        "left out, because alpha and w_contrast are both 0, so nothing is learned."
    )
    (control,) = [c for c in verdict["configurations"] if c["name"] in why]
    assert control["seeds"] == {}
    assert control["reason"].startswith("left out, because alpha")
    assert verdict["differences"][2]["judgement"] == "not distinguishable"


def test_a_diverged_seed_is_left_out_and_named(folder: RunFolder, dataset: Dataset) -> None:
    train_all(folder, dataset)
    folder.confirmation("trial-9", 2).write_result({"reason": "generator is nan in epoch 1"})
    verdict = conclude(folder, ROLES, SEEDS, dataset, {})
    (nine,) = [c for c in verdict["configurations"] if c["name"] == "trial-9"]
    assert list(nine["seeds"]) == ["1", "3"]
    assert nine["reason"] == "generator is nan in epoch 1"
    (difference,) = [
        d for d in verdict["differences"] if (d["of"], d["against"]) == ("trial-9", "teacher")
    ]
    assert [p["seed"] for p in difference["per_seed"]] == [1, 3]


def test_nothing_trained(folder: RunFolder, dataset: Dataset) -> None:
    verdict = conclude(folder, ROLES, SEEDS, dataset, baselines(dataset))
    assert verdict["chosen"] is None
    assert choose([]) is None
    assert all(d["estimate"] is None for d in verdict["differences"])
    json.dumps(verdict, allow_nan=False)


def test_the_smallest_that_is_not_worse_is_named(folder: RunFolder, dataset: Dataset) -> None:
    train_all(folder, dataset)
    sizes = Costs("parameters", {"trial-4": 1_000, "trial-9": 20_000})
    worse = conclude(folder, ROLES, SEEDS, dataset, {}, costs=sizes)
    assert worse["smallest"]["name"] == worse["chosen"] == "trial-9"
    assert worse["sentences"][0] == (
        "No confirmed student with fewer parameters than the best, trial 9 (20,000), "
        "is as good."
    )
    train(folder, dataset, "trial-9", 2, 1)
    for seed in SEEDS:
        beats = dataset.training.validation, dataset.test
        validation, test = (scores(one, 1.9, 100 + seed) for one in beats)
        found = {"validation": validation, "test": test}
        folder.confirmation("trial-4", seed).write_scores(found)
    verdict = conclude(folder, ROLES, SEEDS, dataset, {}, costs=sizes)
    assert verdict["chosen"] == "trial-9"
    assert verdict["smallest"]["name"] == "trial-4"
    assert verdict["smallest"]["low"] <= verdict["smallest"]["estimate"]
    assert verdict["sentences"][0].startswith(
        "The student of trial 4 is the smallest that is not distinguishably worse than the "
        "best, trial 9: 1,000 parameters instead of 20,000; difference in validation AUC "
    )
    folder.write_verdict(verdict)
    assert folder.read_derived(folder.verdict_file) == json.loads(json.dumps(verdict))
