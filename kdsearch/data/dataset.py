"""From beats to what a method learns from: split, limited, normalised, augmented, padded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from kdsearch.data.augment import time_warp
from kdsearch.data.beats import (
    NORMAL,
    Beats,
    Dataset,
    FloatArray,
    IndexArray,
    LabelledBeats,
    Split,
    TrainingData,
    normalise,
    pad,
)
from kdsearch.data.randomness import Purpose, generator
from kdsearch.data.settings import DataSettings
from kdsearch.data.sources import load_beats
from kdsearch.data.splits import limit_training, limit_validation, resolve, split
from kdsearch.errors import DataError

# Part of the fingerprint: raise it whenever the same beats and settings would give other data.
VERSION = 1


def load_dataset(settings: DataSettings, cache: Path) -> Dataset:
    """Beats of a source, split and ready to learn from.

    Args:
        settings: Source, split, limits and augmentation.
        cache: Folder for what is cut or downloaded only once, see `kdsearch.data.cache_dir`.

    Raises:
        DataError: The beats cannot be read or split as asked.
    """
    return prepare(load_beats(settings, cache), settings)


def prepare(beats: Beats, settings: DataSettings) -> Dataset:
    """Split, limit, normalise, augment and pad beats that are loaded already.

    Augmentation comes after normalising, as in BeatGAN, and touches training beats alone.

    Raises:
        DataError: The beats have too few leads, or cannot be split as asked.
    """
    if beats.x.shape[1] < settings.leads:
        raise DataError(
            f"{beats.description}: data.leads is {settings.leads}, "
            f"but the beats have {beats.x.shape[1]}"
        )
    rows = _limited(beats, split(beats, settings), settings)
    train = time_warp(
        normalise(_select(beats, rows.train, settings.leads)),
        settings.n_aug,
        generator(settings.seed, Purpose.AUGMENTATION),
    )
    validation = _labelled(beats, rows.validation, settings.leads)
    test = _labelled(beats, rows.test, settings.leads)
    return Dataset(
        training=TrainingData(np.ascontiguousarray(pad(train)), validation),
        test=test,
        fingerprint=_fingerprint(beats, settings),
        description=_describe(beats, settings, len(rows.train), validation, test),
        simulated=beats.simulated,
        length=beats.x.shape[2],
        cutting=beats.cutting,
    )


def _limited(beats: Beats, parts: Split, settings: DataSettings) -> Split:
    classes = beats.classes[parts.validation]
    return Split(
        limit_training(parts.train, settings.train_limit, settings.seed),
        limit_validation(parts.validation, classes, settings.validation_limit, settings.seed),
        parts.test,
    )


def _select(beats: Beats, rows: IndexArray, leads: int) -> FloatArray:
    # Leads first, so that a memory map is not read for what is not used.
    return np.asarray(beats.x[:, :leads][rows])


def _labelled(beats: Beats, rows: IndexArray, leads: int) -> LabelledBeats:
    classes = np.asarray(beats.classes[rows])
    return LabelledBeats(
        x=np.ascontiguousarray(pad(normalise(_select(beats, rows, leads)))),
        abnormal=classes != NORMAL,
        classes=classes,
        record=None if beats.record is None else np.asarray(beats.record[rows]),
    )


def _fingerprint(beats: Beats, settings: DataSettings) -> str:
    kind = resolve(beats, settings)
    parts = {
        "version": VERSION,
        "beats": beats.fingerprint,
        "leads": settings.leads,
        "split": kind,
        # Settings that change nothing here must not make a trained teacher look like another.
        "fold": settings.fold if kind == "fold" else None,
        "n_aug": settings.n_aug,
        "train_limit": settings.train_limit,
        "validation_limit": settings.validation_limit,
        "seed": settings.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe(
    beats: Beats,
    settings: DataSettings,
    trained: int,
    validation: LabelledBeats,
    test: LabelledBeats,
) -> str:
    kind = resolve(beats, settings)
    name = f"fold {settings.fold} of 5" if kind == "fold" else f"{kind} split"
    copies = f" and {settings.n_aug * trained:,} warped" if settings.n_aug else ""
    return (
        f"{beats.description}; {name}: {trained:,} to train{copies}, "
        f"{_count(validation)} to validate, {_count(test)} to test"
    )


def _count(part: LabelledBeats) -> str:
    abnormal = int(part.abnormal.sum())
    return f"{len(part.abnormal) - abnormal:,} + {abnormal:,} abnormal"
