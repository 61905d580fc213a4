"""Space files, trials and beats that the tests of the harness share."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kdsearch.config.dimensions import Choice, Dimension, Float, Integer
from kdsearch.data.beats import Dataset, LabelledBeats, TrainingData, normalise
from kdsearch.files.atomic import write_text
from kdsearch.methods.beatgan.settings import TeacherSettings
from kdsearch.methods.protocol import Compute, EpochReport, State
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialFolder, TrialRecord

CPU = Compute("cpu", "fp32")

SPACE: dict[str, Dimension] = {
    "temperature": Float(0.25, 8, log=True),
    "w_adv": Float(0.5, 5),
    "epochs": Integer(1, 9),
    "target": Choice(("score", "attention")),
}


def space_file(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """A small space file as plain values, with some keys of some sections replaced."""
    plain: dict[str, Any] = {
        "data": {"source": "simulated", "train_limit": 100, "validation_limit": 60},
        "teacher": {"width": 2, "latent": 4, "epochs": 2},
        "student": {"width": 2, "latent": 4, "epochs": 9},
        "space": {
            "temperature": {"loguniform": [0.25, 8]},
            "alpha": {"loguniform": [0.001, 3]},
            "w_adv": {"uniform": [0.5, 5]},
            "lr": 0.001,
        },
        "search": {"num_samples": 4},
        "scheduler": {"grace_period": 1, "reduction_factor": 3},
    }
    for section, replaced in copy.deepcopy(changes).items():
        plain[section] = {**plain.get(section, {}), **replaced}
    return plain


def write_space(folder: Path, **changes: Mapping[str, Any]) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space_file(**changes), sort_keys=False))
    return path


def report(epoch: int, val_auc: float = 0.75) -> EpochReport:
    return EpochReport(epoch, {"reconstruction": 0.5 / epoch}, 0.25, val_auc, val_auc / 2)


def write_trial(folder: RunFolder, record: TrialRecord) -> TrialFolder:
    """Write a trial as a search does, its weights and checkpoint left out."""
    trial = folder.trial(record.number)
    trial.path.mkdir(parents=True)
    lines = [report(epoch, auc) for epoch, auc in record.curve.items()]
    text = "".join(json.dumps(vars(line)) + "\n" for line in lines)
    if text:
        (trial.path / "metrics.jsonl").write_text(text)
    trial.write_record(replace(record, seconds=sum(line.seconds for line in lines)))
    return trial


def write_report(
    trial: TrialFolder,
    report: EpochReport,
    history: list[EpochReport],
    state: State,
    best: State | None,
) -> None:
    """Write what a worker writes of a report, in its order: with weights if it is the best."""
    trial.write_history([*history, report])
    if best is not None:
        trial.write_best(best)
    trial.write_checkpoint(len(history) + 1, state)


def waves(n: int, seed: int) -> np.ndarray:
    """Noisy waves of random phase, shape (n, 1, 32)."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2, size=(n, 1, 1))
    wave = np.sin(np.linspace(0, 6, 32) + phase) + 0.1 * rng.normal(size=(n, 1, 32))
    return normalise(wave.astype(np.float32))


def tiny_dataset(fingerprint: str = "f" * 64, seed: int = 0) -> Dataset:
    """Waves, and noise for the abnormal ones."""
    abnormal = np.arange(12) % 3 == 0
    x = waves(12, seed + 1)
    noise = np.random.default_rng(seed).normal(size=x[abnormal].shape).astype(np.float32)
    x[abnormal] = normalise(noise)
    beats = LabelledBeats(x, abnormal, np.where(abnormal, "V", "N"), None)
    training = TrainingData(waves(24, seed + 2), beats)
    return Dataset(training, beats, fingerprint, "made-up waves", simulated=True, length=32)


def tiny_teacher(**changes: object) -> TeacherSettings:
    small = {"width": 2, "latent": 3, "batch_size": 8, "epochs": 3, "lr": 1e-3}
    return TeacherSettings.model_validate({**small, **changes})


def new_driver(folder: RunFolder) -> str:
    """Return the token of a new driver, after which earlier ones may not write."""
    token = uuid.uuid4().hex
    write_text(folder.path / ".generation", token)
    return token
