"""The verdict: the result of the confirmation, in figures and in sentences.

The candidate is chosen on the validation beats only. Test figures are shown and do not affect
the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import Dataset, LabelledBeats
from kdsearch.evaluation.adaptive import SeedResult, error_of_look, plan
from kdsearch.evaluation.baselines import BaselineScores
from kdsearch.evaluation.finalists import Answers
from kdsearch.metrics.ranking import METRICS, Metric, rank
from kdsearch.metrics.statistics import (
    NOT_DISTINGUISHABLE,
    WORSE,
    Interval,
    area,
    compare_areas,
    judge,
    paired_by_seed,
    sentence,
)
from kdsearch.runs.folder import RunFolder

Scores = NDArray[np.float32]
# A teacher that is not trained again; `teacher` is a network trained by its recipe.
TEACHER = "the teacher"


@dataclass(frozen=True)
class Costs:
    """A cost that is an objective: its name, and its value by the name of a candidate."""

    name: str
    of: Mapping[str, float]


@dataclass(frozen=True)
class Confirmed:
    """One configuration, trained again with new seeds.

    Attributes:
        seeds: The result of each seed whose training did not fail.
        reason: Why a seed failed, or why none or no more were trained; empty if all are there.
    """

    name: str
    role: str
    seeds: dict[int, SeedResult]
    reason: str = ""

    def mean(self, metric: Metric) -> float:
        """Return the mean over the seeds, of which there must be one."""
        return float(np.mean([result.value(metric) for result in self.seeds.values()]))

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as in ``verdict.json``."""
        seeds = {str(seed): result.as_dict() for seed, result in self.seeds.items()}
        return {"name": self.name, "role": self.role, "reason": self.reason, "seeds": seeds}


class Results:
    """The results of a confirmation's networks; each is read once it is trained."""

    def __init__(
        self,
        folder: RunFolder,
        seeds: Sequence[int],
        validation: LabelledBeats,
        test: LabelledBeats,
    ) -> None:
        """Nothing is read yet."""
        self._folder = folder
        self._seeds = seeds
        self._beats = validation, test
        self._read: dict[tuple[str, int], SeedResult | str] = {}

    def __call__(self, name: str, position: int) -> SeedResult | str | None:
        """Return a network's result with the seed of this position, or why there is none.

        None while the network is not trained.
        """
        if (name, position) not in self._read:
            confirmation = self._folder.confirmation(name, self._seeds[position])
            result = confirmation.result()
            if result is None:
                return None
            if "reason" in result:
                self._read[name, position] = str(result["reason"])
            else:
                scores, best_epoch = confirmation.scores(), result["best_epoch"]
                self._read[name, position] = _measure(
                    scores["validation"], scores["test"], *self._beats, best_epoch
                )
        return self._read[name, position]

    def confirmed(self, name: str, role: str, count: int, why: str = "") -> Confirmed:
        """Return the results of the first ``count`` seeds of a configuration."""
        found: dict[int, SeedResult] = {}
        for position, seed in enumerate(self._seeds[:count]):
            result = self(name, position) or "not finished"
            if isinstance(result, SeedResult):
                found[seed] = result
            else:
                why = why or result
        return Confirmed(name, role, found, why)


