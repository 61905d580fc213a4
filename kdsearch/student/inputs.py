"""Detect the type of a path to score and read it as raw beats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdsearch.data.signal_files import EDF_SUFFIXES, is_signal, read_csv_signal, read_edf
from kdsearch.data.wfdb_files import read_header
from kdsearch.errors import DataError
from kdsearch.student.recordings import read_folder, read_recording
from kdsearch.student.source import Reading, Source
from kdsearch.student.student import Student
from kdsearch.student.tables import read_csv, read_npz_beats

EXPECTED = (
    "a WFDB record (NAME or NAME.hea), a folder of records, an .edf, an .npz with x, or a .csv "
    "with a beat per row, or with a sample per row and --rate or a column 'time'"
)
RECORD_SUFFIXES = (".hea", ".dat", ".atr")


def read_input(path: Path, student: Student, reading: Reading) -> Iterator[Source]:
    """Read an input in parts: a long recording is never in memory as a whole.

    Raises:
        DataError: The input is of no known kind, damaged, empty, or not what the student was
            trained on.
    """
    # A record's path has no extension.
    record = None
    if path.suffix in RECORD_SUFFIXES:
        record = path.with_suffix("")
    elif path.name and path.with_name(path.name + ".hea").is_file():
        record = path
    if record is not None and reading.rate_hz is None:
        yield from read_recording(read_header(record), student, reading)
        return
    if path.is_dir() and reading.rate_hz is None:
        yield from read_folder(path, student, reading)
        return
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (expected {EXPECTED})")
    kind = path.suffix.lower()
    if kind == ".csv" and (reading.rate_hz is not None or is_signal(path)):
        header = read_csv_signal(path, reading.rate_hz)
        yield from read_recording(header, student, reading)
        return
    if reading.rate_hz is not None:
        raise DataError(f"{path}: --rate is for a .csv with a sample per row")
    if kind in EDF_SUFFIXES:
        yield from read_recording(read_edf(path), student, reading)
        return
    readers = {".npz": read_npz_beats, ".csv": read_csv}
    if kind not in readers:
        raise DataError(f"{path}: cannot be scored: expected {EXPECTED}")
    if reading.lead is not None or reading.detect:
        raise DataError(f"{path}: --lead and --detect are for recordings")
    yield readers[kind](path, student)


def display_name(path: Path) -> str:
    """Return the name of an input for titles: a record without its extension."""
    name = path.resolve().name
    return name if path.suffix not in RECORD_SUFFIXES else path.stem
