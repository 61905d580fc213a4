"""Confirmation: the search's best, trained again with new seeds, beside their controls.

The best of many trials on one validation set is partly luck. Whether a configuration is really
better shows when it is trained again, at full budget and with seeds that the search never saw,
together with the same student without distillation and with the teacher's own recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import ray
import torch
from pydantic import BaseModel

from kdsearch.config import Config
from kdsearch.data.beats import LabelledBeats
from kdsearch.errors import StorageFailed, TrialDiverged
from kdsearch.leaderboard import leaderboard
from kdsearch.method import Stack
from kdsearch.run_folder import Confirmation, RunFolder
from kdsearch.study import TrialRecord
from kdsearch.tuning.trainable import STORAGE_ERRORS, TrialInputs, student_stack
from kdsearch.tuning.training import Training
from kdsearch.tuning.tune_run import Signals, concurrency

# Far from the seeds of the search, whose trials count from `seed` * 1,000,003.
FIRST_SEED = 500_000_000


# How often a signal that was lost inside Ray is looked for.
WAIT_S = 0.5


@dataclass(frozen=True)
class Candidate:
    """One configuration to be trained again.

    Attributes:
        name: Its folder's name: ``trial-7``, ``control-of-trial-7`` or ``teacher``.
        role: ``candidate``, ``control`` (the same with alpha = 0) or ``teacher``.
        settings: Everything it is trained with.
    """

    name: str
    role: str
    settings: BaseModel


def candidates(config: Config, records: Sequence[TrialRecord]) -> list[Candidate]:
    """The best trials of a search, each with its control, and the teacher's recipe."""
    table = leaderboard(records, [])
    ranked = table[table["rank"].notna()].head(config.confirm.top)["trial"]
    chosen = [records[number] for number in ranked]
    found = [Candidate("teacher", "teacher", config.teacher)]
    for record in chosen:
        settings = config.student_settings(record.params)
        name = f"trial-{record.number}"
        found.append(Candidate(name, "candidate", settings))
        if "alpha" in type(settings).model_fields:
            control = settings.model_copy(update={"alpha": 0.0})
            found.append(Candidate(f"control-of-{name}", "control", control))
    return found


def seeds(config: Config) -> list[int]:
    """The seeds of a confirmation, the same for every configuration: figures pair by seed."""
    first = FIRST_SEED + config.search.seed * 1_000
    return list(range(first, first + config.confirm.seeds))


@dataclass(frozen=True)
class ConfirmationInputs:
    """What all confirmations share.

    Attributes:
        trial: As in the search.
        test: Measured once a network is trained, never used to choose.
    """

    trial: TrialInputs
    test: LabelledBeats


def left_to_confirm(
    folder: RunFolder, chosen: Sequence[Candidate], config: Config
) -> list[tuple[Candidate, int]]:
    """Pairs of a configuration and a seed that no earlier driver finished."""
    return [
        (candidate, seed)
        for seed in seeds(config)
        for candidate in chosen
        if folder.confirmation(candidate.name, seed).result() is None
    ]


def confirm(
    folder: RunFolder,
    chosen: Sequence[Candidate],
    inputs: ConfirmationInputs,
    *,
    on_done: Callable[[str, int, int], None],
    signals: Signals,
) -> None:
    """Train every configuration with every seed, as Ray tasks, a few at a time.

    What an earlier call finished is not trained again; what it left unfinished goes on.

    Args:
        on_done: Called with what came of one training, how many are done, and of how many.
    """
    config = inputs.trial.config
    gpu = inputs.trial.compute.device == "cuda"
    left = left_to_confirm(folder, chosen, config)
    total, at_a_time = len(chosen) * config.confirm.seeds, concurrency(config, gpu)
    shared, remote = ray.put(inputs), cast("Any", ray.remote(_confirm_one))
    task = remote.options(
        max_retries=config.search.retries,
        num_cpus=config.resources.cpus_per_trial,
        num_gpus=config.resources.gpus_per_trial if gpu else 0,
    )
    running: list[Any] = []
    while left or running:
        while left and len(running) < at_a_time:
            running.append(task.remote(shared, *left.pop(0)))
        done, running = ray.wait(running, num_returns=1, timeout=WAIT_S)
        signals.check()
        for ready in done:
            on_done(_outcome(ready), total - len(left) - len(running), total)


def _outcome(task: Any) -> str:
    """What a task said; one that could not write its files ends the confirmation."""
    try:
        said: str = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError) and error.cause.errno in STORAGE_ERRORS:
            raise StorageFailed(f"{error.cause.filename}: {error.cause.strerror}") from None
        raise
    return said


def _confirm_one(inputs: ConfirmationInputs, candidate: Candidate, seed: int) -> str:
    """Train and measure one network in a Ray worker; what came of it stands in its folder."""
    place = RunFolder(inputs.trial.run).confirmation(
        candidate.name, seed, inputs.trial.generation
    )
    try:
        training = _train(inputs.trial, candidate, seed, place)
    except TrialDiverged as diverged:
        place.write_result(_result(candidate, seed, reason=str(diverged)))
        return f"{candidate.name} failed: {diverged}"
    best = max(training.history, key=lambda report: report.val_auc)
    place.write_scores(_scores(inputs, place))
    place.write_result(
        _result(
            candidate,
            seed,
            best_epoch=best.epoch,
            epochs=len(training.history),
            seconds=sum(report.seconds for report in training.history),
        )
    )
    place.training.reduce(keep_weights=False)
    return f"{candidate.name}: val_auc {best.val_auc:.4f}"


def _result(candidate: Candidate, seed: int, **figures: Any) -> dict[str, Any]:
    return {"name": candidate.name, "role": candidate.role, "seed": seed, **figures}


def _train(
    inputs: TrialInputs, candidate: Candidate, seed: int, place: Confirmation
) -> Training:
    stack = _stack(inputs, candidate)
    training = Training(stack, candidate.settings, seed=seed, folder=place.training)
    while not training.done:
        training.advance()
    return training


def _stack(inputs: TrialInputs, candidate: Candidate) -> Stack:
    if candidate.role == "teacher":
        torch.set_num_threads(inputs.threads)
        return inputs.config.method.teacher_stack(
            candidate.settings, inputs.data, inputs.compute
        )
    return student_stack(candidate.settings, inputs)


def _scores(inputs: ConfirmationInputs, place: Confirmation) -> dict[str, Any]:
    weights = place.training.best_weights()
    score = inputs.trial.config.method.score
    beats = {"validation": inputs.trial.data.validation, "test": inputs.test}
    return {
        name: np.asarray(score(weights, b.x, inputs.trial.compute), dtype=np.float32)
        for name, b in beats.items()
    }