def conclude(  # noqa: PLR0913
    folder: RunFolder,
    roles: Mapping[str, str],
    seeds: Sequence[int],
    dataset: Dataset,
    baselines: Mapping[str, BaselineScores],
    left_out: Mapping[str, str] | None = None,
    *,
    adaptive: bool = False,
    teacher: Answers | None = None,
    costs: Costs | None = None,
    metric: Metric = "val_auc",
) -> dict[str, Any]:
    """Judge the results of a confirmation.

    Args:
        roles: ``candidate``, ``control`` or ``teacher`` by name, the search's best first.
        seeds: The seeds that each was trained with; of an adaptive confirmation, the most.
        dataset: The beats that the scores belong to.
        baselines: Scores of simple baselines, by name.
        left_out: Why some of the roles were not trained, by name.
        adaptive: Whether the number of seeds was decided while they were trained, see
            `kdsearch.evaluation.adaptive`.
        teacher: The teacher's scores, if there is no recipe to train it again.
        costs: Of the candidates, where a cost is an objective.
        metric: By which the candidate is chosen, on validation.

    Returns:
        The content of ``verdict.json``.
    """
    left_out = left_out or {}
    trained = {name: role for name, role in roles.items() if name not in left_out}
    results = Results(folder, seeds, dataset.training.validation, dataset.test)
    planned = plan(trained, len(seeds), results, metric) if adaptive else None
    counts = planned.seeds if planned else dict.fromkeys(trained, len(seeds))
    reasons = {name: f"left out, because {why}" for name, why in left_out.items()}
    reasons |= planned.reasons if planned else {}
    confirmed = {
        name: results.confirmed(name, role, counts.get(name, 0), reasons.get(name, ""))
        for name, role in roles.items()
    }
    if teacher is not None:
        # It is the same with each seed.
        once = measure_scores(teacher.validation, teacher.test, dataset)
        confirmed[TEACHER] = Confirmed(TEACHER, "teacher", dict.fromkeys(seeds, once))
        counts = {**counts, TEACHER: len(seeds)}
    chosen = planned.leader if planned else choose(list(confirmed.values()), metric)
    error = error_of_look(len(seeds)) if planned else None
    differences = [
        difference(confirmed[of], confirmed[other], dataset.test, error)
        for of, other in _pairs(confirmed)
        # The control of a candidate that never led was not needed.
        if other in left_out or counts[other]
    ]
    fitted = {
        name: _measure(s.validation, s.test, dataset.training.validation, dataset.test)
        for name, s in baselines.items()
    }
    if chosen is not None:
        # A baseline is the same with each seed.
        differences += [
            difference(
                confirmed[chosen],
                Confirmed(name, "baseline", dict.fromkeys(seeds, result)),
                dataset.test,
                error,
            )
            for name, result in fitted.items()
        ]
    verdict: dict[str, Any] = {
        "chosen": chosen,
        "sentences": [d["sentence"] for d in differences if d["of"] == chosen],
        "configurations": [c.as_dict() for c in confirmed.values()],
        "differences": differences,
        "baselines": [
            {"name": name, **result.as_dict(), "seconds": baselines[name].seconds}
            for name, result in fitted.items()
        ],
    }
    if costs and chosen is not None:
        verdict["smallest"] = _smallest(confirmed, chosen, costs, error, metric)
        verdict["sentences"].insert(0, verdict["smallest"]["sentence"])
    if planned:
        trained_again, most = sum(counts.values()), len(seeds) * len(counts)
        verdict["adaptive"] = {
            "most": len(seeds),
            "seeds": dict(counts),
            "ended": f"{planned.ended} {trained_again} networks were trained again; all seeds "
            f"of all would have been {most}.",
        }
    return verdict


def _smallest(
    confirmed: Mapping[str, Confirmed],
    chosen: str,
    costs: Costs,
    error: float | None,
    metric: Metric,
) -> dict[str, Any]:
    """The cheapest candidate that is not distinguishably worse than the chosen one.

    As the choice itself, it is judged on the validation beats.
    """
    best, of, words = confirmed[chosen], costs.of, costs.name.replace("_", "-")
    found: dict[str, Any] = {"name": chosen, "cost": of[chosen], "objective": costs.name}
    smaller = [n for n in confirmed if n in of and of[n] < of[chosen]]
    for name in sorted(smaller, key=lambda name: of[name]):
        seeds = [seed for seed in best.seeds if seed in confirmed[name].seeds]
        interval = _on_validation(confirmed[name], best, seeds, error, metric)
        if interval is None or not interval.known or judge(interval) == WORSE:
            continue
        return found | {
            "name": name,
            "cost": of[name],
            "estimate": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "sentence": f"The student of {name.replace('-', ' ')} is the smallest that is not "
            f"distinguishably worse than the best, {chosen.replace('-', ' ')}: "
            f"{of[name]:,.6g} {words} instead of {of[chosen]:,.6g}; difference in "
            f"validation {METRICS[metric]} {interval}"
            f"{' for other seeds' * (metric == 'val_ap')}.",
        }
    return found | {
        "sentence": f"No confirmed student with fewer {words} than the best, "
        f"{chosen.replace('-', ' ')} ({of[chosen]:,.6g}), is as good."
    }


