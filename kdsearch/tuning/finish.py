"""The end of a search: compute the results from its trials, and lost results again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, cast

from kdsearch.analysis.leaderboard import best_record, leaderboard
from kdsearch.config.space_file import Config
from kdsearch.data import cache_dir
from kdsearch.data.beats import Dataset
from kdsearch.errors import RunError, SearchFailed, TrialDiverged, UserError
from kdsearch.evaluation.baselines import baseline_scores
from kdsearch.evaluation.costs import StudentCosts, measure
from kdsearch.evaluation.finalists import (
    Answers,
    answers_of,
    evaluate_run,
    read_evaluation,
)
from kdsearch.evaluation.verdict import Costs, conclude
from kdsearch.files.atomic import DamagedFile, load_state
from kdsearch.methods.progress import PROGRESS
from kdsearch.methods.protocol import Comparing, Exporting, State
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.student.model_card import model_card
from kdsearch.student.student import COMPUTE, describe_student, load_student
from kdsearch.teachers.kinds import members_of, reconstructions
from kdsearch.tuning.confirm import Candidate, seeds
from kdsearch.tuning.teacher import Teacher, TeacherCache, describe_teacher
from kdsearch.tuning.workers.training import judge, mini_batches
from kdsearch.tuning.workers.trial import TrialInputs, student_stack, trial_seed


def missing_results(
    folder: RunFolder, config: Config, trials: int, *, confirmed: bool
) -> list[str]:
    """Return the names of the results of a finished search that are missing or damaged.

    Args:
        trials: Trials of the search in all.
        confirmed: Whether there is to be a verdict.
    """
    checks: dict[str, Callable[[], object]] = {
        "teacher.json": lambda: folder.read_derived(folder.teacher_file),
        "teacher.pt": lambda: load_state(folder.teacher_weights),
        "best": lambda: load_student(folder.path).at("f1"),
        "best/metrics.json": lambda: (
            # Of as many trials, and by the same rule, as are asked for now.
            (metrics := folder.read_derived(folder.best / "metrics.json")).get("trials")
            == trials
            and metrics.get("threshold_rule") == config.threshold.as_plain()
        ),
        "evaluation.npz": lambda: read_evaluation(folder),
        "costs.json": lambda: (
            folder.read_derived(folder.costs_file) or not isinstance(config.method, Exporting)
        ),
    }
    if confirmed:
        checks["verdict.json"] = lambda: folder.read_derived(folder.verdict_file)
    missing = []
    for name, check in checks.items():
        there = False
        with suppress(UserError, DamagedFile, FileNotFoundError):
            there = bool(check())
        if not there:
            missing.append(name)
    return missing


def write_leaderboard(
    folder: RunFolder, records: Sequence[TrialRecord], config: Config
) -> bool:
    """Write ``leaderboard.csv``; return whether it was another one."""
    search = config.search
    table = leaderboard(records, list(config.searched()), search.cost_objectives, search.metric)
    text = table.to_csv(index=False)
    with suppress(FileNotFoundError, UnicodeDecodeError):
        if folder.leaderboard_file.read_text(encoding="utf-8") == text:
            return False
    folder.write_leaderboard(text)
    return True


def write_results(
    folder: RunFolder,
    records: Sequence[TrialRecord],
    chosen: Sequence[Candidate],
    dataset: Dataset,
    teacher: Teacher,
    inputs: TrialInputs,
    say: Callable[[str], None],
) -> None:
    """Measure the best student and the teacher on the test beats, and write all results.

    Args:
        folder: The run, whose lock is held.
        records: Every trial, all finished.
        chosen: What was confirmed.

    Raises:
        SearchFailed: Every trial failed.
    """
    config = inputs.config
    if best_record(records) is None:
        reasons = sorted({record.reason for record in records})
        raise SearchFailed(f"all {len(records)} trials failed: {'; '.join(reasons)}")
    taught_by = _answers(teacher, dataset, inputs)
    best = _write_verdict(folder, config, records, chosen, dataset, taught_by)
    weights = _best_weights(folder, best, inputs, say)
    evaluation = evaluate_run(
        folder,
        dataset,
        trial=best.number,
        epoch=best.best_epoch,
        # As it will be used, wherever that is; its threshold belongs to these scores.
        student=answers_of(config.method, weights, dataset, COMPUTE),
        teacher=taught_by,
        rule=config.threshold,
    )
    metrics: dict[str, Any] = {
        "trial": best.number,
        "trials": len(records),
        "threshold_rule": config.threshold.as_plain(),
        "data": {"description": dataset.description, "simulated": dataset.simulated},
        **evaluation.metrics(),
    }
    card = describe_student(
        config,
        config.student_settings(best.params),
        dataset,
        metrics["student"]["validation"]["confusion"]["threshold"],
    )
    description = describe_teacher(teacher, dataset) | {"metrics": metrics["teacher"]}
    folder.write_teacher(teacher.weights, description)
    validation = {
        "scores": evaluation.student.validation,
        "abnormal": dataset.training.validation.abnormal,
    }
    student = {key: value for key, value in weights.items() if key != PROGRESS}
    folder.write_best(student, card, metrics, validation, model_card(card, metrics))
    _write_costs(folder, records, inputs)


def _answers(teacher: Teacher, dataset: Dataset, inputs: TrialInputs) -> Answers:
    method, compute, state = inputs.config.method, inputs.task.compute, teacher.weights
    scores = TeacherCache(cache_dir()).scores(teacher, method, dataset, compute)
    # The rows that another teacher has stored are not those of these training beats.
    compares = isinstance(method, Comparing) and teacher.origin is None
    return Answers(
        scores["validation"],
        scores["test"],
        lambda x: reconstructions(state, method, x, compute),
        lambda x: cast("Comparing", method).nearest(state, x) if compares else None,
    )


def _write_verdict(
    folder: RunFolder,
    config: Config,
    records: Sequence[TrialRecord],
    chosen: Sequence[Candidate],
    dataset: Dataset,
    teacher: Answers,
) -> TrialRecord:
    """Write the verdict, if anything was confirmed; return the trial that is the result."""
    best = best_record(records)
    assert best is not None
    if not chosen:
        return best
    costs = None
    if config.search.cost_objectives:
        # The first cost that is an objective.
        name = config.search.cost_objectives[0]
        known = {f"trial-{r.number}": r.costs[name] for r in records if name in r.costs}
        costs = Costs(name, known)
    verdict = conclude(
        folder,
        {candidate.name: candidate.role for candidate in chosen},
        seeds(config),
        dataset,
        baseline_scores(dataset, cache_dir()),
        {candidate.name: candidate.left_out for candidate in chosen if candidate.left_out},
        adaptive=config.confirm.adaptive,
        # A teacher whose recipe was trained again has figures over seeds.
        teacher=None if config.teacher_source.single_recipe else teacher,
        costs=costs,
        metric=config.search.metric,
    )
    folder.write_verdict(verdict)
    if verdict["chosen"] is None:
        return best
    return records[int(verdict["chosen"].removeprefix("trial-"))]


def _best_weights(
    folder: RunFolder, best: TrialRecord, inputs: TrialInputs, say: Callable[[str], None]
) -> State:
    """Read the weights of a trial, or train them again where they were not kept."""
    trial = folder.trial(best.number)
    try:
        return trial.best_weights()
    except RunError as error:
        say(f"{error}; trial {best.number} is trained again up to epoch {best.best_epoch:g}")
    settings = inputs.config.student_settings(best.params)
    metric = inputs.config.search.metric
    stack = student_stack(settings, 1, inputs)
    stack.put_in(0, settings, seed=trial_seed(inputs.config, best.number))
    whole, part = divmod(mini_batches(best.best_epoch, stack.steps), stack.steps)
    for steps in [stack.steps] * whole + [part] * (part > 0):
        try:
            report = judge(stack.advance(steps)[0], inputs.task.data.validation)
        except TrialDiverged as error:
            reason = f"trial {best.number} cannot be trained again: {error}"
            raise SearchFailed(reason) from None
    weights = stack.weights(0)
    trial.write_best(weights)
    if (value := report.value(metric)) != best.value:
        say(f"its {metric} is {value:.6f} now; it was {best.value:.6f}")
    return weights


def _write_costs(
    folder: RunFolder, records: Sequence[TrialRecord], inputs: TrialInputs
) -> None:
    # A failed trial may be one that no memory holds.
    students = {
        r.number: inputs.config.student_settings(r.params)
        for r in records
        if r.finished and r.state != "failed" and r.curve
    }
    method, task = inputs.config.method, inputs.task
    described: dict[str, Any] = {}
    if isinstance(method, Exporting):
        cost_of = StudentCosts(method, task)
        described = {str(n): asdict(cost_of(settings)) for n, settings in students.items()}
        if networks := members_of(task.teacher):
            _, leads, length = task.data.train.shape
            of_each = [measure(method, network, leads, length) for network in networks]
            described["teacher"] = asdict(sum(of_each[1:], of_each[0]))
    folder.write_costs(described)
