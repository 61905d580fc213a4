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
from kdsearch.evaluation.baselines import BaselineScores
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import NOT_DISTINGUISHABLE, compare, judge, sentence
from kdsearch.runs.folder import RunFolder

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class SeedResult:
    """The figures of one network on both sets of beats.

    Attributes:
        best_epoch: None for a baseline, which is not trained in epochs.
        test_scores: Anomaly score of each test beat, shape (n,).
    """

    val_auc: float
    val_ap: float
    test_auc: float
    test_ap: float
    best_epoch: int | None
    test_scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the scores, which have their own files."""
        return {name: value for name, value in vars(self).items() if name != "test_scores"}


@dataclass(frozen=True)
class Confirmed:
    """One configuration, trained again with new seeds.

    Attributes:
        seeds: The result of each seed whose training did not fail.
        reason: Why a seed failed, or why none was trained; empty if all are there.
    """

    name: str
    role: str
    seeds: dict[int, SeedResult]
    reason: str = ""

    def mean_val_auc(self) -> float:
        """Return the mean validation AUC over the seeds, of which there must be one."""
        return float(np.mean([result.val_auc for result in self.seeds.values()]))

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as in ``verdict.json``."""
        seeds = {str(seed): result.as_dict() for seed, result in self.seeds.items()}
        return {"name": self.name, "role": self.role, "reason": self.reason, "seeds": seeds}


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
        name: Confirmed(name, role, {}, f"left out, because {left_out[name]}")
        if left_out and name in left_out
        else _read(folder, name, role, seeds, dataset)
        for name, role in roles.items()
    }
    chosen = choose(list(confirmed.values()))
    fitted = {
        name: _measure(scores.validation, scores.test, dataset)
        for name, scores in baselines.items()
    }
    differences = [
        _difference(confirmed[of], confirmed[against], dataset.test)
        for of, against in _pairs(confirmed)
    ]
    if chosen is not None:
        # A baseline is the same with each seed.
        differences += [
            _difference(
                confirmed[chosen],
                Confirmed(name, "baseline", dict.fromkeys(seeds, result)),
                dataset.test,
            )
            for name, result in fitted.items()
        ]
    return {
        "chosen": chosen,
        "sentences": [d["sentence"] for d in differences if d["of"] == chosen],
        "configurations": [c.as_dict() for c in confirmed.values()],
        "differences": differences,
        "baselines": [
            {"name": name, **result.as_dict(), "seconds": baselines[name].seconds}
            for name, result in fitted.items()
        ],
    }


def choose(confirmed: Sequence[Confirmed]) -> str | None:
    """Return the candidate with the best mean validation AUC; None if none was trained."""
    candidates = [c for c in confirmed if c.role == "candidate" and c.seeds]
    best = max(candidates, key=Confirmed.mean_val_auc, default=None)
    return None if best is None else best.name


def _read(
    folder: RunFolder, name: str, role: str, seeds: Sequence[int], dataset: Dataset
) -> Confirmed:
    results, reason = {}, ""
    for seed in seeds:
        confirmation = folder.confirmation(name, seed)
        result = confirmation.result() or {"reason": "not finished"}
        if "reason" in result:
            reason = str(result["reason"])
            continue
        scores, best_epoch = confirmation.scores(), int(result["best_epoch"])
        results[seed] = _measure(scores["validation"], scores["test"], dataset, best_epoch)
    return Confirmed(name, role, results, reason)


def _measure(
    validation: Scores, test: Scores, dataset: Dataset, best_epoch: int | None = None
) -> SeedResult:
    on_validation = rank(validation, dataset.training.validation.abnormal)
    on_test = rank(test, dataset.test.abnormal)
    return SeedResult(
        val_auc=on_validation.roc_auc(),
        val_ap=on_validation.average_precision(),
        test_auc=on_test.roc_auc(),
        test_ap=on_test.average_precision(),
        best_epoch=best_epoch,
        test_scores=test,
    )


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
    a, b = (np.stack([c.seeds[seed].test_scores for seed in seeds]) for c in (of, against))
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
    if found.role == "teacher":
        return "a network trained by the teacher's recipe"
    return found.name


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
