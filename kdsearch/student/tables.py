"""Read raw beats that are already cut, from .npz and .csv files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsearch.data.arrays import (
    classes_of_labels,
    read_labels,
    read_moments,
    read_npz,
    read_records,
    taken_for_symbols,
)
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
        student: Says how many leads and samples a beat has.

    Raises:
        DataError: It is not such a file: no rows, rows of different length, a cell that is
            empty or no number, or not as many samples as the student needs.
    """
    table = _read_table(path)
    is_sample = np.array([name not in TEXT_COLUMNS for name in table.columns])
    samples = _numbers(table.loc[:, is_sample], path)
    leads, length = student.card.input.leads, student.card.input.length
    if samples.shape[1] != leads * length:
        raise DataError(
            f"{path}: expected {leads * length} samples in a row ({leads} lead"
            f"{'s' * (leads > 1)} of {length}), but found {samples.shape[1]}"
        )
    texts = {n: table[n].to_numpy(dtype=np.str_) for n in TEXT_COLUMNS if n in table.columns}
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


def _read_table(path: Path) -> pd.DataFrame:
    """Cells that are numbers as such, all others as text; an index of line numbers."""
    names = _header(path)
    try:
        table = pd.read_csv(
            path,
            header=None if names is None else 0,
            names=names,
            dtype=dict.fromkeys(TEXT_COLUMNS, str),
            na_filter=False,
            low_memory=False,
            encoding="utf-8-sig",
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not a readable .csv ({str(error).strip()})") from None
    if table.empty:
        raise DataError(f"{path}: no beats in it")
    table.index += 1 if names is None else 2
    return table


def _header(path: Path) -> list[str] | None:
    """The names of the columns if the first line has them; None if it is a beat already.

    Raises:
        DataError: It is something between the two, or lines differ in their cells.
    """
    first = [cell.strip().lower() for cell in _first_of_equal_lines(path)]
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


def _first_of_equal_lines(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = ((number, row) for number, row in enumerate(csv.reader(file), 1) if row)
            _, first = next(lines, (0, []))
            for number, row in lines:
                if len(row) != len(first):
                    raise DataError(
                        f"{path}: line {number} has {len(row)} cells, but the first "
                        f"{len(first)}"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable .csv ({error})") from None
    if not first:
        raise DataError(f"{path}: no beats in it")
    return first


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text  # an empty cell is a missing sample, not a name
    return True


def _numbers(table: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    for name in table.columns:
        if table[name].dtype.kind not in "iuf" or not np.isfinite(table[name]).all():
            raise DataError(f"{path}: {_first_bad(table[name])}")
    return table.to_numpy(dtype=np.float64)


def _first_bad(column: pd.Series) -> str:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = int(np.argmin(np.isfinite(numbers)))
    found = str(column.iloc[bad])
    hint = "; cells are separated by commas" if ";" in found or "\t" in found else ""
    return (
        f"line {column.index[bad]}, column {column.name}: expected a finite number, "
        f"found {found[:40]!r}{hint}"
    )
