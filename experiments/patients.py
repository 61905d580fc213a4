"""New patients, scored as ANSI/AAMI EC57 asks: chosen on DS1 alone, then tested on DS2.

    python -m experiments.patients --data path/to/mitdb --step choose
    python -m experiments.patients --data path/to/mitdb --step test

The first five minutes of each record are adapted to and not scored. To choose, DS1's records
are divided into five folds: detectors learn the normal beats of four and score the fifth, and
the best mean AUC of the folds wins: first among memories, then among students of the best one,
then among the intervals to which the memory compares those before and after a beat. These are
the patient's own of the first five minutes, as in the package, or those of the beats around, as
de Chazal et al. have them; that is no part of the package.
The scores of all five folds together give each detector its threshold, that of the best F1.
What is chosen is written into `frozen.md` before the second step, in which it learns the normal
beats of all of DS1 and scores DS2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.memory import METHOD, WITH_CONTEXT, Lessons, trained
from experiments.table import Table, add_data
from kdsearch.data import Beats, DataSettings, cache_dir, load_beats, normalise
from kdsearch.data.beats import (
    NORMAL,
    FloatArray,
    IndexArray,
    LabelledBeats,
    Moments,
    TrainingData,
)
from kdsearch.data.context import adapted, references, with_context
from kdsearch.data.mitbih import DS1, DS2
from kdsearch.evaluation.baselines import three_numbers
from kdsearch.methods.memory.settings import StudentSettings, TeacherSettings
from kdsearch.methods.memory.teacher import fill, recall
from kdsearch.methods.protocol import State
from kdsearch.metrics.ranking import evaluate, rank
from kdsearch.metrics.statistics import compare
from kdsearch.student.student import COMPUTE

FOLDS, TRAINED, NORMALS = 5, 12_000, 2500
SEEDS = range(1, 4)
# Both leads; the rhythm's weight; those of the samples before and after the QRS complex.
LEADS, COMPONENTS, RHYTHMS = (1, 2), (10, 20, 40), (0.35, 0.7, 1.4)
WEIGHTS = ((1.0, 1.0), (1.5, 0.7))
# How many beats on each side, 0 for the first five minutes; which quantile of their intervals.
RHYTHMS_OF = ((0, 0.9), *product((5, 10, 30), (0.5, 0.75, 0.9)))
# Width, and the weight of telling distorted beats.
STUDENTS = ((64, 0.0), (64, 0.03))
BEFORE = "memory, as before"
MEMORY = "memory"
STUDENT, CONTROL = "student, taught, as before", "student, not taught, as before"
NUMBERS, NUMBERS_AROUND = "three numbers, as before", "three numbers"
COMPARED = (
    (MEMORY, BEFORE),
    (MEMORY, NUMBERS_AROUND),
    (BEFORE, NUMBERS),
    (STUDENT, BEFORE),
    (STUDENT, CONTROL),
    (STUDENT, NUMBERS),
)

Score = Callable[[FloatArray], NDArray[np.float32]]
# Beats to learn from, shape (n, leads, length), and a seed, to a detector.
Fit = Callable[[FloatArray, int], Score]


@dataclass(frozen=True)
class Detector:
    """A detector that can be fitted.

    Attributes:
        leads: Of a beat, without those of its context.
        rhythm: Of ``RHYTHMS_OF``.
        fit: Learns from normal beats.
        seeds: Of its trainings.
    """

    leads: int
    rhythm: tuple[int, float]
    fit: Fit
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Patients:
    """The beats of some records beside their patients' own.

    Attributes:
        x: Shape (n, 2 * leads + 1, length).
        classes: Shape (n,).
        record: Shape (n,).
        scored: Which are not of the first five minutes, shape (n,).
    """

    x: FloatArray
    classes: NDArray[np.str_]
    record: NDArray[np.str_]
    scored: NDArray[np.bool_]

    @property
    def abnormal(self) -> NDArray[np.bool_]:
        """Which are abnormal, shape (n,)."""
        return np.asarray(self.classes != NORMAL)

    def to_learn(self, rows: IndexArray) -> FloatArray:
        """Some of the normal beats among these rows."""
        normal = rows[~self.abnormal[rows]]
        chosen: FloatArray = self.x[np.random.default_rng(0).permutation(normal)[:TRAINED]]
        return chosen

    def folds(self) -> Iterator[tuple[FloatArray, IndexArray]]:
        """Beats to learn from, and rows of other records to score."""
        names = np.unique(self.record)
        for fold in range(FOLDS):
            out = np.isin(self.record, names[fold::FOLDS])
            yield self.to_learn(np.flatnonzero(~out)), np.flatnonzero(out & self.scored)


def main() -> None:
    """Measure what is missing in the tables."""
    parser = add_data(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--step", choices=("choose", "test"), required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    beats = load_beats(DataSettings(source=options.data), cache_dir())
    if options.step == "choose":
        _choose_memory(beats)
        _choose_student(beats)
        _choose_rhythm(beats)
        _thresholds(beats)
    else:
        _test(beats)


def patients(
    beats: Beats, records: tuple[str, ...], leads: int, rhythm: tuple[int, float]
) -> Patients:
    """The beats of these records, with their context."""
    assert beats.record is not None
    assert beats.moments is not None
    rows = np.flatnonzero(np.isin(beats.record, records))
    x, record = np.asarray(beats.x[rows, :leads]), np.asarray(beats.record[rows])
    moments = beats.moments[rows]
    own = references(x, record, moments)
    if rhythm[0]:
        own_s = np.array([own[str(name)].interval_s for name in record])
        scale = own_s / intervals_around(record, moments, *rhythm)
        compared = Moments(moments.time_s, moments.before_s * scale, moments.after_s * scale)
    else:
        compared = moments
    return Patients(
        with_context(normalise(x), record, compared, own),
        np.asarray(beats.classes[rows]),
        record,
        ~adapted(record, moments),
    )


def intervals_around(
    record: NDArray[np.str_], moments: Moments, beats: int, quantile: float
) -> NDArray[np.float64]:
    """A quantile of the intervals before the beats around each beat, shape (n,)."""
    found = np.empty(len(record))
    for name in np.unique(record):
        rows = np.flatnonzero(record == name)
        before_s = moments.before_s[rows]
        before_s = np.where(np.isfinite(before_s), before_s, np.nanmedian(before_s))
        padded = np.pad(before_s, beats, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * beats + 1)
        found[rows] = np.quantile(windows, quantile, axis=1)
    return found


def _choose_memory(beats: Beats) -> None:
    table = Table("patient_memories.csv", ("leads", "components", "rhythm", "before", "after"))
    for leads in LEADS:
        data = patients(beats, DS1, leads, RHYTHMS_OF[0])
        for components, rhythm, (before, after) in product(COMPONENTS, RHYTHMS, WEIGHTS):
            choice = {
                "leads": leads,
                "components": components,
                "rhythm": rhythm,
                "before": before,
                "after": after,
            }
            if not table.has(*(f"{value:g}" for value in choice.values())):
                fit = partial(_fit_memory, _memory_settings(choice))
                table.add({**choice, **_cross_validated(data, fit)})


def _choose_rhythm(beats: Beats) -> None:
    table = Table("patient_rhythms.csv", ("beats", "quantile"))
    memory = partial(_fit_memory, _chosen_memory())
    for around, quantile in RHYTHMS_OF:
        if not table.has(around, f"{quantile:g}"):
            data = patients(beats, DS1, _chosen_leads(), (around, quantile))
            found = _cross_validated(data, memory)
            table.add({"beats": around, "quantile": quantile, **found})


def _choose_student(beats: Beats) -> None:
    table = Table("patient_students.csv", ("width", "w_contrast"))
    data = patients(beats, DS1, _chosen_leads(), RHYTHMS_OF[0])
    for width, contrast in STUDENTS:
        if not table.has(width, f"{contrast:g}"):
            settings = StudentSettings(width=width, w_contrast=contrast)
            found = _cross_validated(data, partial(_fit_student, settings))
            table.add({"width": width, "w_contrast": contrast, **found})


def _cross_validated(data: Patients, fit: Fit) -> dict[str, object]:
    """Mean figures of the folds, by all abnormal and some of the normal beats."""
    areas, precisions = [], []
    for train, rows in data.folds():
        abnormal = data.abnormal[rows]
        some = np.random.default_rng(1).permutation(rows[~abnormal])[:NORMALS]
        asked = np.concatenate([rows[abnormal], some])
        ranking = rank(fit(train, 1)(data.x[asked]), data.abnormal[asked])
        areas.append(ranking.roc_auc())
        precisions.append(ranking.average_precision())
    return {
        "auc": float(np.mean(areas)),
        "worst_fold": min(areas),
        "ap": float(np.mean(precisions)),
    }


def detectors() -> dict[str, Detector]:
    """What is compared: the chosen ones, and what they have to be better than."""
    leads, memory = _chosen_leads(), _chosen_memory()
    best = _best("patient_students.csv")
    student = StudentSettings(width=int(best["width"]), w_contrast=float(best["w_contrast"]))
    control = student.changed(alpha=0, w_contrast=0.3)
    before = TeacherSettings.model_validate(list(WITH_CONTEXT.values())[-1])
    seeds, rhythm, before_rhythm = tuple(SEEDS), _chosen_rhythm(), RHYTHMS_OF[0]
    return {
        NUMBERS: Detector(1, before_rhythm, _fit_numbers),
        NUMBERS_AROUND: Detector(1, rhythm, _fit_numbers),
        BEFORE: Detector(1, before_rhythm, partial(_fit_memory, before)),
        MEMORY: Detector(leads, rhythm, partial(_fit_memory, memory)),
        STUDENT: Detector(leads, before_rhythm, partial(_fit_student, student), seeds),
        CONTROL: Detector(leads, before_rhythm, partial(_fit_student, control), seeds),
    }


def _thresholds(beats: Beats) -> None:
    """The best F1 of all five folds together, and the figures there."""
    table = Table("patient_thresholds.csv", ("detector",))
    for name, detector in detectors().items():
        if table.has(name):
            continue
        data = patients(beats, DS1, detector.leads, detector.rhythm)
        scores, asked = [], []
        for train, rows in data.folds():
            scores.append(detector.fit(train, 1)(data.x[rows]))
            asked.append(rows)
        rows, found = np.concatenate(asked), np.concatenate(scores)
        threshold = rank(found, data.abnormal[rows]).best_f1()[1]
        table.add(
            {
                "detector": name,
                "threshold": threshold,
                **_figures(found, data.classes[rows], threshold),
            }
        )


def _test(beats: Beats) -> None:
    table = Table("patient_test.csv", ("detector", "seed"))
    thresholds = {
        row["detector"]: float(row["threshold"])
        for row in Table("patient_thresholds.csv", ("detector",)).rows
    }
    scores: dict[str, list[NDArray[np.float32]]] = {}
    for name, detector in detectors().items():
        known, asked = (
            patients(beats, records, detector.leads, detector.rhythm) for records in (DS1, DS2)
        )
        train = known.to_learn(np.arange(len(known.x)))
        for seed in detector.seeds:
            found = detector.fit(train, seed)(asked.x[asked.scored])
            scores.setdefault(name, []).append(found)
            figures = _figures(found, asked.classes[asked.scored], thresholds[name])
            table.add({"detector": name, "seed": seed, **figures})
    classes, record = asked.classes[asked.scored], asked.record[asked.scored]
    _comparisons(scores, classes != NORMAL, record)
    _records(scores, classes != NORMAL, record, thresholds)


def _comparisons(
    scores: Mapping[str, list[NDArray[np.float32]]],
    abnormal: NDArray[np.bool_],
    record: NDArray[np.str_],
) -> None:
    """Differences for other seeds and other patients."""
    table = Table("patient_comparisons.csv", ("first", "second"))
    for first, second in COMPARED:
        if first not in scores or table.has(first, second):
            continue
        # A detector without seeds is its own repetition.
        a, b = (
            np.stack(scores[name] * (len(SEEDS) // len(scores[name])))
            for name in (first, second)
        )
        found = compare(a, b, abnormal, record).difference
        table.add(
            {
                "first": first,
                "second": second,
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
            }
        )


def _records(
    scores: Mapping[str, list[NDArray[np.float32]]],
    abnormal: NDArray[np.bool_],
    record: NDArray[np.str_],
    thresholds: Mapping[str, float],
) -> None:
    """Figures of each record, means over seeds; empty where they are not defined."""
    table = Table("patient_records.csv", ("detector", "record"))
    for name in (BEFORE, MEMORY, STUDENT):
        for one in np.unique(record) if name in scores else ():
            here = record == one
            found = [
                _of_record(s[here], abnormal[here], thresholds[name]) for s in scores[name]
            ]
            table.add(
                {
                    "detector": name,
                    "record": one,
                    "beats": int(here.sum()),
                    "abnormal": int(abnormal[here].sum()),
                    **{key: _mean([figures[key] for figures in found]) for key in found[0]},
                }
            )


def _of_record(
    scores: NDArray[np.float32], abnormal: NDArray[np.bool_], threshold: float
) -> dict[str, float]:
    called = scores >= threshold
    both = bool(abnormal.any() and not abnormal.all())
    return {
        "auc": rank(scores, abnormal).roc_auc() if both else np.nan,
        "sensitivity": float(called[abnormal].mean()) if abnormal.any() else np.nan,
        "specificity": float(1 - called[~abnormal].mean()) if not abnormal.all() else np.nan,
        "ppv": float(abnormal[called].mean()) if called.any() else np.nan,
    }


def _mean(values: list[float]) -> float | str:
    return float(np.mean(values)) if np.isfinite(values).all() else ""


def _figures(
    scores: NDArray[np.float32], classes: NDArray[np.str_], threshold: float
) -> dict[str, object]:
    found = evaluate(scores, classes, threshold=threshold)
    return {
        "auc": found.roc_auc,
        "ap": found.average_precision,
        **{f"auc_{label}": found.classes[label].roc_auc for label in "SVF"},
        "sensitivity": found.confusion.sensitivity,
        "specificity": found.confusion.specificity,
        "ppv": found.confusion.ppv or 0.0,
    }


def _best(table: str) -> dict[str, str]:
    return max(Table(table, ()).rows, key=lambda row: float(row["auc"]))


def _chosen_leads() -> int:
    return int(_best("patient_memories.csv")["leads"])


def _chosen_rhythm() -> tuple[int, float]:
    best = _best("patient_rhythms.csv")
    return int(best["beats"]), float(best["quantile"])


def _chosen_memory() -> TeacherSettings:
    return _memory_settings(_best("patient_memories.csv"))


def _memory_settings(choice: Mapping[str, object]) -> TeacherSettings:
    return TeacherSettings(
        view="patient",
        neighbours=15,
        density=0,
        components=int(str(choice["components"])),
        weight_rhythm=float(str(choice["rhythm"])),
        weight_before=float(str(choice["before"])),
        weight_after=float(str(choice["after"])),
    )


def _fit_numbers(train: FloatArray, seed: int) -> Score:
    score = three_numbers(train.reshape(len(train), -1), *train.shape[1:])
    return lambda x: score(x.reshape(len(x), -1)).astype(np.float32)


def _fit_memory(settings: TeacherSettings, train: FloatArray, seed: int) -> Score:
    return partial(recall, fill(settings, torch.tensor(train), context=True))


def _fit_student(settings: StudentSettings, train: FloatArray, seed: int) -> Score:
    key = settings.model_dump_json(), hash(train.tobytes()), seed
    if key not in _TRAINED:
        teacher = fill(_chosen_memory(), torch.tensor(train), context=True)
        # No epoch is chosen: the last one counts.
        few = LabelledBeats(train[:2], np.array([False, True]), np.array(["N", "V"]), None)
        data = TrainingData(train, few, context=True)
        targets = Lessons(teacher, train, context=True).of("", {})
        _TRAINED[key] = trained(settings, seed, data, teacher, targets)
    weights = _TRAINED[key]
    return lambda x: METHOD.score(weights, x, COMPUTE)


_TRAINED: dict[tuple[str, int, int], State] = {}


if __name__ == "__main__":
    main()
