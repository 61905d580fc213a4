"""One trial: a student trained epoch by epoch in a Ray worker."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from ray import tune

from kdsearch.config import Config
from kdsearch.data.beats import TrainingData
from kdsearch.errors import TrialDiverged
from kdsearch.method import Compute, Stack, State, Targets
from kdsearch.run_folder import RunFolder, Superseded, TrialFolder
from kdsearch.tuning.training import Training

# Keys of a result, read by the scheduler and the progress line.
EPOCH, EPOCHS, VAL_AUC, SECONDS = "epoch", "epochs", "val_auc", "seconds"
FAILURE, STORAGE = "failure", "storage"

# The run folder takes no more, which is nothing that another try or another trial can mend.
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a search share; Ray keeps one copy of it on each machine.

    Attributes:
        config: The resolved search.
        run: The run folder, absolute, on storage that every machine sees.
        generation: The driver that these trials belong to.
        threads: Torch threads of a trial.
    """

    config: Config
    run: Path
    generation: int
    data: TrainingData
    teacher: State
    targets: Targets
    compute: Compute
    threads: int


def train_student(trial: dict[str, Any], inputs: TrialInputs) -> None:
    """Train the student that ``trial`` names to its last epoch, or until it is stopped.

    Begins at the trial's checkpoint if there is one, and then reports again what the
    checkpoint holds, since an epoch may have been kept but not reported.

    Args:
        trial: ``number`` in the study and the searched ``params``.
        inputs: What all trials share.
    """
    folder = RunFolder(inputs.run).trial(trial["number"], inputs.generation)
    try:
        _train(trial, inputs, folder)
    except TrialDiverged as diverged:
        tune.report({FAILURE: str(diverged), EPOCH: 0, VAL_AUC: float("nan")})
    except Superseded:
        return
    except Exception as error:
        if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
            text = f"{error.filename or folder.path}: {error.strerror}"
            tune.report({STORAGE: text, EPOCH: 0, VAL_AUC: float("nan")})
        folder.write_error(f"{type(error).__name__}: {error}")
        raise


def _train(trial: dict[str, Any], inputs: TrialInputs, folder: TrialFolder) -> None:
    training = _begin(trial, inputs, folder)
    for epoch in range(1, len(training.history) + 1):
        _report(training, epoch)
    while not training.done:
        training.advance()
        _report(training, len(training.history))


def _begin(trial: dict[str, Any], inputs: TrialInputs, folder: TrialFolder) -> Training:
    settings = inputs.config.student_settings(trial["params"])
    seed = trial_seed(inputs.config, trial["number"])
    return Training(student_stack(settings, inputs), settings, seed=seed, folder=folder)


def student_stack(settings: BaseModel, inputs: TrialInputs) -> Stack:
    """An empty stack of one slot for a student with these settings."""
    torch.set_num_threads(inputs.threads)
    return inputs.config.method.student_stack(
        settings,
        1,
        data=inputs.data,
        teacher=inputs.teacher,
        targets=inputs.targets,
        compute=inputs.compute,
    )


def _report(training: Training, epoch: int) -> None:
    history = training.history[:epoch]
    tune.report(
        {
            EPOCH: epoch,
            EPOCHS: training.epochs,
            VAL_AUC: max(report.val_auc for report in history),
            SECONDS: sum(report.seconds for report in history),
        }
    )


def trial_seed(config: Config, number: int) -> int:
    """Seed of a trial's weights and mini-batches, different for every trial of a search."""
    return config.search.seed * 1_000_003 + number
