"""Prepare beats for a method: split, limit, normalise, augment, pad."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdsearch.data.augment import time_warp
from kdsearch.data.beats import (
    NORMAL,
    Beats,
    BoolArray,
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
from kdsearch.errors import DataError, speaking_of
from kdsearch.texts import in_unit

# Part of the fingerprint: raise it whenever the same beats and settings would give other data.
VERSION = 1
# Beats of a kind below which there is a warning: with 20 of them, the standard error of an AUC
# of 0.9 is 0.04 and more (Hanley and McNeil, Radiology 143(1), 1982).
FEW = 20


def load_dataset(settings: DataSettings, cache: Path) -> Dataset:
    """Beats of a source, split and ready to learn from.

    Args:
        settings: Source, split, limits and augmentation.
        cache: Folder for what is cut or downloaded only once, see `kdsearch.data.cache_dir`.

    Raises:
        DataError: The beats cannot be read, or not be split as requested.
    """
    with speaking_of(settings.unit):
        return prepare(load_beats(settings, cache), settings)


def prepare(beats: Beats, settings: DataSettings) -> Dataset:
    """Split, limit, normalise, augment and pad beats that are loaded already.

    Augmentation comes after normalising, as in BeatGAN, and touches training beats alone.

    Raises:
        DataError: The beats have too few leads, or cannot be split as requested.
    """
    if beats.x.shape[1] < settings.lead_count:
        raise DataError(
            f"{beats.description}: data.leads is {settings.leads}, "
            f"but the beats have {beats.x.shape[1]}"
        )
    source = _Source.of(beats, settings)
    parts = split(beats, settings)
    classes = beats.classes[parts.validation]
    rows = Split(
        limit_training(parts.train, settings.train_limit, settings.seed),
        limit_validation(parts.validation, classes, settings.validation_limit, settings.seed),
        parts.test,
    )
    train = time_warp(
        source.normalised(rows.train),
        settings.n_aug,
        generator(settings.seed, Purpose.AUGMENTATION),
    )
    train = source.prepared(train, np.tile(rows.train, 1 + settings.n_aug))
    validation = source.labelled(rows.validation)
    test = replace(source.labelled(rows.test), shared=_shared(beats, parts, settings))
    notes = (*beats.notes, *_on_both_sides(test), *_few(validation, test))
    return Dataset(
        training=TrainingData(train, validation, context=source.own is not None),
        test=test,
        fingerprint=_fingerprint(beats, settings),
        description=in_unit(
            _describe(beats, settings, len(rows.train), validation, test)
            + _left_out(beats, settings, test),
            settings.unit,
        ),
        simulated=beats.simulated,
        length=beats.x.shape[2],
        # The beats may have more leads than are used.
        cutting=beats.cutting
        and replace(beats.cutting, leads=beats.cutting.leads[: settings.lead_count]),
        notes=tuple(in_unit(note, settings.unit) for note in notes),
        unit=settings.unit,
        rows=rows,
        source_beats=len(beats.x),
    )


def _shared(beats: Beats, parts: Split, settings: DataSettings) -> BoolArray | None:
    """Return which test beats are of patients in training; None if the split allows these."""
    if resolve(beats, settings) != "inter_patient" or beats.patients is None:
        return None
    learned = np.unique(beats.patients[np.concatenate([parts.train, parts.validation])])
    shared = np.isin(beats.patients[parts.test], learned)
    return shared if shared.any() else None


def _on_both_sides(test: LabelledBeats) -> list[str]:
    """Return a warning if some test beats are of patients in training."""
    if test.shared is None or test.record is None:
        return []
    records = ", ".join(np.unique(test.record[test.shared]))
    return [
        f"warning: test records of patients who have another record in training or validation: "
        f"{records}"
    ]


def _few(validation: LabelledBeats, test: LabelledBeats) -> list[str]:
    """Return warnings about an AUC of very few beats."""
    notes = []
    for name, part in (("validate", validation), ("test", test)):
        abnormal = int(part.abnormal.sum())
        for kind, count in (("normal", len(part.abnormal) - abnormal), ("abnormal", abnormal)):
            if count < FEW:
                notes.append(
                    f"warning: {count} {kind} beat{'s' * (count > 1)} to {name}: an AUC of "
                    f"fewer than {FEW} says little"
                )
    return notes


@dataclass(frozen=True)
class _Source:
    """All beats; prepares selected rows.

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
            return cls(beats, settings.lead_count, None)
        if beats.record is None or beats.moments is None:
            raise DataError(
                f"{beats.description}: data.context is 'patient', but the patient and the time "
                "of each beat are not known; WFDB records have both, an .npz may have them as "
                "arrays 'record' and 'time_s'"
            )
        own = references(beats.x[:, : settings.lead_count], beats.record, beats.moments)
        return cls(beats, settings.lead_count, own)

    def normalised(self, rows: IndexArray) -> FloatArray:
        # Leads first, so that only those in use are read from a memory map.
        return normalise(np.asarray(self.beats.x[:, : self.leads][rows]))

    def prepared(self, x: FloatArray, rows: IndexArray) -> FloatArray:
        """Return normalised beats, padded, with their context if any."""
        if self.own is not None:
            assert self.beats.record is not None
            assert self.beats.moments is not None
            record, moments = np.asarray(self.beats.record[rows]), self.beats.moments[rows]
            x = with_context(x, record, moments, self.own)
        return np.ascontiguousarray(pad(x))

    def labelled(self, rows: IndexArray) -> LabelledBeats:
        classes = np.asarray(self.beats.classes[rows])
        record, patient = self.beats.record, self.beats.patient
        return LabelledBeats(
            x=self.prepared(self.normalised(rows), rows),
            abnormal=classes != NORMAL,
            classes=classes,
            record=None if record is None else np.asarray(record[rows]),
            patient=None if patient is None else np.asarray(patient[rows]),
        )


def _fingerprint(beats: Beats, settings: DataSettings) -> str:
    kind = resolve(beats, settings)
    parts = {
        "version": VERSION,
        "beats": beats.fingerprint,
        "leads": settings.lead_count,
        "split": kind,
        # Settings without effect here must not change the fingerprint.
        "fold": settings.fold if kind == "fold" else None,
        "n_aug": settings.n_aug,
        "train_limit": settings.train_limit,
        "validation_limit": settings.validation_limit,
        "seed": settings.seed,
    }
    if settings.context != "none":
        # Left out without context, so that the fingerprint of such data stays the same.
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
    context, after = (
        (" beside their patients' own", " after the first five minutes of each record")
        if settings.context == "patient"
        else ("", "")
    )
    copies = f" and {settings.n_aug * trained:,} warped" if settings.n_aug else ""
    return (
        f"{beats.description}{context}; {name}: {trained:,} to train{copies}, "
        f"{_count(validation)} to validate, {_count(test)} to test{after}"
    )


def _left_out(beats: Beats, settings: DataSettings, test: LabelledBeats) -> str:
    """Return the number of normal beats that were left out without an R peak, in words."""
    missing, where = dict(beats.left_out), ""
    if resolve(beats, settings) == "inter_patient":
        records = set() if test.record is None else set(test.record.tolist())
        missing = {name: count for name, count in missing.items() if name in records}
        where = " of the test records"
    total = sum(missing.values())
    return f"; {total:,} normal beats{where} without an R peak left out" if total else ""


def _count(part: LabelledBeats) -> str:
    abnormal = int(part.abnormal.sum())
    return f"{len(part.abnormal) - abnormal:,} + {abnormal:,} abnormal"
