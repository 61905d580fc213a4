"""Read WFDB records from any writer: headers, signals and annotations.

Everything is checked against the header: wfdb reads a text file as annotations, and treats
annotations with another time resolution as if they had the signal's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import IndexArray, TextArray
from kdsearch.errors import DataError
from kdsearch.extras import needs
from kdsearch.files.reading import reading

SAMPLING_RATE_HZ = 360
# The numbers of a resampling ratio. Rates that need larger ones are rounded by less than a
# sample in a month, signal and annotations alike.
LARGEST_FACTOR = 20_000
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 50.0, 100_000.0
# Of a signal, shorter than an annotation file may say: excerpts end within their last beat.
BEYOND_END_S = 1.0
FIRST_LEAD = "MLII"
ANNOTATOR = "atr"
VOLTS = {"v", "mv", "uv", "nv", "μv", "µv"}
# Intervals between beats that are worth a warning if more than a few are beyond them.
SHORTEST_S, LONGEST_S, ODD_SHARE = 0.15, 3.0, 0.1

SYMBOLS = {
    "N": ("N", "L", "R", "B"),
    "S": ("a", "J", "A", "S", "j", "e", "n"),
    "V": ("V", "E", "r"),
    "F": ("F",),
    "Q": ("/", "f", "Q", "?"),
}
CLASS_OF_SYMBOL = {symbol: name for name, symbols in SYMBOLS.items() for symbol in symbols}
# A wave of ventricular flutter: it ends an interval as a beat does, but is no beat.
FLUTTER_WAVE = "!"


@dataclass(frozen=True)
class Header:
    """The header of a record, read before its signal.

    Attributes:
        path: Path of the record without extension.
        name: What the record is called: its path from the folder that is read.
        leads: Names of its leads in the order in which they are used.
        order: Columns of those leads in the file.
        rate_hz: Frames a second; annotations count frames unless they say otherwise.
        frame: Samples that each of the leads has in a frame.
        frames: Length of the signal; None where the header does not say it.
        files: Names of the files that hold the signal.
        segments: Names of the records that it is made of, if any.
    """

    path: Path
    name: str
    leads: tuple[str, ...]
    order: tuple[int, ...]
    rate_hz: float
    frame: tuple[int, ...]
    frames: int | None
    files: tuple[str, ...]
    segments: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The header itself."""
        return self.path.with_name(self.path.name + ".hea")

    @property
    def data(self) -> Path:
        """The first file of the signal."""
        return self.path.parent / next((f for f in self.files if not f.endswith(".hea")), "")

    def annotations(self, annotator: str) -> Path:
        """The file of the annotations of this annotator."""
        return self.path.with_name(f"{self.path.name}.{annotator}")

    def needed_files(self, annotator: str | None) -> list[Path]:
        """All files of the recording, with the annotations if an annotator is given."""
        marks = () if annotator is None else (f"{self.path.name}.{annotator}",)
        return [self.path.parent / name for name in (self.file.name, *self.files, *marks)]

    def marks(self, annotator: str = ANNOTATOR) -> Annotations | None:
        """The annotated beats; None if there are none.

        Raises:
            DataError: As `read_annotations`.
        """
        return (
            read_annotations(self, annotator) if self.annotations(annotator).is_file() else None
        )

    def whole(self, leads: int) -> list[NDArray[np.float64]]:
        """Read the first leads as a whole, as recorded; missing values are NaN.

        Raises:
            DataError: The signal cannot be read or is truncated.
        """
        return _read_frames(self, leads)

    def blocks(self, leads: int, frames: int) -> Iterator[list[NDArray[np.float64]]]:
        """Read the first leads in blocks, as recorded.

        Args:
            leads: How many of ``leads``.
            frames: Of a block; the last one is shorter. A record whose header does not say its
                length is one block.

        Yields:
            An array for each lead, of one block.

        Raises:
            DataError: The signal cannot be read, is truncated or has missing values.
        """
        if self.frames is None:
            yield checked(self, _read_frames(self, leads), 0)
            return
        for start in range(0, self.frames, frames):
            stop = min(start + frames, self.frames)
            yield checked(self, _read_frames(self, leads, start, stop), start)

    @property
    def ratio(self) -> Fraction:
        """Samples at 360 Hz for each frame: the same for the signal and for its beats."""
        return _ratio(self.rate_hz)


