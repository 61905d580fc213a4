"""One trial: a student trained epoch by epoch in a Ray worker."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from ray import tune

from kdsearch.config import Config
from kdsearch.data.beats import TrainingData
from kdsearch.errors import TrialDiverged
from kdsearch.method import Compute, EpochReport, Stack, State, Targets
from kdsearch.run_folder import RunFolder, Superseded, TrialFolder

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
        _Trial(trial, inputs, folder).run()
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


class _Trial:
    def __init__(self, trial: dict[str, Any], inputs: TrialInputs, folder: TrialFolder) -> None:
        torch.set_num_threads(inputs.threads)
        self._folder = folder
        self._settings = inputs.config.student_settings(trial["params"])
        self._epochs = int(cast("Any", self._settings).epochs)
        self._history: list[EpochReport] = []
        self._stack = self._begin(trial["number"], inputs)

    def _begin(self, number: int, inputs: TrialInputs) -> Stack:
        stack = inputs.config.method.student_stack(
            self._settings,
            1,
            data=inputs.data,
            teacher=inputs.teacher,
            targets=inputs.targets,
            compute=inputs.compute,
        )
        checkpoint = self._folder.checkpoint()
        state = None if checkpoint is None else checkpoint.state
        self._history = [] if checkpoint is None else checkpoint.history
        stack.put_in(0, self._settings, seed=trial_seed(inputs.config, number), state=state)
        return stack

    def run(self) -> None:
        for index in range(len(self._history)):
            self._report(self._history[: index + 1])
        while len(self._history) < self._epochs:
            self._history = [*self._history, self._advance()]
            self._report(self._history)

    def _advance(self) -> EpochReport:
        report = self._stack.advance()[0]
        if isinstance(report, Exception):
            raise report
        improved = all(report.val_auc > earlier.val_auc for earlier in self._history)
        self._folder.write(
            report,
            self._history,
            self._stack.save(0),
            best=self._stack.weights(0) if improved else None,
        )
        return report

    def _report(self, history: list[EpochReport]) -> None:
        tune.report(
            {
                EPOCH: len(history),
                EPOCHS: self._epochs,
                VAL_AUC: max(report.val_auc for report in history),
                SECONDS: sum(report.seconds for report in history),
            }
        )


def trial_seed(config: Config, number: int) -> int:
    """Seed of a trial's weights and mini-batches, different for every trial of a search."""
    return config.search.seed * 1_000_003 + number
