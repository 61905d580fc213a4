"""Split beats into training (normal beats only), validation and test."""

from __future__ import annotations

import numpy as np

from kdsearch.data.beats import (
    AAMI_CLASSES,
    NORMAL,
    Beats,
    BoolArray,
    IndexArray,
    Split,
    TextArray,
)
from kdsearch.data.context import adapted
from kdsearch.data.mitbih import DS1, DS2
from kdsearch.data.randomness import Purpose, generator
from kdsearch.data.settings import DataSettings, SplitKind
from kdsearch.errors import DataError

FOLDS = 5
VALIDATION_SHARE = 0.1
# Held out of DS1: a quarter of its normal beats, 582 S, 1,525 V and 390 F beats. Record 208
# must be among them, because it has nearly all of DS1's F beats.
DS1_VALIDATION = ("114", "118", "208", "209", "223")
# Number of random divisions of the records that are tried before an error.
DIVISIONS_TRIED = 200


def resolve(beats: Beats, settings: DataSettings) -> SplitKind:
    """Return the split; ``auto`` is ``fold`` if the beats have AAMI classes."""
    if settings.split != "auto":
        return settings.split
    known = set(np.unique(beats.classes).tolist())
    return "fold" if known <= set(AAMI_CLASSES) else "stratified"


def split(beats: Beats, settings: DataSettings) -> Split:
    """Divide the beats into training, validation and test.

    ``fold``: like the published division, with other random numbers, for its authors shuffled
    their beats without a seed; patients are on both sides. Fold k of five of the shuffled
    normal beats is the test set, 10 % of the other normal beats and of each abnormal class
    are validation, and the other abnormal beats are test.
    ``inter_patient``: no patient on two sides. For MIT-BIH the test set is DS2 and validation
    five records of DS1, as in all literature, although one man has a record on both sides
    (201 and 202); elsewhere half of the patients, chosen by seed, are test and a quarter of the
    others validation. Abnormal beats of training patients are not used.
    ``stratified``: 60 % of the normal beats train, 20 % validate and 20 % test; each abnormal
    class is halved between validation and test.
    With ``context: patient`` the beats of each record's first five minutes, to which a detector
    adapts, are neither validated nor tested (ANSI/AAMI EC57); in a record that is no longer,
    all are.

    Returns:
        Row numbers, sorted.

    Raises:
        DataError: A part has no normal beats, or validation or test has no abnormal ones;
            or the patients are not known.
    """
    normal = beats.classes == NORMAL
    for name, found in (("normal", normal), ("abnormal", ~normal)):
        if not found.any():
            raise DataError(f"{beats.description}: no {name} beats, but both kinds are needed")
    kind = resolve(beats, settings)
    if kind == "fold":
        parts = _by_fold(beats.classes, settings.fold, settings.seed)
    elif kind == "stratified":
        parts = _stratified(beats.classes, settings.seed)
    else:
        parts = _by_patient(beats, settings.seed)
    if settings.context == "patient":
        asked = ~_adapted(beats)
        validation, test = (rows[asked[rows]] for rows in (parts.validation, parts.test))
        parts = Split(parts.train, validation, test)
    missing = _missing(beats.classes, parts)
    if missing:
        raise DataError(
            f"{beats.description}: the split '{kind}' leaves {missing}; "
            "use more beats or another data.split"
        )
    return parts


def _adapted(beats: Beats) -> BoolArray:
    """Which beats are only adapted to, shape (n,)."""
    assert beats.record is not None
    assert beats.moments is not None
    early = adapted(beats.record, beats.moments)
    return early & np.isin(beats.record, np.unique(beats.record[~early]))


def _by_fold(classes: TextArray, fold: int, seed: int) -> Split:
    train, validation, test = [], [], []
    for name, rows in _shuffled_classes(classes, seed):
        if name == NORMAL:
            size = len(rows) // FOLDS
            in_test = np.zeros(len(rows), dtype=np.bool_)
            in_test[fold * size : (fold + 1) * size] = True
            test.append(rows[in_test])
            others = rows[~in_test]
            held_out = int(VALIDATION_SHARE * len(others))
            train.append(others[held_out:])
            validation.append(others[:held_out])
        else:
            held_out = max(int(VALIDATION_SHARE * len(rows)), int(len(rows) >= 2))
            validation.append(rows[:held_out])
            test.append(rows[held_out:])
    return _sorted_split(train, validation, test)