def _wfdb() -> Any:
    """Import PhysioNet's library, which is slow and not needed with a warm cache."""
    with needs("ecg", "WFDB records"):
        import wfdb  # noqa: PLC0415
    return wfdb


def _ratio(rate_hz: float) -> Fraction:
    return (SAMPLING_RATE_HZ / Fraction(repr(rate_hz))).limit_denominator(LARGEST_FACTOR)


def read_header(path: Path, name: str | None = None) -> Header:
    """Read NAME.hea.

    Args:
        path: Path of the record without extension.
        name: The name of the record, if it is not the last part of the path.

    Raises:
        DataError: The header cannot be read, or describes no signal that can be used.
    """
    wfdb = _wfdb()
    file = path.with_name(path.name + ".hea")
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    with reading(file, "a readable WFDB header"):
        header = wfdb.rdheader(str(path), rd_segments=True)
        segments = tuple(getattr(header, "seg_name", None) or ())
        described = [s for s in getattr(header, "segments", ()) if s is not None]
        signals = described[0] if segments else header
        if not header.n_sig:
            raise DataError(f"{file}: describes no signal")
        names = [str(lead) for lead in signals.sig_name]
        units = [str(unit).lower() for unit in signals.units]
        frame = [int(count) for count in signals.samps_per_frame]
        parts = [_files(part, file) for part in (described if segments else [header])]
        frames = None if header.sig_len is None else int(header.sig_len)
        rate_hz = float(header.fs)
    # Blood pressure and breathing are recorded beside an ECG, but are no leads of it.
    order = [i for i, unit in enumerate(units) if unit in VOLTS] or list(range(len(names)))
    result = Header(
        path=path,
        name=name or path.name,
        leads=tuple(names[i] for i in order),
        order=tuple(order),
        rate_hz=rate_hz,
        frame=tuple(frame[i] for i in order),
        frames=frames,
        files=tuple(dict.fromkeys(f for part in parts for f in part)),
        segments=segments,
    )
    check_rates(result)
    return result


def _files(header: Any, file: Path) -> list[str]:
    """The files of a record or segment; those of a segment's layout, ``~``, are none."""
    names = [str(name) for name in header.file_name or () if name != "~"]
    own = [] if file.stem == header.record_name else [f"{header.record_name}.hea"]
    return own + names


def check_rates(header: Header) -> None:
    """Check that an ECG can have the rate and the length that a header says.

    Raises:
        DataError: It cannot.
    """
    rates = {header.rate_hz * count for count in header.frame}
    for rate in sorted(rates):
        if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
            raise DataError(
                f"{header.file}: an ECG must be sampled at {LOWEST_RATE_HZ:g} to "
                f"{HIGHEST_RATE_HZ:,.0f} Hz, but found {rate:g} Hz"
            )
    if header.frames is not None and header.frames < 1:
        raise DataError(f"{header.file}: its signal has {header.frames:,} samples")


def first_leads(header: Header) -> Header:
    """Return the record with `FIRST_LEAD` first, if it has it."""
    at = header.leads.index(FIRST_LEAD) if FIRST_LEAD in header.leads else 0
    return _chosen(header, [at, *(i for i in range(len(header.leads)) if i != at)])


def named_leads(header: Header, wanted: Sequence[str | None]) -> Header:
    """Return the record with only these leads, by name.

    Args:
        wanted: A name, or None for the first lead that is not taken yet.

    Raises:
        DataError: It has none of this name, or too few.
    """
    taken: dict[int, int] = {}
    for index in sorted(range(len(wanted)), key=lambda i: wanted[i] is None):  # names first
        name = wanted[index]
        free = [i for i in range(len(header.leads)) if i not in taken.values()]
        fits = [i for i in free if name in (None, header.leads[i])]
        if not fits:
            lack = f"fewer than {len(wanted)} leads" if name is None else f"no lead {name}"
            raise DataError(f"{header.file}: {lack} (found: {', '.join(header.leads)})")
        taken[index] = fits[0]
    return _chosen(header, [taken[index] for index in range(len(wanted))])


def _chosen(header: Header, at: Sequence[int]) -> Header:
    return replace(
        header,
        leads=tuple(header.leads[i] for i in at),
        order=tuple(header.order[i] for i in at),
        frame=tuple(header.frame[i] for i in at),
    )


def check_files(header: Header, annotator: str | None) -> None:
    """Check that all files of a record exist and are as large as its header requires.

    Raises:
        DataError: One is missing, or the signal is truncated.
    """
    for needed in header.needed_files(annotator):
        if not needed.is_file():
            raise DataError(f"{needed}: missing, but {header.file.name} is there")


