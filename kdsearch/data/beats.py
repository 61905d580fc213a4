"""Beats as arrays: the output of every source and the input of every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdsearch.texts import BEAT

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]
TextArray = NDArray[np.str_]

AAMI_CLASSES = ("N", "S", "V", "F", "Q")
NORMAL = "N"

# The five stride-2 convolutions of BeatGAN halve a beat five times.
LENGTH_MULTIPLE = 32

# Position of the R peak as a fraction of a beat: sample 140 of 320.
R_PEAK = 140 / 320


@dataclass(frozen=True)
class Cutting:
    """How beats were cut from a recording; new ones must be cut in the same way.

    Attributes:
        sampling_rate_hz: Of the beats; recordings at other rates are resampled to it.
        band_hz: Edges of the band-pass filter, applied forwards and backwards.
        filter_order: Its order, as a finite impulse response at that rate.
        samples_before: Samples of a beat before its R peak.
        leads: Names of the leads, the first ones; None for one that is not the same everywhere.
    """

    sampling_rate_hz: float
    band_hz: tuple[float, float]
    filter_order: int
    samples_before: int
    leads: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Moments:
    """Times of beats in their recording.

    Attributes:
        time_s: From any moment of the recording, shape (n,).
        before_s: From the beat before, of whatever kind, shape (n,); NaN where unknown.
        after_s: Seconds to the next beat, shape (n,).
    """

    time_s: NDArray[np.float64]
    before_s: NDArray[np.float64]
    after_s: NDArray[np.float64]

    @classmethod
    def of_times(cls, time_s: NDArray[np.float64]) -> Moments:
        """Return the moments of all beats of one recording, in order, shape (n,)."""
        between = np.diff(time_s)
        return cls(
            np.asarray(time_s, dtype=np.float64),
            np.concatenate([[np.nan], between]),
            np.concatenate([between, [np.nan]]),
        )

    def __getitem__(self, rows: IndexArray | BoolArray) -> Moments:
        """Select rows."""
        return Moments(self.time_s[rows], self.before_s[rows], self.after_s[rows])

    @staticmethod
    def join(parts: Sequence[Moments]) -> Moments:
        """Concatenate the moments of several recordings."""
        columns = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Moments))
        return Moments(*columns)


@dataclass(frozen=True)
class Beats:
    """All the beats of one source, as cut: neither normalised nor split.

    Attributes:
        x: Samples, shape (n, leads, length), float32, in the source's own unit; a memory
            map where the source is cached on disk.
        classes: Class of each beat, shape (n,); ``"N"`` is normal, everything else abnormal.
        record: Recording of each beat, shape (n,), or None where it is not known.
        fingerprint: SHA-256 over what determines the arrays.
        description: One line for people, for example ``"MIT-BIH, 44 records, 97,568 beats"``.
        simulated: True for generated beats, which prove nothing about real ones.
        cutting: How they were cut, or None if unknown.
        moments: When they came, or None if unknown.
        patient: Whose each beat is, shape (n,); None where each record is of another patient.
        left_out: Number of normal beats by record that were left out because no R peak was
            found.
        notes: Notes for the user on the origin of the beats, a sentence each; warnings begin
            with ``warning: ``.
    """

    x: FloatArray
    classes: TextArray
    record: TextArray | None
    fingerprint: str
    description: str
    simulated: bool = False
    cutting: Cutting | None = None
    moments: Moments | None = None
    patient: TextArray | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def patients(self) -> TextArray | None:
        """Patient of each beat, shape (n,); None if unknown."""
        return self.record if self.patient is None else self.patient


@dataclass(frozen=True)
class Split:
    """Row numbers into ``Beats``, disjoint; ``train`` holds normal beats only."""

    train: IndexArray
    validation: IndexArray
    test: IndexArray


@dataclass(frozen=True)
class LabelledBeats:
    """Beats to score, with their true classes.

    Attributes:
        x: Normalised and padded, shape (n, leads, length), float32.
        abnormal: Shape (n,), True for every class but N.
        classes: Shape (n,).
        record: Recording of each, shape (n,), or None where not known.
        patient: Whose each beat is, shape (n,); None where each record is of another patient.
        shared: Which beats are of patients who have another record in training or validation,
            where the split promises new patients, shape (n,); None where there is none.
    """

    x: FloatArray
    abnormal: BoolArray
    classes: TextArray
    record: TextArray | None
    patient: TextArray | None = None
    shared: BoolArray | None = None

    @property
    def patients(self) -> TextArray | None:
        """Patient of each beat, shape (n,); None if unknown."""
        return self.record if self.patient is None else self.patient


class BeatShape(NamedTuple):
    """The shape of the beats that a network is made for.

    Attributes:
        leads: Those of a context included.
        length: Padded samples, a multiple of 32.
        signal_leads: Number of leads of the beat itself, which come first.
    """

    leads: int
    length: int
    signal_leads: int


@dataclass(frozen=True)
class TrainingData:
    """The beats of a teacher or a student: training and validation, without test beats.

    Attributes:
        train: Normal beats, normalised and padded, shape (n, leads, length), float32;
            the augmented copies, if any, follow the originals.
        validation: What epochs, rungs and trials are judged by.
        context: Whether leads that compare a beat with its patient's own stand behind those
            of the beat itself; see `kdsearch.data.context.with_context`.
    """

    train: FloatArray
    validation: LabelledBeats
    context: bool = False


@dataclass(frozen=True)
class Dataset:
    """One source, split, normalised and ready.

    Attributes:
        training: What trials see.
        test: What the finalists are measured on, after the search.
        fingerprint: SHA-256 of source, split, leads, augmentation and limits.
        description: One line for people.
        simulated: True for generated beats.
        length: Samples of a beat before it was padded.
        cutting: As of the `Beats`.
        notes: As of the `Beats`, and of how they were divided.
        unit: What a beat is called, in the singular.
        rows: Row numbers in the source of the training (copies left out), validation and test
            beats.
        source_beats: Number of beats of the source.
    """

    training: TrainingData
    test: LabelledBeats
    fingerprint: str
    description: str
    simulated: bool
    length: int
    cutting: Cutting | None = None
    notes: tuple[str, ...] = ()
    unit: str = BEAT
    rows: Split | None = None
    source_beats: int = 0


def normalise(x: FloatArray) -> FloatArray:
    """Scale each beat and lead to [-1, 1], as BeatGAN does; a flat one becomes zeros.

    Args:
        x: Shape (..., length).

    Returns:
        A new array of the same shape, float32.
    """
    low = x.min(axis=-1, keepdims=True)
    span = x.max(axis=-1, keepdims=True) - low
    flat = span <= 0
    scaled = 2 * (x - low) / np.where(flat, 1, span) - 1
    return np.where(flat, 0, scaled).astype(np.float32)


def pad(x: FloatArray, multiple: int = LENGTH_MULTIPLE) -> FloatArray:
    """Repeat the edge samples on both sides until the length is a multiple of ``multiple``.

    Args:
        x: Shape (n, leads, length).

    Returns:
        Shape (n, leads, padded length); ``x`` itself where nothing is missing.
    """
    missing = -x.shape[-1] % multiple
    if missing == 0:
        return x
    left = missing // 2
    return np.pad(x, ((0, 0), (0, 0), (left, missing - left)), mode="edge")
