"""What is scored: recognised by what a path is, and brought into the form of raw beats."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import IndexArray, Moments, TextArray
from kdsearch.errors import DataError
from kdsearch.student import Student

EXPECTED = (
    "a WFDB record (NAME or NAME.hea), a folder of records, an .npz with x, or a .csv with a "
    "beat per row"
)
RECORD_SUFFIXES = (".hea", ".dat", ".atr")


@dataclass(frozen=True)
class Source:
    """One record, or one file of beats.

    Attributes:
        x: Raw beats, shape (n, leads, length).
        record: Name of the record of each beat, shape (n,); empty texts where unknown.
        sample: Place of each beat in its record, at the record's own rate, shape (n,); None
            where beats come without one.
        time_s: The same in seconds, shape (n,).
        moments: The same and the intervals around each beat; None where that is not known.
        classes: What each beat is known to be, shape (n,); None where nothing is known.
        notes: What a user should know of how the beats came about, a sentence each.
    """

    x: NDArray[Any]
    record: TextArray
    sample: IndexArray | None = None
    time_s: NDArray[np.float64] | None = None
    moments: Moments | None = None
    classes: TextArray | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How recordings are read.

    Attributes:
        lead: Name of the lead to score, in place of the one trained on; None for that one.
        detect: Find beats by their R peaks even where they are annotated.
    """

    lead: str | None = None
    detect: bool = False


def read_input(path: Path, student: Student, reading: Reading) -> list[Source]:
    """Everything to score, a record at a time.

    Raises:
        DataError: The input is of no known kind, damaged, empty, or not what the student was
            trained on.
    """
    from kdsearch.deploy.recordings import read_folder, read_record  # noqa: PLC0415
    from kdsearch.deploy.tables import read_csv, read_npz_beats  # noqa: PLC0415

    record = _record(path)
    if record is not None:
        return [read_record(record, student, reading)]
    if path.is_dir():
        return read_folder(path, student, reading)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (expected {EXPECTED})")
    readers = {".npz": read_npz_beats, ".csv": read_csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: cannot be scored: expected {EXPECTED}")
    if reading.lead is not None or reading.detect:
        raise DataError(f"{path}: --lead and --detect are for WFDB records")
    return [readers[path.suffix.lower()](path, student)]


def display_name(path: Path) -> str:
    """What an input is called in titles: a record without its extension."""
    name = path.resolve().name
    return name if path.suffix not in RECORD_SUFFIXES else path.stem


def _record(path: Path) -> Path | None:
    """The path of a WFDB record without extension, if it is one."""
    if path.suffix in RECORD_SUFFIXES:
        return path.with_suffix("")
    has_header = path.with_name(path.name + ".hea").is_file() if path.name else False
    return path if has_header else None
