"""Read a raw signal from a table of samples (.csv) or from EDF, EDF+ and BDF files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.wfdb_files import (
    ANNOTATOR,
    CLASS_OF_SYMBOL,
    VOLTS,
    Annotations,
    Header,
    annotations_of,
    check_rates,
    checked,
)
from kdsearch.errors import DataError
from kdsearch.extras import needs
from kdsearch.files.reading import reading

EDF_SUFFIXES, TABLE_SUFFIX = (".edf", ".bdf"), ".csv"
# Columns of a table that are no leads, in small letters.
TIMES, SYMBOL = ("time", "time_s", "seconds", "t"), "symbol"
# Names of leads begin with it in EDF+: "ECG II".
KINDS = ("ECG ", "EKG ")
# Where an EDF file says how many data records it has.
RECORDS_FIELD = slice(236, 244)
# Of a sample, by which a time may differ from its place.
LARGEST_SHIFT = 0.75
BUFFER = 1 << 22


class _File(Header):
    """A recording that is one file."""

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.path

    @property
    def data(self) -> Path:
        """The file itself."""
        return self.path

    def needed_files(self, annotator: str | None) -> list[Path]:
        """The file itself, which has its own annotations."""
        return [self.path]

    def whole(self, leads: int) -> list[NDArray[np.float64]]:
        """As of a WFDB record, but missing values are refused."""
        assert self.frames is not None
        return next(self.blocks(leads, self.frames))


class EdfFile(_File):
    """An EDF, EDF+ or BDF file; its annotations may be the symbols of beats."""

    def marks(self, annotator: str = ANNOTATOR) -> Annotations | None:
        """The annotations that are symbols of beats; None if there are none."""
        with reading(self.path, "a readable EDF file"):
            found = sorted(
                (mark.onset, mark.text.strip())
                for mark in _opened(self.path).annotations
                if mark.text.strip() in CLASS_OF_SYMBOL
            )
        at = np.rint([onset * self.rate_hz for onset, _ in found]).astype(np.int64)
        return _marks(self, at, [symbol for _, symbol in found])

    def blocks(self, leads: int, frames: int) -> Iterator[list[NDArray[np.float64]]]:
        """As of a WFDB record."""
        assert self.frames is not None
        with reading(self.path, "a readable EDF file"):
            signals = [_opened(self.path).signals[i] for i in self.order[:leads]]
        for start in range(0, self.frames, frames):
            stop = min(start + frames, self.frames)
            with reading(self.path, "a readable EDF signal; truncated?"):
                columns = [
                    signal.get_data_slice(start / self.rate_hz, stop / self.rate_hz)
                    for signal in signals
                ]
            yield checked(self, columns, start)


def read_edf(path: Path, name: str | None = None) -> EdfFile:
    """Read the header of an EDF, EDF+ or BDF file.

    Args:
        path: Of the file.
        name: The name of the recording, if it is not that of the file.

    Raises:
        DataError: It cannot be read, has gaps, or leads at rates of which none divides all.
    """
    with reading(path, "a readable EDF file"):
        edf = _opened(path)
        if not edf.is_continuous:
            raise DataError(
                f"{path}: an EDF+D file, which has gaps in time; needs EDF or EDF+C"
            )
        with path.open("rb") as file:
            said = int(file.read(RECORDS_FIELD.stop)[RECORDS_FIELD])
        if said > edf.num_data_records:
            raise DataError(
                f"{path}: truncated: {edf.num_data_records:,} data records, "
                f"but the header says {said:,}"
            )
        signals = list(edf.signals)
        volts = [s.physical_dimension.strip().lower() in VOLTS for s in signals]
        order = [i for i, is_lead in enumerate(volts) if is_lead] or list(range(len(signals)))
        if not order:
            raise DataError(f"{path}: describes no signal")
        rates = [float(signals[i].sampling_frequency) for i in order]
        names = [_without_kind(signals[i].label) for i in order]
        frames = edf.num_data_records * min(signals[i].samples_per_data_record for i in order)
    rate_hz = min(rates)
    if any(rate % rate_hz for rate in rates):
        raise DataError(
            f"{path}: the rates of its leads must be multiples of the lowest, but found "
            f"{', '.join(f'{rate:g}' for rate in sorted(set(rates)))} Hz"
        )
    header = EdfFile(
        path=path,
        name=name or path.stem,
        leads=tuple(names),
        order=tuple(order),
        rate_hz=rate_hz,
        frame=tuple(round(rate / rate_hz) for rate in rates),
        frames=frames,
        files=(),
    )
    check_rates(header)
    return header


def _opened(path: Path) -> Any:
    with needs("edf", "EDF files"):
        import edfio  # noqa: PLC0415
    return edfio.read_bdf(path) if path.suffix.lower() == ".bdf" else edfio.read_edf(path)


def _without_kind(label: str) -> str:
    name = label.strip()
    return name[4:].strip() if name[:4].upper() in KINDS else name


@dataclass(frozen=True)
class CsvFile(_File):
    """A table with a sample in each line.

    Attributes:
        columns: Names of all columns.
        headed: Whether the first line has these names.
        start_s: The first time, if there is a column of times.
    """

    columns: tuple[str, ...] = ()
    headed: bool = True
    start_s: float = 0.0

    def marks(self, annotator: str = ANNOTATOR) -> Annotations | None:
        """The cells of the column ``symbol`` that are symbols of beats; None if none is."""
        names = [name.lower() for name in self.columns]
        if SYMBOL not in names:
            return None
        column = names.index(SYMBOL)
        at, symbols = [], []
        with reading(self.path, "a readable .csv"), self._opened() as file:
            for number, row in enumerate(csv.reader(file)):
                if len(row) > column and row[column].strip() in CLASS_OF_SYMBOL:
                    at.append(number)
                    symbols.append(row[column].strip())
        return _marks(self, np.array(at, dtype=np.int64), symbols)

    def blocks(self, leads: int, frames: int) -> Iterator[list[NDArray[np.float64]]]:
        """As of a WFDB record."""
        time = _time_column(self.columns)
        wanted = [*self.order[:leads], *([] if time is None else [time])]
        done = 0
        with self._opened() as file:
            while lines := list(islice(file, frames)):
                table = self._parsed(lines, wanted, done)
                if time is not None:
                    self._check_times(table[:, -1], done)
                yield checked(self, [table[:, i] for i in range(leads)], done)
                done += len(lines)

    def _opened(self) -> Any:
        file = self.path.open(encoding="utf-8-sig", newline="")
        if self.headed:
            file.readline()
        return file

    def _parsed(
        self, lines: Sequence[str], wanted: Sequence[int], done: int
    ) -> NDArray[np.float64]:
        try:
            table = np.loadtxt(lines, delimiter=",", usecols=wanted, ndmin=2, comments=None)
            if len(table) == len(lines):
                return table
        except ValueError:
            pass
        for number, line in enumerate(lines, done + 1 + self.headed):
            cells = line.rstrip("\r\n").split(",")
            for column in wanted:
                found = cells[column].strip() if column < len(cells) else ""
                try:
                    float(found)
                except ValueError:
                    raise DataError(
                        f"{self.path}: line {number}, column {self.columns[column]}: "
                        f"expected a number, found {found[:40]!r}"
                    ) from None
        raise DataError(f"{self.path}: not a readable .csv of samples")

    def _check_times(self, time_s: NDArray[np.float64], done: int) -> None:
        place = (time_s - self.start_s) * self.rate_hz
        shift = np.abs(place - np.arange(done, done + len(place)))
        if not (shift <= LARGEST_SHIFT).all():
            row = int(np.argmax(~(shift <= LARGEST_SHIFT)))
            raise DataError(
                f"{self.path}: line {done + row + 1 + self.headed}: samples must be evenly "
                f"spaced, but at {self.rate_hz:g} Hz the time there is not {time_s[row]:g} s; "
                "fill the gap, or give the parts one by one"
            )


def is_signal(path: Path) -> bool:
    """Whether a table names a column of times, so that its lines are samples and not beats."""
    with reading(path, "a readable .csv"), path.open(encoding="utf-8-sig") as file:
        return _time_column(_cells(file.readline())) is not None


def read_csv_signal(path: Path, rate_hz: float | None, name: str | None = None) -> CsvFile:
    """Read the first line of a table of samples.

    Args:
        path: A line per sample, its leads separated by commas. The first line may name the
            columns; one named ``time`` has seconds, one named ``symbol`` has PhysioNet's symbol
            where there is a beat.
        rate_hz: Samples a second; None to take them from the times.
        name: The name of the recording, if it is not that of the file.

    Raises:
        DataError: It is not such a file.
    """
    with reading(path, "a readable .csv"):
        lines, last = _count_lines(path)
        with path.open(encoding="utf-8-sig") as file:
            first = _cells(file.readline())
            second = first if _are_numbers(first) else _cells(file.readline())
    headed = second is not first
    samples = lines - headed
    columns = first if headed else [f"column {i + 1}" for i in range(len(first))]
    time = _time_column(columns)
    leads = [i for i, n in enumerate(columns) if i != time and n.lower() != SYMBOL]
    if samples < 2 or not leads:
        raise DataError(
            f"{path}: no samples in it; expected a line per sample, leads in columns"
        )
    start_s = 0.0
    if time is not None:
        try:
            start_s, end_s = float(second[time]), float(last[time])
        except (ValueError, IndexError):
            raise DataError(
                f"{path}: column {columns[time]}: expected seconds, found "
                f"{','.join(second)[:40]!r} and {','.join(last)[:40]!r}"
            ) from None
        if not end_s > start_s:
            raise DataError(f"{path}: column {columns[time]}: its times do not increase")
        rate_hz = rate_hz or _rate_hz(samples, end_s - start_s, last[time])
    assert rate_hz is not None
    header = CsvFile(
        path=path,
        name=name or path.stem,
        leads=tuple(columns[i] for i in leads),
        order=tuple(leads),
        rate_hz=rate_hz,
        frame=(1,) * len(leads),
        frames=samples,
        files=(),
        columns=tuple(columns),
        headed=headed,
        start_s=start_s,
    )
    check_rates(header)
    return header


def _rate_hz(samples: int, seconds: float, written: str) -> float:
    """The roundest rate at which samples take that long, as exactly as it is written."""
    decimals = len(written.partition(".")[2]) if "e" not in written.lower() else 9
    exact = (samples - 1) / seconds
    rates = (float(f"{exact:.{digits}g}") for digits in range(1, 12))
    fitting = (r for r in rates if abs((samples - 1) / r - seconds) <= 10.0**-decimals)
    return next(fitting, exact)


def _count_lines(path: Path) -> tuple[int, list[str]]:
    """Return the number of lines, without empty ones at the end, and the cells of the last."""
    count, tail = 0, b""
    with path.open("rb") as file:
        while block := file.read(BUFFER):
            count += block.count(b"\n")
            tail = (tail + block)[-BUFFER // 4 :]
    content = tail.rstrip()
    count += 1 - tail[len(content) :].count(b"\n")
    return count if content else 0, _cells(content.rpartition(b"\n")[2].decode())


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.rstrip("\r\n").split(",")]


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _time_column(columns: Sequence[str]) -> int | None:
    return next((i for i, name in enumerate(columns) if name.lower() in TIMES), None)


def _marks(header: Header, at: NDArray[np.int64], symbols: Sequence[str]) -> Annotations | None:
    return annotations_of(header, header.file, at, symbols, header.rate_hz) if symbols else None
