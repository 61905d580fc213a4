"""The verdict: what the confirmation says, in figures and in sentences.

The choice among the candidates is made on the validation beats alone. Test figures are shown
beside it and decide nothing.
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
from kdsearch.metrics.statistics import (
    Interval,
    bootstrap_difference,
    delong,
    judge,
    paired_by_seed,
    sentence,
)
from kdsearch.runs.folder import RunFolder

Scores = NDArray[np.float32]
RESAMPLES = 300


@dataclass
class Confirmed:
    """One configuration, trained again: a figure per seed that did not diverge."""

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
) -> dict[str, Any]:
    """Judge what a confirmation left in the run folder.

    Args:
        roles: ``candidate``, ``control`` or ``teacher`` by name, the search's best first.
        seeds: The seeds that each was trained with.
        dataset: The beats that the scores belong to.
        baselines: Scores of what anyone would try first, by name.

    Returns:
        The content of ``verdict.json``.
    """
    confirmed = {
        name: _read(folder, name, role, seeds, dataset) for name, role in roles.items()
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
    seeds = [seed for seed in of.seeds if seed in against.seeds]
    a = [of.test_auc[of.seeds.index(seed)] for seed in seeds]
    b = [against.test_auc[against.seeds.index(seed)] for seed in seeds]
    interval = _bounded(
        paired_by_seed(a, b) if seeds else Interval(np.nan, np.nan, np.nan, 0.95)
    )
    return {
        "of": of.name,
        "against": against.name,
        "metric": "test_auc",
        **_plain(interval),
        "judgement": judge(interval),
        "sentence": _sentence(of, against, interval, len(seeds), test),
        "per_seed": [_per_seed(of, against, seed, test) for seed in seeds],
    }


def _bounded(interval: Interval) -> Interval:
    """Two AUCs cannot differ by more than 1, which Student's t does not know."""
    low, high = (float(np.clip(end, -1, 1)) for end in (interval.low, interval.high))
    return Interval(interval.estimate, low, high, interval.confidence)


def _sentence(
    of: Confirmed, against: Confirmed, interval: Interval, seeds: int, test: LabelledBeats
) -> str:
    if seeds == 0:
        return f"{of.name} and {against.name} have no seed in common: {against.reason}"
    patients = None if test.record is None else len(np.unique(test.record))
    return sentence(
        _words(of),
        _words(against),
        interval,
        "AUC",
        seeds=seeds,
        beats=len(test.x),
        patients=patients,
    )


def _words(found: Confirmed) -> str:
    if found.role == "candidate":
        return f"the student of {found.name.replace('-', ' ')}"
    if found.role == "control":
        return "the same student without distillation"
    if found.role == "teacher":
        return "a network trained by the teacher's recipe"
    return found.name


def _per_seed(
    of: Confirmed, against: Confirmed, seed: int, test: LabelledBeats
) -> dict[str, Any]:
    """How sure one pair of networks is, over other beats: by patient where they are known."""
    a, b = of.test_scores[seed], against.test_scores[seed]
    comparison = delong(a, b, test.abnormal)
    interval = comparison.difference
    if test.record is not None and len(np.unique(test.record)) > 1:
        interval = bootstrap_difference(
            a, b, test.abnormal, test.record, resamples=RESAMPLES, seed=seed % 2**31
        )
    return {"seed": seed, **_plain(interval), "p_value": _number(comparison.p_value)}


def _plain(interval: Interval) -> dict[str, float | None]:
    return {
        "estimate": _number(interval.estimate),
        "low": _number(interval.low),
        "high": _number(interval.high),
    }


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
