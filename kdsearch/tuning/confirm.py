"""Confirmation: train the best trials and their controls again with new seeds.

The best of many trials on one validation set is partly luck. To test whether a configuration is
better, it is trained again, at full budget and with seeds that the search did not use, together
with the same student without distillation and with the teacher's recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import ray
from pydantic import BaseModel, ValidationError

from kdsearch.analysis.leaderboard import front, leaderboard
from kdsearch.config.space_file import Config
from kdsearch.data.beats import LabelledBeats
from kdsearch.errors import RunError, StorageFailed, TrialDiverged
from kdsearch.evaluation.adaptive import FIRST_LOOK, plan
from kdsearch.evaluation.verdict import Results
from kdsearch.methods.device import use_threads
from kdsearch.methods.protocol import Task
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import Confirmation, Superseded, TrialRecord
from kdsearch.texts import one_line, redact
from kdsearch.tuning.placement import Placement
from kdsearch.tuning.workers.training import STORAGE_ERRORS, Training, train_to_the_end
from kdsearch.tuning.workers.trial import TrialInputs, student_stack

# Far from the seeds of the search, whose trials count from `seed` * 1,000,003.
FIRST_SEED = 500_000_000


# How often a signal that was lost inside Ray is looked for.
WAIT_S = 0.5
# A failure of one crew; anything else from Ray means that the cluster is lost.
CREW_FAILED = (
    ray.exceptions.RayTaskError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
DIED = "the worker process exited without an error message"


@dataclass(frozen=True)
class Candidate:
    """One configuration to be trained again.

    Attributes:
        name: Its folder's name: ``trial-7``, ``control-of-trial-7`` or ``teacher``.
        role: ``candidate``, ``control`` (the same with alpha = 0) or ``teacher``.
        settings: Everything it is trained with.
        left_out: Why it cannot be trained, in words; empty if it can.
    """

    name: str
    role: str
    settings: BaseModel
    left_out: str = ""


def candidates(config: Config, records: Sequence[TrialRecord]) -> list[Candidate]:
    """The best trials of a search, each with its control, and the teacher's recipe if any.

    Where costs are objectives, the best trials of the front come first.

    A student without distillation is its own control. A control that could learn nothing is
    left out: it would score every beat alike, and any student would be better.
    """
    table = leaderboard(records, [])
    ranked = [int(number) for number in table[table["rank"].notna()]["trial"]]
    if costs := config.search.cost_objectives:
        ranked = list(dict.fromkeys([*front(records, costs), *ranked]))
    chosen = [records[number] for number in ranked[: config.confirm.top]]
    recipe = config.teacher_source.single_recipe
    found = [Candidate("teacher", "teacher", config.teacher)] if recipe else []
    for record in chosen:
        settings = config.student_settings(record.params)
        name = f"trial-{record.number}"
        found.append(Candidate(name, "candidate", settings))
        if getattr(settings, "alpha", 0) > 0:
            found.append(_control(config, record, name))
    return found


def _control(config: Config, record: TrialRecord, of: str) -> Candidate:
    name = f"control-of-{of}"
    try:
        settings = config.student_settings({**record.params, "alpha": 0.0})
        if not config.teacher_source.exists:
            config.method.check(config.teacher, settings)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    except ValueError as error:
        reason = str(error)
    else:
        return Candidate(name, "control", settings)
    return Candidate(name, "control", config.student_settings(record.params), left_out=reason)


def seeds(config: Config) -> list[int]:
    """All seeds of a confirmation, the same for every configuration: figures pair by seed."""
    first = FIRST_SEED + config.search.seed * 1_000
    return list(range(first, first + config.confirm.most_seeds))


# Networks that one process trains side by side, each with its seed.
Crew = list[tuple[Candidate, int]]


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
    folder: RunFolder,
    chosen: Sequence[Candidate],
    config: Config,
    results: Results | None = None,
) -> Crew:
    """Pairs of a configuration and a seed that are to be trained next.

    Args:
        results: The results so far, from which an adaptive confirmation continues. Without
            it, its verdict says how many seeds it took.
    """
    trainable = [candidate for candidate in chosen if not candidate.left_out]
    roles, most = {c.name: c.role for c in trainable}, config.confirm.most_seeds
    counts: Mapping[str, int] = dict.fromkeys(roles, most)
    if config.confirm.adaptive and trainable:
        if results is None:
            counts = _known_counts(folder, roles, most)
        else:
            counts = plan(roles, most, results, config.search.metric).seeds
    return [
        (candidate, seed)
        for position, seed in enumerate(seeds(config))
        for candidate in trainable
        if position < counts[candidate.name] and _left(folder, candidate, seed)
    ]


def _known_counts(folder: RunFolder, roles: Mapping[str, str], most: int) -> Mapping[str, int]:
    """How many seeds of each configuration there are at least, at the end of a confirmation."""
    try:
        verdict = folder.read_derived(folder.verdict_file)
    except RunError:
        verdict = {}
    if not verdict:
        first = min(FIRST_LOOK, most)
        return {name: first * (role != "control") for name, role in roles.items()}
    adaptive = verdict.get("adaptive", {})
    if adaptive.get("most") == most and adaptive["seeds"].keys() == roles.keys():
        return dict(adaptive["seeds"])
    # It was made with other settings.
    return dict.fromkeys(roles, most)


def _left(folder: RunFolder, candidate: Candidate, seed: int) -> bool:
    return folder.confirmation(candidate.name, seed).result() is None


def confirm(
    folder: RunFolder,
    chosen: Sequence[Candidate],
    inputs: ConfirmationInputs,
    *,
    placement: Placement,
    on_done: Callable[[str, int, int], None],
    check: Callable[[], None],
) -> None:
    """Train configurations with new seeds, as Ray tasks, in stacks as the trials were.

    An adaptive confirmation has rounds: what to train next depends on the results of all
    networks before.

    What an earlier call finished is not trained again; what it left unfinished is continued.
    A crew that fails is split, so that one network's failure is not its neighbours'; a network
    that fails alone is kept as failed, with its reason.

    Args:
        placement: How many networks a process trains, and how many processes there are.
        on_done: Called with the results of some trainings, how many are done, and how many
            there are so far.
        check: Called often; raises an exception if the search is to end.

    Raises:
        StorageFailed: The run folder takes no more.
        RunError: A newer search has taken over this run.
    """
    config, shared = inputs.trial.config, ray.put(inputs)
    results = Results(folder, seeds(config), inputs.trial.task.data.validation, inputs.test)
    trainable = [candidate for candidate in chosen if not candidate.left_out]
    finished = sum(not _left(folder, c, seed) for c in trainable for seed in seeds(config))
    while left := left_to_confirm(folder, chosen, config, results):
        total = finished + len(left)

        def on_left(said: str, count: int, total: int = total) -> None:
            on_done(said, total - count, total)

        _train(folder, left, inputs, shared, placement, on_left, check)
        finished = total


def _train(
    folder: RunFolder,
    left: Crew,
    inputs: ConfirmationInputs,
    shared: Any,
    placement: Placement,
    on_left: Callable[[str, int], None],
    check: Callable[[], None],
) -> None:
    """Train some networks to their ends, or find out why they fail."""
    config = inputs.trial.config
    crews = _crews(left, config, placement.main.students)
    task = cast("Any", ray.remote(_confirm_crew)).options(
        max_retries=config.search.retries,
        num_cpus=placement.main.cpus,
        num_gpus=placement.main.gpus,
    )
    running: dict[Any, Crew] = {}
    while crews or running:
        while crews and len(running) < placement.main.count:
            crew = crews.pop(0)
            running[task.remote(shared, crew)] = crew
        ready, _ = ray.wait(list(running), num_returns=1, timeout=WAIT_S)
        check()
        for finished in ready:
            crew = running.pop(finished)
            try:
                said = ray.get(finished)
            except CREW_FAILED as error:
                reason = _reason(error)
                if len(crew) > 1:
                    crews += [[(c, seed)] for c, seed in crew if _left(folder, c, seed)]
                    continue
                said = _keep_failure(folder, crew[0], reason, inputs.trial.generation)
            on_left(said, sum(map(len, [*crews, *running.values()])))


def _crews(left: Crew, config: Config, students: int) -> list[Crew]:
    """Who trains together: up to ``students`` of one structure; teachers alone."""
    stacks: dict[str, Crew] = {}
    for candidate, seed in left:
        key = config.method.structure(candidate.settings)
        if candidate.role == "teacher":
            key = f"teacher {seed}"
        stacks.setdefault(key, []).append((candidate, seed))
    return [
        stack[first : first + students]
        for stack in stacks.values()
        for first in range(0, len(stack), students)
    ]


def _reason(error: Exception) -> str:
    """Why a crew failed, in one line; raises where that is no failure of its networks."""
    cause = getattr(error, "cause", None)
    if cause is None:
        return DIED
    if isinstance(cause, OSError) and cause.errno in STORAGE_ERRORS:
        raise StorageFailed(f"{cause.filename}: {cause.strerror}") from None
    if isinstance(cause, Superseded):
        raise RunError(str(cause)) from None
    return f"{type(cause).__name__}: {one_line(redact(str(cause)))}"


def _keep_failure(
    folder: RunFolder, member: tuple[Candidate, int], reason: str, generation: str
) -> str:
    candidate, seed = member
    kept = folder.confirmation(candidate.name, seed, generation)
    kept.write_result(_result(candidate, seed, reason=reason))
    return f"{candidate.name} failed: {reason}"


def _confirm_crew(inputs: ConfirmationInputs, crew: Crew) -> str:
    """Train and measure some networks side by side; each result is in its folder."""
    run = RunFolder(inputs.trial.run)
    folders = [run.confirmation(c.name, seed, inputs.trial.generation) for c, seed in crew]
    trainings = [
        Training(
            candidate.settings,
            seed=seed,
            folder=folder.training,
            metric=inputs.trial.config.search.metric,
            validations_per_epoch=inputs.trial.config.search.validations_per_epoch,
        )
        for (candidate, seed), folder in zip(crew, folders, strict=True)
    ]
    first, shared = crew[0][0], inputs.trial
    if first.role == "teacher":
        use_threads(shared.threads)
        task = Task(shared.task.data, shared.task.compute)
        stack = shared.config.method.teacher_stack(first.settings, task)
    else:
        stack = student_stack(first.settings, len(crew), shared)
    errors = train_to_the_end(
        stack,
        trainings,
        inputs.trial.task.data.validation,
        interval_s=inputs.trial.config.resources.checkpoint_interval_s,
    )
    return "; ".join(
        _conclude(inputs, member, folder, training, error)
        for member, folder, training, error in zip(
            crew, folders, trainings, errors, strict=True
        )
    )


def _conclude(
    inputs: ConfirmationInputs,
    member: tuple[Candidate, int],
    folder: Confirmation,
    training: Training,
    error: Exception | None,
) -> str:
    """Measure a network and write its result; return it in a few words."""
    candidate, seed = member
    if isinstance(error, OSError | Superseded):
        raise error
    if error is not None:
        reason = str(error)
        if not isinstance(error, TrialDiverged):
            reason = f"{type(error).__name__}: {one_line(redact(reason))}"
        return _keep_failure(
            RunFolder(inputs.trial.run), member, reason, inputs.trial.generation
        )
    best, metric = training.best, inputs.trial.config.search.metric
    folder.write_scores(_scores(inputs, folder))
    folder.write_result(
        _result(
            candidate,
            seed,
            best_epoch=best.epoch,
            epochs=training.epochs,
            seconds=sum(report.seconds for report in training.history),
        )
    )
    folder.training.reduce(keep_weights=False)
    return f"{candidate.name}: {metric} {best.value(metric):.4f}"


def _result(candidate: Candidate, seed: int, **figures: Any) -> dict[str, Any]:
    return {"name": candidate.name, "role": candidate.role, "seed": seed, **figures}


def _scores(inputs: ConfirmationInputs, folder: Confirmation) -> dict[str, Any]:
    weights = folder.training.best_weights()
    score = inputs.trial.config.method.score
    beats = {"validation": inputs.trial.task.data.validation, "test": inputs.test}
    scores = {
        name: np.asarray(score(weights, b.x, inputs.trial.task.compute), dtype=np.float32)
        for name, b in beats.items()
    }
    if not all(np.isfinite(part).all() for part in scores.values()):
        raise ValueError("not all scores are finite numbers")
    return scores
