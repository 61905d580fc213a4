"""Find the recordings of a folder: WFDB records, EDF files, or tables of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from kdsearch.data.mitbih import PACED, is_mitbih
from kdsearch.data.settings import DataSettings
from kdsearch.data.signal_files import (
    EDF_SUFFIXES,
    TABLE_SUFFIX,
    is_signal,
    read_csv_signal,
    read_edf,
)
from kdsearch.data.wfdb_files import Header, check_files, read_header
from kdsearch.errors import DataError


@dataclass(frozen=True)
class Records:
    """The records of a folder.

    Attributes:
        headers: Of those to use, sorted by name.
        skipped: Why others cannot be used, a line each.
        notes: Notes for the user on how they were found.
    """

    headers: list[Header]
    skipped: list[str]
    notes: list[str]


def find_records(folder: Path, settings: DataSettings, *, annotated: bool = True) -> Records:
    """Return the records of a folder, or of the folders in it if it has none itself.

    Segments of other records are no records, and MIT-BIH's paced ones are left out. Hidden
    files are ignored: macOS writes some beside each file that it copies.

    Args:
        folder: Holds NAME.hea of each record, or files that are recordings.
        settings: Says whose annotations are needed, and whether bad records are skipped.
        annotated: Whether they need annotations at all.

    Raises:
        DataError: There is no record, or one cannot be used and must not be skipped.
    """
    files = _headers_in(folder)
    headers, bad = [], []
    for file in files:
        try:
            headers.append(_read_header(file, folder))
        except DataError as error:
            bad.append(reason_to_skip(error, settings))
    parts = {(h.path.parent, segment) for h in headers for segment in h.segments}
    headers = [h for h in headers if (h.path.parent, h.path.name) not in parts]
    paced = [h.name for h in headers if is_mitbih(h) and h.path.name in PACED]
    usable = []
    for header in headers:
        if header.name in paced:
            continue
        try:
            check_files(header, settings.annotator if annotated else None)
            usable.append(header)
        except DataError as error:
            bad.append(reason_to_skip(error, settings))
    if not usable:
        raise DataError(
            f"{folder}: no WFDB record (NAME.hea), EDF file or table in it that can be used"
            + (f"; MIT-BIH's {', '.join(paced)} have a pacemaker" if paced else "")
            + (f"; {len(bad)} skipped, the first because: {bad[0]}" if bad else "")
        )
    notes = [f"left out, as they have a pacemaker: {', '.join(paced)}"] if paced else []
    if files[0].parent == folder:
        below = sum(1 for _ in _visible(folder, "*/*.hea"))
        notes += [f"{below} records in folders inside it are not read"] if below else []
    return Records(usable, bad, notes)


def _read_header(file: Path, folder: Path) -> Header:
    path, suffix = file.with_suffix(""), file.suffix.lower()
    name = path.relative_to(folder).as_posix()
    if suffix in EDF_SUFFIXES:
        return read_edf(file, name)
    if suffix == TABLE_SUFFIX:
        return read_csv_signal(file, None, name)
    return read_header(path, name)


def has_records(folder: Path) -> bool:
    """Whether a folder, or one in it, has recordings; extensions in upper or lower case."""
    suffixes = (".hea", *EDF_SUFFIXES)
    files = _visible(folder, "**/*")
    return any(path.suffix.lower() in suffixes for path in files) or bool(_tables(files))


def _headers_in(folder: Path) -> list[Path]:
    """WFDB headers; where there are none EDF files, and where there are none tables."""
    wfdb = _visible(folder, "*.hea") or _visible(folder, "**/*.hea")
    if wfdb:
        return wfdb
    both = [_visible(folder, pattern) for pattern in ("*", "**/*")]
    edf = ([path for path in files if path.suffix.lower() in EDF_SUFFIXES] for files in both)
    found = next(filter(None, chain(edf, map(_tables, both))), [])
    if found:
        return found
    upper = [path.name for path in both[0] if path.suffix.lower() == ".hea"]
    raise DataError(
        f"{folder}: no WFDB record (NAME.hea), no EDF file and no table of samples in it"
        + (f", but {upper[0]}: rename it, the extension must be .hea" if upper else "")
    )


def _tables(files: Sequence[Path]) -> list[Path]:
    """Those that are tables of samples; a folder may have others, such as one of patients."""
    return [path for path in files if path.suffix.lower() == TABLE_SUFFIX and is_signal(path)]


def _visible(folder: Path, pattern: str) -> list[Path]:
    found = folder.glob(pattern)
    parts = ((path, path.relative_to(folder).parts) for path in found)
    return sorted(path for path, names in parts if not any(n.startswith(".") for n in names))


def reason_to_skip(error: DataError, settings: DataSettings) -> str:
    """Return why a record is skipped; raise the error if records must not be skipped."""
    if settings.on_bad == "refuse":
        raise error
    return str(error)
