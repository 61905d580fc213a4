"""From beats to what a method learns from: split, limited, normalised, augmented, padded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
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
from kdsearch.data.context import VERSION as CONTEXT_VERSION
from kdsearch.data.context import Reference, references, with_context
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
    source = _Source.of(beats, settings)
    train = time_warp(
        source.normalised(rows.train),
        settings.n_aug,
        generator(settings.seed, Purpose.AUGMENTATION),
    )
    train = source.prepared(train, np.tile(rows.train, 1 + settings.n_aug))
    validation = source.labelled(rows.validation)
    test = source.labelled(rows.test)
    return Dataset(
        training=TrainingData(train, validation, context=source.own is not None),
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


@dataclass(frozen=True)
class _Source:
    """Beats, of which some rows at a time are made ready.

    Attributes:
        beats: All of them.
        leads: How many are used.
        own: Each patient's own beat, or None where beats go without context.
    """

    beats: Beats
    leads: int
    own: Mapping[str, Reference] | None

    @classmethod
    def of(cls, beats: Beats, settings: DataSettings) -> _Source:
        if settings.context == "none":
            return cls(beats, settings.leads, None)
        if beats.record is None or beats.moments is None:
            raise DataError(
                f"{beats.description}: data.context is 'patient', but the patient and the time "
                "of each beat are not known; WFDB records have both, an .npz may have them as "
                "arrays 'record' and 'time_s'"
            )
        own = references(beats.x[:, : settings.leads], beats.record, beats.moments)
        return cls(beats, settings.leads, own)

    def normalised(self, rows: IndexArray) -> FloatArray:
        # Leads first, so that a memory map is not read for what is not used.
        return normalise(np.asarray(self.beats.x[:, : self.leads][rows]))

    def prepared(self, x: FloatArray, rows: IndexArray) -> FloatArray:
        """Normalised beats with their context, if any, and padded."""
        if self.own is not None:
            assert self.beats.record is not None
            assert self.beats.moments is not None
            record, moments = np.asarray(self.beats.record[rows]), self.beats.moments[rows]
            x = with_context(x, record, moments, self.own)
        return np.ascontiguousarray(pad(x))

    def labelled(self, rows: IndexArray) -> LabelledBeats:
        classes = np.asarray(self.beats.classes[rows])
        return LabelledBeats(
            x=self.prepared(self.normalised(rows), rows),
            abnormal=classes != NORMAL,
            classes=classes,
            record=None if self.beats.record is None else np.asarray(self.beats.record[rows]),
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
    if settings.context != "none":
        # Left out where there is none, so that such data keep the name that they had.
        parts["context"] = f"{settings.context} {CONTEXT_VERSION}"
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
    context = " beside their patients' own" if settings.context == "patient" else ""
    copies = f" and {settings.n_aug * trained:,} warped" if settings.n_aug else ""
    return (
        f"{beats.description}{context}; {name}: {trained:,} to train{copies}, "
        f"{_count(validation)} to validate, {_count(test)} to test"
    )


def _count(part: LabelledBeats) -> str:
    abnormal = int(part.abnormal.sum())
    return f"{len(part.abnormal) - abnormal:,} + {abnormal:,} abnormal"
