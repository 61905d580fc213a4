"""Read raw beats that are already cut, from .npz and .csv files."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.arrays import (
    classes_of_labels,
    read_labels,
    read_moments,
    read_npz,
    read_records,
    taken_for_symbols,
)
from kdsearch.data.beats import TextArray
from kdsearch.errors import DataError
from kdsearch.student.source import Source
from kdsearch.student.student import Student

CLASS_COLUMN, RECORD_COLUMN = TEXT_COLUMNS = ("class", "record")


def read_npz_beats(path: Path, student: Student) -> Source:
    """Beats of an .npz: ``x`` as in training, and ``y``, ``record``, ``time_s`` if any.

    Raises:
        DataError: It has no ``x``, or an array is not of the form that training takes.
    """
    arrays = read_npz(path)
    if "x" not in arrays:
        raise DataError(
            f"{path}: no array 'x' in it (found: {', '.join(sorted(arrays)) or 'none'})"
        )
    x, notes = arrays["x"], []
    if x.ndim not in (2, 3):
        raise DataError(
            f"{path}: x: expected the shape (beats, leads, samples) or (beats, samples), "
            f"but found {x.shape}"
        )
    leads = student.card.input.leads
    if x.ndim == 3 and x.shape[1] > leads:
        # As in training, which takes the first ones.
        notes = [f"{path.name}: scored by the first {leads} of {x.shape[1]} leads"]
        x = x[:, :leads]
    if x.ndim == 2 and leads == 1:
        x = x[:, None, :]
    beats = len(x)
    classes = None
    if "y" in arrays:
        labels = read_labels(arrays["y"], beats, f"{path}: y")
        classes = classes_of_labels(labels)
        notes += taken_for_symbols(labels, classes, path)
    record = (
        read_records(arrays["record"], beats, f"{path}: record")
        if "record" in arrays
        else np.full(beats, "")
    )
    moments = read_moments(arrays, record, beats, path)
    return Source(x=x, record=record, moments=moments, classes=classes, notes=notes)


def read_csv(path: Path, student: Student) -> Source:
    """Beats of a .csv file, one per row.

    Args:
        path: Each row holds a beat's samples, one lead after the other, separated by commas.
            There may be a header; then columns named ``class`` and ``record`` are no samples.
        student: Gives the number of leads and samples of a beat.

    Raises:
        DataError: It is not such a file: no rows, rows of different length, a cell that is
            empty or no number, or not as many samples as the student needs.
    """
    names, rows = _rows(path)
    samples, texts = _parsed(names, rows, path)
    leads, length = student.card.input.leads, student.card.input.length
    if samples.shape[1] != leads * length:
        raise DataError(
            f"{path}: expected {leads * length} samples in a row ({leads} lead"
            f"{'s' * (leads > 1)} of {length}), but found {samples.shape[1]}"
        )
    classes = texts.get(CLASS_COLUMN)
    if classes is not None:
        classes = classes_of_labels(
            read_labels(classes, len(samples), f"{path}: {CLASS_COLUMN}")
        )
    return Source(
        x=samples.reshape(len(samples), leads, length),
        record=texts.get(RECORD_COLUMN, np.full(len(samples), "")),
        classes=classes,
    )


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The columns' names and the rows of cells with their line numbers, all equally long."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable .csv ({error})") from None
    cells = len(rows[0][1]) if rows else 0
    for number, row in rows:
        if len(row) != cells:
            raise DataError(
                f"{path}: line {number} has {len(row)} cells, but the first {cells}"
            )
    names = _header(rows[0][1], path) if rows else None
    if names is None:
        names = [str(i) for i in range(cells)]
    else:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: no beats in it")
    return names, rows


def _header(cells: Sequence[str], path: Path) -> list[str] | None:
    """The names of the columns if the first line has them; None if it is a beat already.

    Raises:
        DataError: It is something between the two.
    """
    first = [cell.strip().lower() for cell in cells]
    samples = [cell for cell in first if cell not in TEXT_COLUMNS]
    numbers = [_is_number(cell) for cell in samples]
    # Pandas writes the columns' numbers where they have no names.
    counted = len(samples) > 1 and samples == [str(i) for i in range(len(samples))]
    if counted or not any(numbers):
        return [c if c in TEXT_COLUMNS else str(i) for i, c in enumerate(first)]
    if all(numbers) and len(first) == len(samples):
        return None
    raise DataError(
        f"{path}: line 1 is neither a beat nor names of columns: it has numbers and texts"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text  # an empty cell is a missing sample, not a name
    return True


def _parsed(
    names: Sequence[str], rows: Sequence[tuple[int, list[str]]], path: Path
) -> tuple[NDArray[np.float64], dict[str, TextArray]]:
    """Samples, shape (rows, samples), and the columns of texts by their names."""
    at = [i for i, name in enumerate(names) if name not in TEXT_COLUMNS]
    samples = np.empty((len(rows), len(at)))
    for beat, (line, row) in enumerate(rows):
        try:
            samples[beat] = [float(row[i]) for i in at]
        except ValueError:
            samples[beat] = np.nan
        if not np.isfinite(samples[beat]).all():
            bad = next(i for i in at if not _is_finite(row[i]))
            hint = "; cells are separated by commas" if set(row[bad]) & {";", "\t"} else ""
            raise DataError(
                f"{path}: line {line}, column {names[bad]}: expected a finite number, "
                f"found {row[bad][:40]!r}{hint}"
            )
    texts = {
        name: np.array([row[names.index(name)] for _, row in rows], dtype=np.str_)
        for name in TEXT_COLUMNS
        if name in names
    }
    return samples, texts


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
