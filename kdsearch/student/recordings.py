"""Cut raw beats from WFDB records as the student's training beats were cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdsearch.data import ecg
from kdsearch.data.beats import BoolArray, FloatArray, IndexArray, Moments
from kdsearch.data.context import ADAPTED_S
from kdsearch.data.hamilton import HamiltonDetector
from kdsearch.data.pieces import Piece, pieces
from kdsearch.data.record_folder import find_records
from kdsearch.data.settings import DataSettings
from kdsearch.data.wfdb_files import (
    SAMPLING_RATE_HZ,
    Header,
    check_files,
    first_leads,
    named_leads,
)
from kdsearch.errors import DataError
from kdsearch.student.source import Reading, Source
from kdsearch.student.student import Student

# BeatGAN's windows are centred one sample behind the annotation, which is at the R peak.
BEHIND_PEAK = 1
# Beyond these there is a warning. On MIT-BIH two detectors agree on 94 % and more of the beats,
# but for five records where the first one misses a tenth of them and more.
AGREED_SHARE, ODD_SHARE = 0.9, 0.05
SHORTEST_S, LONGEST_S = 0.3, 3.0


def read_folder(folder: Path, student: Student, reading: Reading) -> Iterator[Source]:
    """Read all records of a folder, without MIT-BIH's paced ones, as in training.

    Raises:
        DataError: There is no record, or one cannot be scored.
    """
    records = find_records(folder, DataSettings(), annotated=False)
    notes = records.notes
    for header in records.headers:
        for source in read_recording(header, student, reading):
            yield replace(source, notes=[*source.notes, *notes])
            notes = []


def read_recording(header: Header, student: Student, reading: Reading) -> Iterator[Source]:
    """Filter a record, find its beats and cut them, piece by piece.

    Beats are where the annotations say, all of them; without annotations, at the R peaks.

    Args:
        header: Describes the record.
        student: Gives the required leads and the cutting of its beats.
        reading: The user's choice of lead and beats.

    Raises:
        DataError: The record cannot be read, lacks the lead, holds NaN or no whole beat; or
            the student's beats were cut in another or an unknown way.
    """
    _check_cutting(student, header.path)
    check_files(header, None)
    header = _with_leads(header, student, reading)
    marks = None if reading.detect else header.marks()
    notes = _notes(header, marks is not None, reading)
    if marks is not None:
        notes += marks.notes
        position, sample, classes = marks.position, marks.sample, marks.classes
        beat = classes != ""
    else:
        position, warnings = _detect(header, reading)
        notes += warnings
        sample = np.rint((position - BEHIND_PEAK) / float(header.ratio)).astype(np.int64)
        classes, beat = None, np.ones(len(position), dtype=np.bool_)
    moments = Moments.of_times(position / SAMPLING_RATE_HZ)
    left = int(np.count_nonzero(beat))
    latest = None
    parts = pieces(header, student.card.input.leads, reading.piece_s, reading.margin_s)
    for x, rows in _cut(parts, position, beat):
        if latest is not None:
            yield latest
        left -= len(rows)
        latest = Source(
            x=x,
            record=np.full(len(rows), header.name),
            sample=sample[rows],
            time_s=(position[rows] - BEHIND_PEAK) / SAMPLING_RATE_HZ,
            moments=moments[rows],
            classes=None if classes is None else classes[rows],
            continued=latest is not None,
        )
    if latest is None:
        raise DataError(f"{header.file}: not one whole beat found in the record")
    if left:
        plural = "s" * (left > 1)
        notes.append(
            f"{header.name}: {left} beat{plural} too near the record's ends not scored"
        )
    yield replace(latest, notes=notes)


def _cut(
    parts: Iterable[Piece], position: IndexArray, beat: BoolArray
) -> Iterator[tuple[FloatArray, IndexArray]]:
    """Cut beats, some minutes at a time; those that a student adapts to are in the first part.

    Yields:
        Windows, shape (n, leads, 320), and which of the positions they are of.
    """
    windows: list[FloatArray] = []
    rows: list[IndexArray] = []
    adapted: float | None = None
    for piece in parts:
        here = np.flatnonzero(beat & piece.owns(position))
        here = here[ecg.inside_record(position[here] - piece.offset, piece.signal)]
        if len(here):
            windows.append(ecg.windows(piece.signal, position[here] - piece.offset))
            rows.append(here)
            if adapted is None:
                adapted = position[here[0]] + ADAPTED_S * SAMPLING_RATE_HZ
        if windows and adapted is not None and piece.stop >= adapted:
            yield np.concatenate(windows), np.concatenate(rows)
            windows, rows = [], []
    if windows:
        yield np.concatenate(windows), np.concatenate(rows)


def _check_cutting(student: Student, path: Path) -> None:
    card = student.card.input
    if card.cutting is None:
        raise DataError(
            f"{path}: this student was trained on beats that were cut elsewhere "
            f"({student.card.data.description}): cut and filter the record as they were and "
            "give its beats as .npz or .csv"
        )
    ours = replace(ecg.CUTTING, leads=card.cutting.leads)
    length = ecg.SAMPLES_BEFORE + ecg.SAMPLES_AFTER
    if card.cutting != ours or card.length != length:
        raise DataError(
            f"{path}: this student's beats were cut in another way than this kdsearch cuts "
            f"records (trained on {card.cutting} with {card.length} samples, here {ours} "
            f"with {length})"
        )


def _with_leads(header: Header, student: Student, reading: Reading) -> Header:
    """Return the record with the leads that the student was trained on, by name if known."""
    card = student.card.input
    trained_on = card.cutting.leads if card.cutting else ()
    wanted = [*trained_on, *[None] * card.leads][: card.leads]
    if reading.lead is not None:
        wanted[0] = reading.lead
    try:
        return named_leads(first_leads(header), wanted)
    except DataError as error:
        whose = "" if reading.lead else ", on which the student was trained"
        raise DataError(f"{error}{whose}; choose with --lead") from None


def _detect(header: Header, reading: Reading) -> tuple[IndexArray, list[str]]:
    """Return where the beats are, shape (n,), and a warning if that is probably wrong.

    A lead that is upside down, or is noise, has peaks, too. So they are compared with the beats
    of a second detector, and with plausible heart rates.
    """
    found: list[IndexArray] = []
    steep: list[IndexArray] = []
    heights = []
    detector = HamiltonDetector()
    for piece in pieces(header, 1, reading.piece_s, reading.margin_s):
        lead = piece.signal[0]
        if len(lead) == 0:
            return np.zeros(0, dtype=np.int64), []
        found.append(detector.advance(lead, piece.offset, piece.start, piece.stop))
        moments = ecg.steep_moments(lead)
        moments = moments[piece.owns(moments + piece.offset)]
        heights.append(ecg.extremes(lead, moments))
        steep.append(moments + piece.offset)
    peaks = np.unique(np.concatenate(found))
    if len(peaks) == 0:
        raise DataError(f"{header.file}: no R peaks could be found in the record")
    depth = ecg.depth(np.concatenate(heights, axis=1))
    return peaks + BEHIND_PEAK, _distrust(header, peaks, np.concatenate(steep), depth)


def _distrust(header: Header, peaks: IndexArray, others: IndexArray, depth: float) -> list[str]:
    """Return a warning if detected beats are probably wrong."""
    reasons = []
    agreed = ecg.agreement(peaks, others)
    if agreed < AGREED_SHARE:
        reasons.append(
            f"another detector finds {len(others):,}, and both agree on {agreed:.0%}"
        )
    if depth > 1:
        reasons.append(f"lead {header.leads[0]} is {depth:.1f} times as deep as it is high")
    between_s = np.diff(peaks) / SAMPLING_RATE_HZ
    odd = np.count_nonzero((between_s < SHORTEST_S) | (between_s > LONGEST_S))
    if odd > ODD_SHARE * len(between_s):
        reasons.append(
            f"{odd / len(between_s):.0%} of the intervals are shorter than {SHORTEST_S:g} s or "
            f"longer than {LONGEST_S:g} s"
        )
    if not reasons:
        return []
    return [
        f"warning: {header.name}: do not trust its {len(peaks):,} detected beats: "
        f"{'; '.join(reasons)}"
    ]


def _notes(header: Header, annotated: bool, reading: Reading) -> list[str]:
    name = header.name
    notes = [] if annotated else [f"{name}: beats found by their R peaks, not annotated"]
    rate_hz = header.rate_hz * header.frame[0]
    if rate_hz != SAMPLING_RATE_HZ:
        notes.append(f"{name}: resampled from {rate_hz:g} to {SAMPLING_RATE_HZ} Hz")
    if reading.lead is not None:
        notes.append(f"{name}: scored by lead {header.leads[0]}, as requested")
    return notes
