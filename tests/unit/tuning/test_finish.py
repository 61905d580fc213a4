"""What is written at the end of a search, from trials that are there already."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beatgan_cases import identical
from search_cases import CPU, report, space_file, tiny_dataset
from watched import PARAMS, trial

from kdsearch.config.space_file import Config, SchedulerSettings, parse_config
from kdsearch.evaluation.finalists import read_evaluation
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.progress import PROGRESS
from kdsearch.methods.protocol import Task
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.threshold import parse_rule
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.student.student import load_student
from kdsearch.tuning.finish import _best_weights, missing_results, write_results
from kdsearch.tuning.teacher import Teacher
from kdsearch.tuning.workers.training import Trainer
from kdsearch.tuning.workers.trial import TrialInputs, student_stack, training_of


def finish(run: Path, threshold: Any) -> Config:
    """A run of one trial whose weights were not kept, brought to its end."""
    small = {"width": 2, "latent": 3, "batch_size": 8, "epochs": 2}
    plain = space_file(
        teacher=small, student={**small, "target": "none"}, search={"num_samples": 1}
    )
    config = parse_config({**plain, "confirm": {"top": 0}, "threshold": threshold}, "kd.yaml")
    dataset = tiny_dataset()
    stack = config.method.teacher_stack(config.teacher, Task(dataset.training, CPU))
    stack.put_in(0, config.teacher, seed=0)
    history = [replace(report(1), val_auc=0.75)]
    teacher = Teacher("t" * 64, stack.weights(0), history, found=True)
    inputs = TrialInputs(config, run, "", Task(dataset.training, CPU, teacher.weights), 1)
    params = {"temperature": 1.0, "alpha": 0.5, "w_adv": 1.0}
    record = TrialRecord(0, "completed", params, {1: 0.5, 2: 0.75})
    folder = RunFolder(run)
    folder.write_config(config.as_dict(), {})
    write_results(folder, [record], [], dataset, teacher, inputs, lambda text: None)
    return config


@pytest.mark.parametrize("rule", ["f1", {"sensitivity": 1.0}, {"specificity": 0.75}, 0.25])
def test_the_threshold_is_chosen_by_the_rule(tmp_path: Path, rule: Any):
    run = tmp_path / "kd"
    config = finish(run, rule)
    folder, student = RunFolder(run), load_student(run)
    metrics = json.loads((run / "best/metrics.json").read_text())
    assert metrics["threshold_rule"] == rule
    validation = tiny_dataset().training.validation
    ranking = rank(student.score_prepared(validation.x), validation.abnormal)
    expected = parse_rule(rule).threshold(ranking)
    assert student.threshold == pytest.approx(expected)
    for part in ("validation", "test"):
        assert metrics["student"][part]["confusion"]["threshold"] == student.threshold
    assert student.at(rule).threshold == student.threshold, "from its own validation scores"
    with np.load(run / "evaluation.npz") as arrays:
        assert arrays["student_threshold"] == student.threshold
    assert missing_results(folder, config, config.trials, confirmed=False) == []


def test_reconstructions_over_the_epochs_are_for_the_report_alone(tmp_path: Path):
    run = tmp_path / "kd"
    finish(run, "f1")
    evaluation = read_evaluation(RunFolder(run))
    assert evaluation is not None
    progress = evaluation.progress
    assert progress is not None
    assert progress.epochs.tolist() == [1, 2]
    student = load_student(run)
    assert PROGRESS not in student.weights
    now = BeatGan().reconstruct(student.weights, progress.x, CPU)
    np.testing.assert_allclose(progress.student[-1], now, atol=1e-6)
    assert not np.allclose(progress.student[0], now)
    assert PROGRESS in RunFolder(run).trial(0).best_weights()


def test_another_rule_makes_the_results_again(tmp_path: Path):
    run = tmp_path / "kd"
    config = finish(run, "f1")
    other = replace(config, threshold=parse_rule({"sensitivity": 0.9}))
    assert missing_results(RunFolder(run), other, other.trials, confirmed=False) == [
        "best/metrics.json"
    ]
    (run / "best/validation.npz").unlink()
    assert missing_results(RunFolder(run), config, config.trials, confirmed=False) == ["best"]


@pytest.mark.parametrize("reports", [1, 2, 3, 4, 5], ids=["0.3", "0.5", "1", "1.5", "2"])
def test_lost_weights_of_an_epoch_or_a_part_of_one_are_trained_again(
    inputs: TrialInputs, reports: int
):
    scheduler = SchedulerSettings(grace_period=0.3, reduction_factor=2)
    search = inputs.config.search.model_copy(update={"validations_per_epoch": 2})
    config = replace(inputs.config, scheduler=scheduler, search=search)
    inputs = replace(inputs, config=config)
    training = training_of(trial(0), inputs)
    stack = student_stack(training.settings, 1, inputs)
    training.enter(stack, 0)
    trainer = Trainer(inputs.task.data.validation, 1, behind=False)
    for _ in range(reports):
        assert trainer.advance(stack, [training]) == {}
    last = training.history[-1]
    best = TrialRecord(0, "stopped", PARAMS, {last.epoch: last.val_auc})
    training.folder.reduce(keep_weights=False)
    said: list[str] = []
    found = _best_weights(RunFolder(inputs.run), best, inputs, said.append)
    assert identical(found, stack.weights(0))
    assert len(said) == 1, "its val_auc is what it was"
    assert said[0].endswith(f"trial 0 is trained again up to epoch {last.epoch:g}")
