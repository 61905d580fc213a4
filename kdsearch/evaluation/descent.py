"""The line of descent: each generation's best student taught the students of the next.

Born-again networks: Furlanello et al., ICML 2018. Generations are chosen on the validation
beats; test figures are shown and do not affect the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsearch.data.beats import Dataset
from kdsearch.evaluation.finalists import read_evaluation
from kdsearch.evaluation.verdict import Confirmed, Results, difference, measure_scores
from kdsearch.metrics.ranking import METRICS, Metric
from kdsearch.runs.folder import RunFolder

FIRST_TEACHER = "the first teacher"
CONTROL = "the same student without distillation"


@dataclass(frozen=True)
class Generation:
    """A finished search.

    Attributes:
        number: From 1.
        trial: Number of its best trial.
        student: That trial, trained again with new seeds.
        control: The same without distillation; None if the student is its own control.
        metric: By which generations are compared, on validation.
    """

    number: int
    folder: RunFolder
    trial: int
    student: Confirmed
    control: Confirmed | None
    metric: Metric = "val_auc"

    @property
    def value(self) -> float:
        """Mean of the metric over the new seeds; NaN if none was trained."""
        return self.student.mean(self.metric) if self.student.seeds else float("nan")


def read_generation(
    folder: RunFolder,
    number: int,
    seeds: Sequence[int],
    dataset: Dataset,
    metric: Metric = "val_auc",
) -> Generation:
    """Read the best trial of a finished search and its confirmation.

    Raises:
        RunError: The search has no verdict, or it is damaged.
    """
    verdict = folder.read_json(folder.verdict_file)
    metrics = folder.read_json(folder.best / "metrics.json")
    results = Results(folder, seeds, dataset.training.validation, dataset.test)
    entries = {entry["name"]: entry for entry in verdict["configurations"]}
    trial = verdict["chosen"] or f"trial-{metrics['trial']}"

    def confirmed(trained_as: str, name: str, role: str) -> Confirmed:
        entry = entries.get(trained_as, {"seeds": {}, "reason": ""})
        read = results.confirmed(trained_as, role, len(seeds)).seeds
        used = {seed: result for seed, result in read.items() if str(seed) in entry["seeds"]}
        return Confirmed(name, role, used, entry["reason"])

    student = confirmed(trial, f"generation {number}", "generation")
    control = confirmed(f"control-of-{trial}", CONTROL, "control")
    return Generation(
        number,
        folder,
        int(metrics["trial"]),
        student,
        control if control.seeds else None,
        metric,
    )


def is_better(new: Generation, old: Generation) -> bool:
    """Whether a generation's student is better on validation than an earlier one's."""
    return bool(new.value > old.value)


def describe_descent(
    line: Sequence[Generation], seeds: Sequence[int], dataset: Dataset, planned: int
) -> dict[str, Any]:
    """The content of ``descent.json``.

    The result is the last generation that was better on validation than the one before it.
    """
    result = line[-1] if len(line) < 2 or is_better(line[-1], line[-2]) else line[-2]
    evaluation = read_evaluation(line[0].folder)
    assert evaluation is not None
    # The first teacher is the same with each seed.
    once = measure_scores(evaluation.teacher.validation, evaluation.teacher.test, dataset)
    teacher = Confirmed(FIRST_TEACHER, "first teacher", dict.fromkeys(seeds, once))
    from_teacher = [
        difference(generation.student, teacher, dataset.test) for generation in line
    ]
    compared = [from_teacher[result.number - 1]]
    if result.number > 1:
        compared.append(difference(result.student, line[0].student, dataset.test))
    if result.control is not None:
        compared.append(difference(result.student, result.control, dataset.test))
    return {
        "planned": planned,
        "result": result.number,
        "ended": _ended(line, planned),
        "teacher": _figures(teacher),
        "generations": [
            {"generation": one.number, "trial": one.trial, **_figures(one.student)}
            for one in line
        ],
        "against_first_teacher": from_teacher,
        "differences": compared,
        "sentences": [entry["sentence"] for entry in compared],
    }


def _ended(line: Sequence[Generation], planned: int) -> str:
    if len(line) > 1 and not is_better(line[-1], line[-2]):
        new, old = line[-1], line[-2]
        return (
            f"Generation {new.number} is not better than generation {old.number} on "
            f"validation (mean {METRICS[new.metric]} {new.value:.4f} against "
            f"{old.value:.4f}), so the line ends."
        )
    if len(line) == planned:
        return f"All {planned} generations were trained."
    return f"{planned - len(line)} of {planned} generations are left."


def _figures(found: Confirmed) -> dict[str, Any]:
    results = list(found.seeds.values())
    means = {
        name: float(np.mean([getattr(one, name) for one in results])) if results else None
        for name in ("val_auc", "val_ap", "test_auc", "test_ap")
    }
    return {**means, "seeds": len(results), "reason": found.reason}
