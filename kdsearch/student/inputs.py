"""Detect the type of a path to score and read it as raw beats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdsearch.errors import DataError
from kdsearch.student.recordings import read_folder, read_record
from kdsearch.student.source import Reading, Source
from kdsearch.student.student import Student
from kdsearch.student.tables import read_csv, read_npz_beats

EXPECTED = (
    "a WFDB record (NAME or NAME.hea), a folder of records, an .npz with x, or a .csv with a "
    "beat per row"
)
RECORD_SUFFIXES = (".hea", ".dat", ".atr")


def read_input(path: Path, student: Student, reading: Reading) -> Iterator[Source]:
    """Read an input in parts: a long recording is never in memory as a whole.

    Raises:
        DataError: The input is of no known kind, damaged, empty, or not what the student was
            trained on.
    """
    record = _record(path)
    if record is not None:
        yield from read_record(record, student, reading)
        return
    if path.is_dir():
        yield from read_folder(path, student, reading)
        return
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (expected {EXPECTED})")
    readers = {".npz": read_npz_beats, ".csv": read_csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: cannot be scored: expected {EXPECTED}")
    if reading.lead is not None or reading.detect:
        raise DataError(f"{path}: --lead and --detect are for WFDB records")
    yield readers[path.suffix.lower()](path, student)


def display_name(path: Path) -> str:
    """Return the name of an input for titles: a record without its extension."""
    name = path.resolve().name
    return name if path.suffix not in RECORD_SUFFIXES else path.stem


def _record(path: Path) -> Path | None:
    """Return the path of a WFDB record without extension; None if it is not a record."""
    if path.suffix in RECORD_SUFFIXES:
        return path.with_suffix("")
    has_header = path.with_name(path.name + ".hea").is_file() if path.name else False
    return path if has_header else None