def read_signal(
    header: Header, leads: int, *, gaps: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The first leads of a record at 360 Hz, in its own unit, not filtered.

    Args:
        header: From `read_header`.
        leads: How many of ``header.leads``.
        gaps: Bridge missing values instead of refusing the record.

    Returns:
        The signal, shape (leads, samples), and where a value was missing, shape (samples,).

    Raises:
        DataError: The signal cannot be read, is truncated or has missing values.
    """
    columns = header.whole(leads)
    if not gaps:
        checked(header, columns, 0)
    missing = [~np.isfinite(column) for column in columns]
    for lead, bad in enumerate(missing):
        if bad.all():
            raise DataError(f"{header.data}: lead {header.leads[lead]} has no values at all")
    at_360 = [
        resample(_bridged(column, bad), header.ratio / count)
        for column, bad, count in zip(columns, missing, header.frame, strict=False)
    ]
    samples = min(map(len, at_360))
    gap = np.zeros(samples, dtype=np.bool_)
    for bad, count in zip(missing, header.frame, strict=False):
        at = np.rint(np.flatnonzero(bad) * float(header.ratio / count)).astype(np.int64)
        gap[at[at < samples]] = True
    return np.stack([lead[:samples] for lead in at_360]), gap


def _read_frames(
    header: Header, leads: int, start: int = 0, stop: int | None = None
) -> list[NDArray[np.float64]]:
    """The first leads from one frame to another, as recorded."""
    wfdb = _wfdb()
    _check_size(header)
    with reading(header.data, "a readable WFDB signal; truncated?"):
        record = wfdb.rdrecord(
            str(header.path),
            sampfrom=start,
            sampto=stop,
            channels=list(header.order[:leads]),
            smooth_frames=False,
        )
        columns = [np.asarray(column, dtype=np.float64) for column in record.e_p_signal]
    stop = header.frames if stop is None else stop
    for column, count in zip(columns, header.frame, strict=False):
        if stop is not None and len(column) != (stop - start) * count:
            raise DataError(
                f"{header.data}: truncated: {start * count + len(column):,} samples, "
                f"but {header.file.name} says {stop * count:,}"
            )
    return columns


def checked(
    header: Header, columns: list[NDArray[np.float64]], start: int
) -> list[NDArray[np.float64]]:
    """Return the same columns, which start at this frame, if no value is missing.

    Raises:
        DataError: One is.
    """
    for lead, (column, count) in enumerate(zip(columns, header.frame, strict=False)):
        bad = ~np.isfinite(column)
        if bad.any():
            raise DataError(
                f"{header.data}: no value (NaN) in lead {header.leads[lead]}, "
                f"sample {start * count + np.argmax(bad):,}"
            )
    return columns


def _check_size(header: Header) -> None:
    """Refuse a header with more samples than the file has, before memory is allocated."""
    if header.frames is None or header.segments:
        return
    size = header.data.stat().st_size
    # The smallest format has a byte for each sample; compressed ones are a hundredth of that.
    if header.frames > 100 * (size + 1):
        raise DataError(
            f"{header.data}: truncated: {size:,} bytes, "
            f"but {header.file.name} says {header.frames:,} samples"
        )


def _bridged(column: NDArray[np.float64], bad: NDArray[np.bool_]) -> NDArray[np.float64]:
    if not bad.any():
        return column
    at = np.arange(len(column))
    return np.interp(at, at[~bad], column[~bad])


def resample(column: NDArray[np.float64], ratio: Fraction) -> NDArray[np.float64]:
    """Return a lead with this many samples for each of its own."""
    if ratio == 1:
        return column
    from scipy.signal import resample_poly  # noqa: PLC0415

    return np.asarray(resample_poly(column, ratio.numerator, ratio.denominator))


@dataclass(frozen=True)
class Annotations:
    """The annotated beats of a record, in order, and the other marks between them.

    Attributes:
        sample: Where, in frames of the record, shape (n,).
        position: Where at 360 Hz, counted from 1 as BeatGAN did, shape (n,).
        classes: AAMI classes, shape (n,); empty for a wave of ventricular flutter, which ends
            an interval but is no beat.
        notes: Notes for the user on them, a sentence each.
    """

    sample: IndexArray
    position: IndexArray
    classes: TextArray
    notes: tuple[str, ...] = ()


def read_annotations(header: Header, annotator: str = ANNOTATOR) -> Annotations:
    """The annotated beats of a record.

    Raises:
        DataError: The annotations cannot be read, do not belong to the record, or none of
            them is a beat.
    """
    wfdb = _wfdb()
    file = header.annotations(annotator)
    with reading(file, "readable WFDB annotations"):
        content = file.read_bytes()
        plain = all(byte < 128 and (byte >= 32 or byte in b"\t\r\n") for byte in content)
        if content and plain:
            raise ValueError("it is a text")
        if not content.endswith(b"\0\0"):
            raise ValueError("its end is missing; truncated?")
        marks = wfdb.rdann(str(header.path), annotator)
        at, symbols = np.asarray(marks.sample, dtype=np.int64), list(marks.symbol)
        rate_hz = header.rate_hz if marks.fs is None else float(marks.fs)
        if any(not isinstance(symbol, str) for symbol in symbols):
            raise ValueError("it has unknown codes")
        if (np.diff(at) < 0).any() or (len(at) and at[0] < 0):
            raise ValueError("its times go backwards")
        if not math.isfinite(rate_hz) or rate_hz <= 0:
            raise ValueError(f"its time resolution is {rate_hz:g} Hz")
    if not any(symbol in CLASS_OF_SYMBOL for symbol in symbols):
        known = " ".join(CLASS_OF_SYMBOL)
        raise DataError(f"{file}: no beats: none of its annotations is one of {known}")
    return annotations_of(header, file, at, symbols, rate_hz)


def annotations_of(
    header: Header, file: Path, at: IndexArray, symbols: Sequence[str], rate_hz: float
) -> Annotations:
    """Select the beats among the annotations of a file.

    Args:
        header: Of the recording.
        file: Where the annotations come from.
        at: When they are, in order, shape (n,).
        symbols: PhysioNet's, one of them that of a beat.
        rate_hz: Of ``at``.

    Raises:
        DataError: They are beyond the end of the recording.
    """
    ratio = header.ratio if rate_hz == header.rate_hz else _ratio(rate_hz)
    classes = np.array([CLASS_OF_SYMBOL.get(symbol, "") for symbol in symbols], dtype="<U1")
    counts = (classes != "") | (np.array(symbols) == FLUTTER_WAVE)
    at, classes = at[counts], classes[counts]
    end_s = math.inf if header.frames is None else header.frames / header.rate_hz
    last_s = at[-1] / rate_hz
    if last_s > end_s + BEYOND_END_S:
        raise DataError(
            f"{file}: its last beat is at {last_s:,.1f} s, but the signal ends at "
            f"{end_s:,.1f} s: annotations of another record, or of another rate than "
            f"{header.rate_hz:g} Hz"
        )
    return Annotations(
        sample=np.rint(at * (header.rate_hz / rate_hz)).astype(np.int64),
        # Plus one, because BeatGAN counted samples from 1.
        position=np.rint(at * float(ratio)).astype(np.int64) + 1,
        classes=classes,
        notes=tuple(_notes(header, at / rate_hz, rate_hz, classes)),
    )


def _notes(
    header: Header, time_s: NDArray[np.float64], rate_hz: float, classes: TextArray
) -> Iterable[str]:
    name = header.name
    flutter = int(np.count_nonzero(classes == ""))
    if flutter:
        yield f"{name}: {flutter:,} waves of ventricular flutter (!) are not beats"
    if rate_hz < LOWEST_RATE_HZ:
        yield (
            f"warning: {name}: its annotations count at {rate_hz:g} Hz and place a beat to "
            f"within {500 / rate_hz:.0f} ms"
        )
    end_s = math.inf if header.frames is None else header.frames / header.rate_hz
    if math.isfinite(end_s) and time_s[-1] < end_s / 2:
        yield (
            f"warning: {name}: its annotations end at {time_s[-1]:,.0f} s, "
            f"its signal at {end_s:,.0f} s"
        )
    between = np.diff(time_s)
    odd = np.count_nonzero((between < SHORTEST_S) | (between > LONGEST_S))
    if odd > ODD_SHARE * len(between):
        yield (
            f"warning: {name}: {odd / len(between):.0%} of the intervals between its beats are "
            f"shorter than {SHORTEST_S:g} s or longer than {LONGEST_S:g} s; is its rate "
            f"{header.rate_hz:g} Hz?"
        )
