"""Raw beats of WFDB records, cut as the student's own were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsearch.data import mitbih
from kdsearch.data.beats import IndexArray, Moments
from kdsearch.errors import DataError
from kdsearch.student.source import Reading, Source
from kdsearch.student.student import Student

# BeatGAN's windows are centred one sample behind the annotation, which is at the R peak.
BEHIND_PEAK = 1


def read_folder(folder: Path, student: Student, reading: Reading) -> list[Source]:
    """All records of a folder; MIT-BIH's paced ones are left out, as in training.

    Raises:
        DataError: There is none, or one of them cannot be scored.
    """
    present = {path.stem for path in folder.glob("*.hea")}
    if not present:
        raise DataError(f"{folder}: no WFDB record (NAME.hea) in it")
    names = mitbih.record_names(folder)
    sources = [read_record(folder / name, student, reading) for name in names]
    left = sorted(present - set(names))
    if left:
        sources[0].notes.append(f"left out, as they have a pacemaker: {', '.join(left)}")
    return sources


def read_record(path: Path, student: Student, reading: Reading) -> Source:
    """Filter a record, find its beats and cut them.

    Beats are where the annotations say, all of them; without annotations, at the R peaks.

    Args:
        path: Path of the record without extension.
        student: Says which leads it needs, and how its own beats were cut.
        reading: The user's wishes.

    Raises:
        DataError: The record cannot be read, lacks the lead, holds NaN or no whole beat; or
            the student's beats were cut otherwise, or nobody knows how.
    """
    _check_cutting(student, path)
    annotated = path.with_name(path.name + ".atr").is_file() and not reading.detect
    header = _header(path, student, reading, annotated=annotated)
    signal = mitbih.band_pass(mitbih.read_signal(header, student.card.input.leads))
    position, classes = (
        mitbih.read_annotations(header) if annotated else (_detect(signal, path), None)
    )
    inside = mitbih.inside_record(position, signal)
    if not inside.any():
        raise DataError(f"{path}.hea: not one whole beat found in the record")
    place = (position[inside] - BEHIND_PEAK) / mitbih.SAMPLING_RATE_HZ
    return Source(
        x=mitbih.windows(signal, position[inside]),
        record=np.full(len(place), path.name),
        sample=np.rint(place * header.sampling_rate_hz).astype(np.int64),
        time_s=place,
        moments=Moments.of_times(position / mitbih.SAMPLING_RATE_HZ)[inside],
        classes=None if classes is None else np.asarray(classes[inside]),
        notes=_notes(header, annotated, int(np.count_nonzero(~inside)), reading),
    )


def _check_cutting(student: Student, path: Path) -> None:
    card = student.card.input
    if card.cutting is None:
        raise DataError(
            f"{path}: this student learned from beats that somebody else had cut "
            f"({student.card.data.description}): cut and filter the record as they were and "
            "give its beats as .npz or .csv"
        )
    ours = replace(mitbih.CUTTING, first_lead=card.cutting.first_lead)
    length = mitbih.SAMPLES_BEFORE + mitbih.SAMPLES_AFTER
    if card.cutting != ours or card.length != length:
        raise DataError(
            f"{path}: this student's beats were cut in another way than this kdsearch cuts "
            f"records (trained on {card.cutting} with {card.length} samples, here {ours} "
            f"with {length})"
        )


def _header(
    path: Path, student: Student, reading: Reading, *, annotated: bool
) -> mitbih.Header:
    card = student.card.input
    trained_on = card.cutting.first_lead if card.cutting else None
    wanted = reading.lead or trained_on
    first = wanted or mitbih.FIRST_LEAD
    header = mitbih.read_header(path, annotated=annotated, first_lead=first)
    found = ", ".join(header.leads)
    if wanted is not None and wanted not in header.leads:
        whose = "" if reading.lead else ", on which the student was trained"
        raise DataError(
            f"{path}.hea: no lead {wanted}{whose} (found: {found}); choose with --lead"
        )
    if len(header.leads) < card.leads:
        raise DataError(
            f"{path}.hea: the student needs {card.leads} leads, found {found or 'none'}"
        )
    return header


def _detect(signal: NDArray[np.float64], path: Path) -> IndexArray:
    if signal.shape[1] == 0:
        return np.zeros(0, dtype=np.int64)
    try:
        return np.unique(mitbih.r_peaks(signal[0])) + BEHIND_PEAK
    except mitbih.UNREADABLE:
        # The detector gives up in various ways over a signal without beats.
        raise DataError(f"{path}.hea: no R peaks could be found in the record") from None


def _notes(header: mitbih.Header, annotated: bool, outside: int, reading: Reading) -> list[str]:
    name = header.path.name
    notes = [] if annotated else [f"{name}: beats found by their R peaks, not annotated"]
    if outside:
        notes.append(
            f"{name}: {outside} beat{'s' * (outside > 1)} too near the record's ends not scored"
        )
    if header.sampling_rate_hz != mitbih.SAMPLING_RATE_HZ:
        notes.append(
            f"{name}: resampled from {header.sampling_rate_hz:g} to "
            f"{mitbih.SAMPLING_RATE_HZ} Hz"
        )
    if reading.lead is not None:
        notes.append(f"{name}: scored by lead {header.leads[0]}, as asked")
    return notes
