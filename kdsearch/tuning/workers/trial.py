"""One trial: train a student from report to report in a Ray worker."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from ray import tune

from kdsearch.config.space_file import Config
from kdsearch.errors import TrialDiverged
from kdsearch.files.bucket import Place
from kdsearch.methods.device import use_threads
from kdsearch.methods.protocol import Stack, Task
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import Superseded, TrialFolder
from kdsearch.tuning.workers.messages import Outcome, failed, unstorable
from kdsearch.tuning.workers.training import STORAGE_ERRORS, Trainer, Training


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a search share; Ray keeps one copy of it on each machine.

    Attributes:
        config: The resolved search.
        run: The run folder, absolute, on storage that every machine sees.
        generation: The driver that these trials belong to.
        task: What the students learn from.
        threads: Torch threads of a trial.
    """

    config: Config
    run: Place
    generation: str
    task: Task
    threads: int


def train_student(trial: dict[str, Any], inputs: TrialInputs) -> None:
    """Train the student that ``trial`` names to its last epoch, or until it is stopped.

    Begins at the trial's checkpoint if there is one, and then reports again what the
    checkpoint holds, since it may have been kept but not reported.

    Args:
        trial: its ``number`` and the searched ``params``.
        inputs: What all trials share.
    """
    try:
        training = training_of(trial, inputs)
        for number in range(1, len(training.history) + 1):
            tune.report(training.result(number))
        if training.done:
            return
        stack = student_stack(training.settings, 1, inputs)
        training.enter(stack, 0)
        trainer = Trainer(inputs.task.data.validation, 1, behind=False)
        while not training.done:
            for error in trainer.advance(stack, [training]).values():
                raise error
            tune.report(training.result(len(training.history)))
    except Exception as error:
        outcome = outcome_of(error, folder_of(trial, inputs))
        if outcome.kind == "crashed":
            raise
        if outcome.kind == "final":
            tune.report(outcome.result)


def outcome_of(error: Exception, folder: TrialFolder) -> Outcome:
    """What an error means for its trial; of a crash the reason is written into the folder."""
    if isinstance(error, TrialDiverged):
        return Outcome("final", failed(str(error)))
    if isinstance(error, Superseded):
        return Outcome("superseded")
    if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        reason = f"{error.filename or folder.path}: {error.strerror}"
        return Outcome("final", unstorable(reason))
    with suppress(OSError, Superseded):
        folder.write_error(f"{type(error).__name__}: {error}")
    return Outcome("crashed")


def folder_of(trial: dict[str, Any], inputs: TrialInputs) -> TrialFolder:
    """Where the trial's epochs are kept."""
    run = RunFolder(inputs.run)
    return run.trial(trial["number"], inputs.generation, trial["params"])


def training_of(trial: dict[str, Any], inputs: TrialInputs) -> Training:
    """The training of the student that ``trial`` names, where its checkpoint ends."""
    return Training(
        inputs.config.student_settings(trial["params"]),
        seed=trial_seed(inputs.config, trial["number"]),
        folder=folder_of(trial, inputs),
        metric=inputs.config.search.metric,
        early_rungs=inputs.config.scheduler.early_rungs(),
        validations_per_epoch=inputs.config.search.validations_per_epoch,
    )


def student_stack(settings: BaseModel, slots: int, inputs: TrialInputs) -> Stack:
    """An empty stack for students of the structure of these settings."""
    use_threads(inputs.threads)
    return inputs.config.method.student_stack(settings, slots, inputs.task)


def trial_seed(config: Config, number: int) -> int:
    """Seed of a trial's weights and mini-batches, different for every trial of a search."""
    return config.search.seed * 1_000_003 + number