def _on_validation(
    of: Confirmed,
    against: Confirmed,
    seeds: Sequence[int],
    error: float | None,
    metric: Metric,
) -> Interval | None:
    """Interval of the difference: of AUC for seeds and patients, of AP for seeds alone."""
    if not seeds:
        return None
    if metric == "val_ap":
        first, second = ([c.seeds[seed].val_ap for seed in seeds] for c in (of, against))
        return paired_by_seed(first, second, error=error)
    a, b = (
        [area for seed in seeds if (area := c.seeds[seed].validation) is not None]
        for c in (of, against)
    )
    return compare_areas(a, b, error=error).difference


def choose(confirmed: Sequence[Confirmed], metric: Metric = "val_auc") -> str | None:
    """Return the candidate with the best mean on validation; None if none was trained."""
    candidates = [c for c in confirmed if c.role == "candidate" and c.seeds]
    best = max(candidates, key=lambda c: c.mean(metric), default=None)
    return None if best is None else best.name


def measure_scores(validation: Scores, test: Scores, dataset: Dataset) -> SeedResult:
    """Return the figures of scores that do not depend on a seed."""
    return _measure(validation, test, dataset.training.validation, dataset.test)


def _measure(
    validation: Scores,
    test: Scores,
    of_validation: LabelledBeats,
    of_test: LabelledBeats,
    best_epoch: float | None = None,
) -> SeedResult:
    on_validation = rank(validation, of_validation.abnormal)
    on_test = rank(test, of_test.abnormal)
    return SeedResult(
        val_auc=on_validation.roc_auc(),
        test=area(test, of_test.abnormal, of_test.patients),
        val_ap=on_validation.average_precision(),
        test_auc=on_test.roc_auc(),
        test_ap=on_test.average_precision(),
        best_epoch=best_epoch,
        validation=area(validation, of_validation.abnormal, of_validation.patients),
    )


def _pairs(confirmed: Mapping[str, Confirmed]) -> list[tuple[str, str]]:
    """Each candidate against its own control and against the teacher."""
    pairs = []
    for name, found in confirmed.items():
        if found.role == "candidate":
            others = [f"control-of-{name}", "teacher", TEACHER]
            pairs += [(name, other) for other in others if other in confirmed]
    return pairs


def difference(
    of: Confirmed, against: Confirmed, test: LabelledBeats, error: float | None = None
) -> dict[str, Any]:
    """Return interval and p-value over the common seeds; all None without such seeds."""
    entry: dict[str, Any] = {"of": of.name, "against": against.name, "metric": "test_auc"}
    seeds = [seed for seed in of.seeds if seed in against.seeds]
    if not seeds:
        reason = (of if not of.seeds else against).reason
        cannot = f"{_words(of)} cannot be compared with {_words(against)}: {reason}."
        return entry | {
            **dict.fromkeys(("estimate", "low", "high", "p_value")),
            "covers": [],
            "judgement": NOT_DISTINGUISHABLE,
            "sentence": f"{cannot[0].upper()}{cannot[1:]}",
            "per_seed": [],
        }
    a, b = ([c.seeds[seed].test for seed in seeds] for c in (of, against))
    comparison = compare_areas(a, b, error=error)
    interval = comparison.difference
    patients = None if test.patients is None else len(np.unique(test.patients))
    return entry | {
        "estimate": interval.estimate,
        "low": _number(interval.low),
        "high": _number(interval.high),
        "p_value": _number(comparison.p_value),
        "covers": ["seeds", "beats" if patients is None else "patients"]
        if interval.known
        else [],
        "judgement": judge(interval),
        "sentence": sentence(
            _words(of),
            _words(against),
            interval,
            seeds=len(seeds),
            beats=len(test.x),
            patients=patients,
        ),
        "per_seed": [
            {
                "seed": seed,
                "estimate": of.seeds[seed].test_auc - against.seeds[seed].test_auc,
            }
            for seed in seeds
        ],
    }


def _words(found: Confirmed) -> str:
    if found.role == "candidate":
        return f"the student of {found.name.replace('-', ' ')}"
    if found.role == "control":
        return "the same student without distillation"
    if found.role == "teacher" and found.name != TEACHER:
        return "a network trained by the teacher's recipe"
    return found.name


def _number(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
