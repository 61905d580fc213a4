"""How a beat is compared with its patient's own: chosen on DS1 alone, in five folds of it.

    python -m experiments.context --data path/to/mitdb

A memory of how the normal beats of four fifths of DS1's records differ from their patients' own
scores the beats of the others, fold by fold. Once records are as they are; once those with
many abnormal beats are thinned until three of four beats are abnormal, as in one of DS2's. The
quantile says which beats are late. The spread divides differences by that power of how much
the patient's own beats differ among themselves, in shape and in rhythm; it is no part of the
package, and its rows for DS2 say why.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from experiments.table import Table, add_data
from kdsearch.data import Beats, DataSettings, cache_dir, load_beats, normalise
from kdsearch.data.beats import BoolArray, FloatArray, IndexArray
from kdsearch.data.context import ADAPTED_S, references, with_context
from kdsearch.data.mitbih import DS1, DS2
from kdsearch.data.splits import DS1_VALIDATION
from kdsearch.methods.memory.settings import TeacherSettings
from kdsearch.methods.memory.teacher import fill, recall
from kdsearch.metrics.ranking import rank

# 0 is the median of all of the first beats.
QUANTILES = (0.0, 0.5, 0.75, 0.9, 0.95)
CHOSEN = 0.9
SPREADS = (0.25, 0.5, 0.75, 1.0)
# Of most patients, about: root mean square of differences, and of logarithms of intervals.
TYPICAL_SHAPE, TYPICAL_RHYTHM = 0.075, 0.05
FOLDS, TRAINED, NORMALS = 5, 8000, 2500
FEWEST_ABNORMAL, NORMALS_LEFT = 60, 1 / 3
MEMORY = TeacherSettings(
    view="patient", neighbours=15, density=0, weight_before=1, weight_after=1
)


@dataclass(frozen=True)
class Choice:
    """One way to compare; a row of the table."""

    quantile: float
    spread: float


def main() -> None:
    """Measure what is missing in the table."""
    options = add_data(argparse.ArgumentParser(description=__doc__)).parse_args()
    torch.set_num_threads(1)
    table = Table("context.csv", ("records", "quantile", "spread"))
    whole = _one_lead(load_beats(DataSettings(source=options.data), cache_dir()))
    beats = _of(whole, DS1)
    choices = [Choice(quantile, 0.0) for quantile in QUANTILES]
    choices += [Choice(CHOSEN, spread) for spread in SPREADS]
    for records, kept in (("DS1, five folds", None), ("DS1, thinned", _thinned(beats))):
        for choice in choices:
            if not _has(table, records, choice):
                _add(table, records, choice, _cross_validated(beats, kept, choice))
    for spread in (0.0, 0.5):
        choice = Choice(CHOSEN, spread)
        if not _has(table, "DS2, the test set", choice):
            _add(table, "DS2, the test set", choice, [_tested(whole, choice)])


def _has(table: Table, records: str, choice: Choice) -> bool:
    return table.has(records, f"{choice.quantile:g}", f"{choice.spread:g}")


def _add(table: Table, records: str, choice: Choice, areas: list[float]) -> None:
    table.add(
        {
            "records": records,
            "quantile": choice.quantile,
            "spread": choice.spread,
            "auc": float(np.mean(areas)),
            "worst_fold": min(areas),
        }
    )


def _one_lead(beats: Beats) -> Beats:
    return replace(beats, x=np.asarray(beats.x[:, :1]))


def _of(beats: Beats, records: tuple[str, ...]) -> Beats:
    assert beats.record is not None
    assert beats.moments is not None
    rows = np.flatnonzero(np.isin(beats.record, records))
    return replace(
        beats,
        x=beats.x[rows],
        classes=beats.classes[rows],
        record=beats.record[rows],
        moments=beats.moments[rows],
    )


def _thinned(beats: Beats) -> BoolArray:
    """Abnormal beats and a third as many normal ones, of the records that have enough."""
    rng = np.random.default_rng(1)
    kept = np.zeros(len(beats.x), dtype=np.bool_)
    for record in DS1:
        here = beats.record == record
        abnormal = here & (beats.classes != "N")
        if abnormal.sum() >= FEWEST_ABNORMAL:
            normal = rng.permutation(np.flatnonzero(here & ~abnormal))
            kept[normal[: max(20, int(abnormal.sum() * NORMALS_LEFT))]] = True
            kept[abnormal] = True
    return kept


def _cross_validated(beats: Beats, kept: BoolArray | None, choice: Choice) -> list[float]:
    """Area under the ROC curve of each fold."""
    assert beats.moments is not None
    whole = _beside_own(beats, np.arange(len(beats.x)), choice)
    asked = whole
    if kept is not None:
        # Too few beats are left of five minutes: thinned records are taken as one moment.
        moments = replace(beats.moments, time_s=np.zeros(len(beats.x)))
        rows = np.flatnonzero(kept)
        asked = whole.copy()
        asked[rows] = _beside_own(replace(beats, moments=moments), rows, choice)
    areas = []
    for train, test in _folds(beats, kept):
        memory = fill(MEMORY, torch.tensor(whole[train]), context=True)
        areas.append(rank(recall(memory, asked[test]), beats.classes[test] != "N").roc_auc())
    return areas


def _tested(beats: Beats, choice: Choice) -> float:
    """Area under the ROC curve of DS2, by a memory of what is not validation in DS1."""
    trained = tuple(name for name in DS1 if name not in DS1_VALIDATION)
    known, asked = _of(beats, trained), _of(beats, DS2)
    train = _beside_own(known, np.flatnonzero(known.classes == "N"), choice, known)
    memory = fill(MEMORY, torch.tensor(train), context=True)
    scores = recall(memory, _beside_own(asked, np.arange(len(asked.x)), choice))
    return rank(scores, asked.classes != "N").roc_auc()


def _beside_own(
    beats: Beats, rows: IndexArray, choice: Choice, known: Beats | None = None
) -> FloatArray:
    """Beats of these rows with their context, by all beats of ``known`` or by these alone."""
    assert beats.record is not None
    assert beats.moments is not None
    x, record, moments = beats.x[rows], beats.record[rows], beats.moments[rows]
    source = known or replace(beats, x=x, record=record, moments=moments)
    assert source.record is not None
    assert source.moments is not None
    own = references(source.x, source.record, source.moments, choice.quantile)
    found = with_context(normalise(x), record, moments, own)
    if choice.spread:
        _divide(found, record, moments.before_s, moments.time_s, choice)
    return found


def _divide(
    x: FloatArray, record: np.ndarray, before_s: np.ndarray, time_s: np.ndarray, choice: Choice
) -> None:
    """Differences and rhythm, in place, by each patient's own spread of the first minutes."""
    for name in np.unique(record):
        here = np.flatnonzero(record == name)
        early = here[time_s[here] < time_s[here].min() + ADAPTED_S]
        early = early[np.isfinite(before_s[early])]
        late = early[before_s[early] >= np.quantile(before_s[early], choice.quantile)]
        shape = np.sqrt(np.median((x[late, 1] ** 2).mean(axis=1)))
        logs = np.log(before_s[early])
        rhythm = max(np.median(np.abs(logs - np.median(logs))), 0.01)
        x[here, 1] *= (TYPICAL_SHAPE / shape) ** choice.spread
        x[here, 2] *= (TYPICAL_RHYTHM / rhythm) ** choice.spread


def _folds(beats: Beats, kept: BoolArray | None) -> Iterator[tuple[IndexArray, IndexArray]]:
    """Normal beats to remember, and beats of other patients."""
    rng = np.random.default_rng(0)
    normal = beats.classes == "N"
    for fold in range(FOLDS):
        assert beats.record is not None
        out = np.isin(beats.record, sorted(DS1)[fold::FOLDS])
        train = rng.permutation(np.flatnonzero(~out & normal))[:TRAINED]
        some = rng.permutation(np.flatnonzero(out & normal))[:NORMALS]
        test = np.concatenate([np.flatnonzero(out & ~normal), some])
        yield train, test if kept is None else np.flatnonzero(out & kept)


if __name__ == "__main__":
    main()
