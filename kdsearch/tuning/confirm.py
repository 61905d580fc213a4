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

from kdsearch.analysis.leaderboard import leaderboard
from kdsearch.config.space_file import Config
from kdsearch.data.beats import LabelledBeats
from kdsearch.errors import StorageFailed, TrialDiverged
from kdsearch.methods.protocol import Stack
from kdsearch.runs.folder import Confirmation, RunFolder
from kdsearch.runs.study import TrialRecord
from kdsearch.tuning.placement import Placement
from kdsearch.tuning.tune_run import Signals
from kdsearch.tuning.workers.training import (
    STORAGE_ERRORS,
    Training,
    structure,
    train_to_the_end,
)
from kdsearch.tuning.workers.trial import TrialInputs, student_stack

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
    """The best trials of a search, each with its control, and the teacher's recipe.

    A student without distillation is its own control.
    """
    table = leaderboard(records, [])
    ranked = table[table["rank"].notna()].head(config.confirm.top)["trial"]
    chosen = [records[number] for number in ranked]
    found = [Candidate("teacher", "teacher", config.teacher)]
    for record in chosen:
        settings = config.student_settings(record.params)
        name = f"trial-{record.number}"
        found.append(Candidate(name, "candidate", settings))
        if getattr(settings, "alpha", 0) > 0:
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
    placement: Placement,
    on_done: Callable[[str, int, int], None],
    signals: Signals,
) -> None:
    """Train every configuration with every seed, as Ray tasks, in stacks as the trials were.

    What an earlier call finished is not trained again; what it left unfinished goes on.

    Args:
        placement: How many networks a process trains, and how many processes there are.
        on_done: Called with what came of some trainings, how many are done, and of how many.
    """
    left = left_to_confirm(folder, chosen, inputs.trial.config)
    total = len(chosen) * inputs.trial.config.confirm.seeds
    crews = _crews(left, inputs.trial.config, placement.main.students)
    shared, remote = ray.put(inputs), cast("Any", ray.remote(_confirm_crew))
    task = remote.options(
        max_retries=inputs.trial.config.search.retries,
        num_cpus=placement.main.cpus,
        num_gpus=placement.main.gpus,
    )
    done, running = total - len(left), dict[Any, int]()
    while crews or running:
        while crews and len(running) < placement.main.count:
            crew = crews.pop(0)
            running[task.remote(shared, crew)] = len(crew)
        ready, _ = ray.wait(list(running), num_returns=1, timeout=WAIT_S)
        signals.check()
        for finished in ready:
            said = _outcome(finished)
            done += running.pop(finished)
            on_done(said, done, total)


def _crews(
    left: Sequence[tuple[Candidate, int]], config: Config, students: int
) -> list[list[tuple[Candidate, int]]]:
    """Who trains together: up to ``students`` of one structure; teachers alone."""
    stacks: dict[str, list[tuple[Candidate, int]]] = {}
    for candidate, seed in left:
        key = structure(config.method, candidate.settings)
        if candidate.role == "teacher":
            key = f"teacher {seed}"
        stacks.setdefault(key, []).append((candidate, seed))
    return [
        stack[first : first + students]
        for stack in stacks.values()
        for first in range(0, len(stack), students)
    ]


def _outcome(task: Any) -> str:
    """What a task said; one that could not write its files ends the confirmation."""
    try:
        said: str = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError) and error.cause.errno in STORAGE_ERRORS:
            raise StorageFailed(f"{error.cause.filename}: {error.cause.strerror}") from None
        raise
    return said


def _confirm_crew(inputs: ConfirmationInputs, crew: Sequence[tuple[Candidate, int]]) -> str:
    """Train and measure some networks side by side; what came of each stands in its folder."""
    run = RunFolder(inputs.trial.run)
    places = [run.confirmation(c.name, seed, inputs.trial.generation) for c, seed in crew]
    trainings = [
        Training(candidate.settings, seed=seed, folder=place.training)
        for (candidate, seed), place in zip(crew, places, strict=True)
    ]
    errors = train_to_the_end(_stack(inputs.trial, crew[0][0], len(crew)), trainings)
    return "; ".join(
        _conclude(inputs, member, place, training, error)
        for member, place, training, error in zip(crew, places, trainings, errors, strict=True)
    )


def _conclude(
    inputs: ConfirmationInputs,
    member: tuple[Candidate, int],
    place: Confirmation,
    training: Training,
    error: Exception | None,
) -> str:
    """Measure a network and keep what came of it; say it in a few words."""
    candidate, seed = member
    if isinstance(error, TrialDiverged):
        place.write_result(_result(candidate, seed, reason=str(error)))
        return f"{candidate.name} failed: {error}"
    if error is not None:
        raise error
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


def _stack(inputs: TrialInputs, candidate: Candidate, slots: int) -> Stack:
    if candidate.role == "teacher":
        torch.set_num_threads(inputs.threads)
        return inputs.config.method.teacher_stack(
            candidate.settings, inputs.data, inputs.compute
        )
    return student_stack(candidate.settings, slots, inputs)


def _scores(inputs: ConfirmationInputs, place: Confirmation) -> dict[str, Any]:
    weights = place.training.best_weights()
    score = inputs.trial.config.method.score
    beats = {"validation": inputs.trial.data.validation, "test": inputs.test}
    return {
        name: np.asarray(score(weights, b.x, inputs.trial.compute), dtype=np.float32)
        for name, b in beats.items()
    }
