"""The verdict: the result of the confirmation, in figures and in sentences.

The candidate is chosen on the validation beats only. Test figures are shown and do not affect
the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import Dataset, LabelledBeats
from kdsearch.evaluation.baselines import BaselineScores
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import NOT_DISTINGUISHABLE, compare, judge, sentence
from kdsearch.runs.folder import RunFolder

Scores = NDArray[np.float32]


@dataclass
class Confirmed:
    """One configuration, trained again: a figure per seed whose training did not fail.

    Attributes:
        reason: Why a seed failed, or why it was not trained at all; empty if all are there.
    """

    name: str
    role: str
    seeds: list[int] = field(default_factory=list)
    val_auc: list[float] = field(default_factory=list)
    val_ap: list[float] = field(default_factory=list)
    test_auc: list[float] = field(default_factory=list)
    test_ap: list[float] = field(default_factory=list)
    best_epoch: list[int] = field(default_factory=list)
    reason: str = ""
    test_scores: dict[int, Scores] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the scores, which stand in files of their own."""
        plain = asdict(self)
        del plain["test_scores"]
        return plain


def conclude(
    folder: RunFolder,
    roles: Mapping[str, str],
    seeds: Sequence[int],
    dataset: Dataset,
    baselines: Mapping[str, BaselineScores],
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Judge what a confirmation left in the run folder.

    Args:
        roles: ``candidate``, ``control`` or ``teacher`` by name, the search's best first.
        seeds: The seeds that each was trained with.
        dataset: The beats that the scores belong to.
        baselines: Scores of what anyone would try first, by name.
        left_out: Why some of the roles were not trained, by name.

    Returns:
        The content of ``verdict.json``.
    """
    confirmed = {
        name: Confirmed(name, role, reason=f"left out, because {left_out[name]}")
        if left_out and name in left_out
        else _read(folder, name, role, seeds, dataset)
        for name, role in roles.items()
    }
    chosen = choose(list(confirmed.values()))
    plain = [_baseline(name, scores, dataset) for name, scores in baselines.items()]
    differences = [
        _difference(confirmed[of], confirmed[against], dataset.test)
        for of, against in _pairs(confirmed)
    ]
    if chosen is not None:
        differences += [
            _difference(
                confirmed[chosen], _constant(name, scores, dataset, seeds), dataset.test
            )
            for name, scores in baselines.items()
        ]
    return {
        "chosen": chosen,
        "sentences": [d["sentence"] for d in differences if d["of"] == chosen],
        "configurations": [c.as_dict() for c in confirmed.values()],
        "differences": differences,
        "baselines": plain,
    }


def choose(confirmed: Sequence[Confirmed]) -> str | None:
    """The candidate with the best mean validation AUC; None if none was ever trained."""
    candidates = [c for c in confirmed if c.role == "candidate" and c.val_auc]
    best = max(candidates, key=lambda c: float(np.mean(c.val_auc)), default=None)
    return None if best is None else best.name


def _read(
    folder: RunFolder, name: str, role: str, seeds: Sequence[int], dataset: Dataset
) -> Confirmed:
    found = Confirmed(name, role)
    for seed in seeds:
        place = folder.confirmation(name, seed)
        result = place.result() or {"reason": "not finished"}
        if "reason" in result:
            found.reason = str(result["reason"])
            continue
        scores = place.scores()
        _enter(found, seed, scores["validation"], scores["test"], dataset)
        found.best_epoch.append(int(result["best_epoch"]))
    return found


def _enter(
    found: Confirmed, seed: int, validation: Scores, test: Scores, dataset: Dataset
) -> None:
    on_validation = rank(validation, dataset.training.validation.abnormal)
    on_test = rank(test, dataset.test.abnormal)
    found.seeds.append(seed)
    found.val_auc.append(on_validation.roc_auc())
    found.val_ap.append(on_validation.average_precision())
    found.test_auc.append(on_test.roc_auc())
    found.test_ap.append(on_test.average_precision())
    found.test_scores[seed] = test


def _constant(
    name: str, scores: BaselineScores, dataset: Dataset, seeds: Sequence[int]
) -> Confirmed:
    """A baseline as if it had been trained with each seed: it is the same every time."""
    found = Confirmed(name, "baseline")
    for seed in seeds:
        _enter(found, seed, scores.validation, scores.test, dataset)
    return found


def _baseline(name: str, scores: BaselineScores, dataset: Dataset) -> dict[str, Any]:
    once = _constant(name, scores, dataset, [0])
    return {
        "name": name,
        "val_auc": once.val_auc[0],
        "val_ap": once.val_ap[0],
        "test_auc": once.test_auc[0],
        "test_ap": once.test_ap[0],
        "seconds": scores.seconds,
    }


def _pairs(confirmed: Mapping[str, Confirmed]) -> list[tuple[str, str]]:
    """Each candidate against its own control and against the teacher."""
    pairs = []
    for name, found in confirmed.items():
        if found.role == "candidate":
            others = [f"control-of-{name}", "teacher"]
            pairs += [(name, other) for other in others if other in confirmed]
    return pairs


def _difference(of: Confirmed, against: Confirmed, test: LabelledBeats) -> dict[str, Any]:
    """Interval and p-value over the seeds that both have; all None where there are none."""
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
    a, b = (np.stack([c.test_scores[seed] for seed in seeds]) for c in (of, against))
    comparison = compare(a, b, test.abnormal, test.patients)
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
            "AUC",
            seeds=len(seeds),
            beats=len(test.x),
            patients=patients,
        ),
        "per_seed": [
            {
                "seed": seed,
                "estimate": of.test_auc[of.seeds.index(seed)]
                - against.test_auc[against.seeds.index(seed)],
            }
            for seed in seeds
        ],
    }


def _words(found: Confirmed) -> str:
    if found.role == "candidate":
        return f"the student of {found.name.replace('-', ' ')}"
    if found.role == "control":
        return "the same student without distillation"
    if found.role == "teacher":
        return "a network trained by the teacher's recipe"
    return found.name


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