def _stratified(classes: TextArray, seed: int) -> Split:
    train, validation, test = [], [], []
    for name, rows in _shuffled_classes(classes, seed):
        trained = len(rows) * 3 // 5 if name == NORMAL else 0
        validated = trained + (len(rows) - trained) // 2
        train.append(rows[:trained])
        validation.append(rows[trained:validated])
        test.append(rows[validated:])
    return _sorted_split(train, validation, test)


def _by_patient(beats: Beats, seed: int) -> Split:
    if beats.record is None:
        raise DataError(
            f"{beats.description}: the split 'inter_patient' needs the patient of each beat; "
            "give an array 'record', or use another data.split"
        )
    if set(np.unique(beats.record).tolist()) <= {*DS1, *DS2}:
        return _divided(beats.classes, beats.record, np.array(DS1_VALIDATION), np.array(DS2))
    assert beats.patients is not None
    patients = np.unique(beats.patients)
    rng = generator(seed, Purpose.SPLIT)
    for _ in range(DIVISIONS_TRIED):
        shuffled = rng.permutation(patients)
        half = len(patients) // 2
        quarter = max(1, (len(patients) - half) // 4)
        validation, test = shuffled[half : half + quarter], shuffled[:half]
        parts = _divided(beats.classes, beats.patients, validation, test)
        if not _missing(beats.classes, parts):
            break
    return parts


def _divided(
    classes: TextArray, of: TextArray, validation: TextArray, test: TextArray
) -> Split:
    """Divide beats by their record or patient."""
    in_validation = np.isin(of, validation)
    in_test = np.isin(of, test)
    in_train = ~in_validation & ~in_test & (classes == NORMAL)
    return Split(_rows(in_train), _rows(in_validation), _rows(in_test))


def _missing(classes: TextArray, parts: Split) -> str:
    """Return what the parts lack, in words; empty if nothing."""
    lacks = []
    if len(parts.train) == 0:
        lacks.append("no normal beats to train on")
    for name, rows in (("validation", parts.validation), ("test", parts.test)):
        normal = classes[rows] == NORMAL
        lacks += [f"no normal beats for {name}"] * (not normal.any())
        lacks += [f"no abnormal beats for {name}"] * (not (~normal).any())
    return ", ".join(lacks)


def limit_training(rows: IndexArray, limit: int | None, seed: int) -> IndexArray:
    """A random choice of rows, sorted; a smaller limit chooses among those of a larger one."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(generator(seed, Purpose.TRAIN_LIMIT).permutation(rows)[:limit])


def limit_validation(
    rows: IndexArray, classes: TextArray, limit: int | None, seed: int
) -> IndexArray:
    """A random choice of rows, sorted, in which each class keeps its share.

    Args:
        rows: Rows to choose from.
        classes: Class of each of them, same shape.
        limit: How many; at least 2. Each class keeps at least one beat if that is possible,
            the normal class and the largest abnormal one always.
        seed: Of the choice.
    """
    if limit is None or limit >= len(rows):
        return rows
    rng = generator(seed, Purpose.VALIDATION_LIMIT)
    names, counts = np.unique(classes, return_counts=True)
    quotas = _quotas(names, counts, limit)
    chosen = [
        rng.permutation(rows[classes == name])[:quota]
        for name, quota in zip(names, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _quotas(names: TextArray, counts: IndexArray, limit: int) -> IndexArray:
    """Divide ``limit`` in proportion to ``counts``, first giving one to each class."""
    order = np.lexsort((-counts, names != NORMAL))
    quotas = np.zeros_like(counts)
    quotas[order[:limit]] = 1
    ideal = counts * (limit / counts.sum())
    while quotas.sum() < limit:
        quotas[np.argmax(ideal - quotas)] += 1
    return quotas


def _shuffled_classes(classes: TextArray, seed: int) -> list[tuple[str, IndexArray]]:
    names = np.unique(classes).tolist()
    return [
        (name, generator(seed, Purpose.SPLIT, index).permutation(_rows(classes == name)))
        for index, name in enumerate(names)
    ]


def _rows(chosen: BoolArray) -> IndexArray:
    return np.flatnonzero(chosen).astype(np.int64)


def _sorted_split(
    train: list[IndexArray], validation: list[IndexArray], test: list[IndexArray]
) -> Split:
    parts = (np.sort(np.concatenate(part)) for part in (train, validation, test))
    return Split(*parts)
