"""Beats cut from WFDB records exactly as BeatGAN cut the MIT-BIH Arrhythmia Database.

Of the database's 48 records the 44 without a pacemaker are used, which gives 97,568 beats:
N 86,717, S 3,026, V 7,008, F 802, Q 15 (Zhou et al., BeatGAN, IJCAI 2019; the database is by
Moody and Mark, IEEE Eng. in Med. and Biol. 20(3), 2001).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from kdsearch.data.beats import (
    AAMI_CLASSES,
    NORMAL,
    Beats,
    BoolArray,
    Cutting,
    FloatArray,
    IndexArray,
    Moments,
    TextArray,
)
from kdsearch.data.progress import show_progress
from kdsearch.errors import DataError
from kdsearch.files.cache import cached_arrays, sha256_of_files

# Part of the cache's key: raise it whenever the same files would give other beats.
RECIPE_VERSION = 2

SAMPLING_RATE_HZ = 360
SAMPLES_BEFORE = 140
SAMPLES_AFTER = 180
BAND_HZ = (3.0, 45.0)
# int(0.3 x 360), biosppy's order when BeatGAN was written; its later default is another.
FILTER_ORDER = int(0.3 * SAMPLING_RATE_HZ)
R_PEAK_TOLERANCE_S = 0.05
NEAREST_R_PEAK_SAMPLES = 10
FIRST_LEAD = "MLII"
LEADS_KEPT = 2
CUTTING = Cutting(SAMPLING_RATE_HZ, BAND_HZ, FILTER_ORDER, SAMPLES_BEFORE)

SYMBOLS = {
    "N": ("N", "L", "R"),
    "S": ("a", "J", "A", "S", "j", "e"),
    "V": ("V", "E"),
    "F": ("F",),
    "Q": ("/", "f", "Q"),
}
CLASS_OF_SYMBOL = {symbol: name for name, symbols in SYMBOLS.items() for symbol in symbols}

PACED = ("102", "104", "107", "217")
# de Chazal, O'Dwyer and Reilly, IEEE Trans. Biomed. Eng. 51(7), 2004.
# fmt: off
DS1 = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122",
    "124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)
DS2 = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210",
    "212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)
# fmt: on
NOT_PACED = tuple(sorted(DS1 + DS2))
ALL_RECORDS = frozenset(NOT_PACED + PACED)

PHYSIONET_NAME = "mitdb"
SUMS = "SHA256SUMS.txt"
EXTENSIONS = ("hea", "dat", "atr")
# What wfdb raises on a file that is not what it expects; it has no error of its own for most.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OSError, ArithmeticError)


@dataclass(frozen=True)
class Header:
    """What has to be known of a record before its signal is read.

    Attributes:
        path: Path of the record without extension.
        leads: Names of its leads in the order in which they are used, MLII first.
        order: Columns of those leads in the file.
        sampling_rate_hz: Of the signal and of the annotations.
        samples: Length of the signal.
        signal_files: Names of the files that hold the signal.
    """

    path: Path
    leads: tuple[str, ...]
    order: tuple[int, ...]
    sampling_rate_hz: float
    samples: int
    signal_files: tuple[str, ...]


def load(folder: Path, leads: int, cache: Path) -> Beats:
    """Beats of all WFDB records in a folder, cut once and then memory-mapped from the cache.

    Args:
        folder: Holds NAME.hea, NAME.dat and NAME.atr of each record. If all names are
            MIT-BIH's, its four paced records are left out. Other rates than 360 Hz are
            resampled; a record without a lead MLII is used from its first lead on.
        leads: How many leads are asked for; two are kept where there are two.
        cache: Where cut beats are kept.

    Raises:
        DataError: A record cannot be read, has too few leads, NaN or no beats.
    """
    headers = [read_header(folder / name) for name in record_names(folder)]
    kept = _leads_kept(headers, leads)
    key = _key(headers, kept)
    arrays = cached_arrays(cache / "beats" / key, lambda: _cut_all(headers, kept))
    return Beats(
        x=arrays["x"],
        classes=arrays["classes"],
        record=arrays["record"],
        fingerprint=key,
        description=_describe(headers, len(arrays["x"])),
        cutting=replace(CUTTING, first_lead=_common_first_lead(headers)),
        moments=Moments(*arrays["moments"]),
    )


def record_names(folder: Path) -> list[str]:
    """Names of the records to use, sorted; without MIT-BIH's paced ones.

    Raises:
        DataError: The folder holds no record, or none that is not paced.
    """
    names = sorted(path.stem for path in folder.glob("*.hea"))
    # A paced record is known by its number, which means nothing in another database.
    if ALL_RECORDS.issuperset(names):
        names = [name for name in names if name not in PACED]
    if not names:
        raise DataError(f"{folder}: no WFDB record (NAME.hea) without a pacemaker in it")
    return names


def read_header(path: Path, *, annotated: bool = True, first_lead: str = FIRST_LEAD) -> Header:
    """Read NAME.hea and see that the files that belong to it are there.

    Args:
        path: Path of the record without extension.
        annotated: Whether it must have annotations, NAME.atr.
        first_lead: The lead that is used first where the record has it.

    Raises:
        DataError: The header cannot be read, or a file is missing.
    """
    import wfdb  # noqa: PLC0415  # slow to import, and a cached start does without it

    file = path.with_name(path.name + ".hea")
    try:
        header = wfdb.rdheader(str(path))
        names = tuple(str(name) for name in header.sig_name)
        result = Header(
            path=path,
            leads=names,
            order=tuple(range(len(names))),
            sampling_rate_hz=float(header.fs),
            samples=int(header.sig_len),
            signal_files=tuple(dict.fromkeys(header.file_name)),
        )
    except UNREADABLE as error:
        raise DataError(f"{file}: not a readable WFDB header ({_reason(error)})") from None
    annotations = (f"{path.name}.atr",) if annotated else ()
    for needed in (*result.signal_files, *annotations):
        if not (path.parent / needed).is_file():
            raise DataError(f"{path.parent / needed}: missing, but {file.name} is there")
    return _reordered(result, first_lead)


def _reordered(header: Header, first_lead: str) -> Header:
    first = header.leads.index(first_lead) if first_lead in header.leads else 0
    order = (first, *(i for i in range(len(header.leads)) if i != first))
    return replace(header, leads=tuple(header.leads[i] for i in order), order=order)


def _common_first_lead(headers: Sequence[Header]) -> str | None:
    names = {header.leads[0] for header in headers}
    return names.pop() if len(names) == 1 else None


def _leads_kept(headers: Sequence[Header], asked: int) -> int:
    # Two leads are kept even for a search on one, so that both searches share one cutting.
    poorest = min(headers, key=lambda header: len(header.leads))
    if len(poorest.leads) < asked:
        raise DataError(
            f"{poorest.path}.hea: data.leads is {asked}, but the record has "
            f"{len(poorest.leads)} ({', '.join(poorest.leads)})"
        )
    return min(max(asked, LEADS_KEPT), len(poorest.leads))


def _key(headers: Sequence[Header], leads: int) -> str:
    files = [
        header.path.parent / name
        for header in headers
        for name in (
            f"{header.path.name}.hea",
            *header.signal_files,
            f"{header.path.name}.atr",
        )
    ]
    return sha256_of_files(files, f"wfdb recipe {RECIPE_VERSION}, {leads} leads")


def _describe(headers: Sequence[Header], beats: int) -> str:
    is_mitbih = ALL_RECORDS.issuperset(header.path.name for header in headers)
    source = "MIT-BIH" if is_mitbih else f"WFDB records of {headers[0].path.parent.name}"
    plural = "" if len(headers) == 1 else "s"
    return f"{source}, {len(headers)} record{plural}, {beats:,} beats"


def fetch(cache: Path) -> Path:
    """The folder of the downloaded MIT-BIH records, downloaded if it is not there yet."""
    folder = cache / "mitdb-1.0.0"
    if not folder.is_dir():
        download(folder)
    return folder


def download(folder: Path) -> None:
    """Fetch the 44 records from PhysioNet; the folder appears once all of it is there.

    Raises:
        DataError: PhysioNet cannot be reached, or what came is not what its sums say.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                return  # another process has fetched it while we waited
            for leftover in folder.parent.glob(f"{folder.name}.tmp*"):
                shutil.rmtree(leftover)
            fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp", dir=folder.parent))
            try:
                _download_into(fresh)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, HTTPException) as error:
        raise DataError(
            "data.source: cannot download MIT-BIH from PhysioNet; if you have its records, "
            f"give their folder with --data ({_reason(error)})"
        ) from None


def _download_into(folder: Path) -> None:
    files = [[SUMS], *([f"{name}.{end}" for end in EXTENSIONS] for name in NOT_PACED)]
    for batch in show_progress(files, "Downloading MIT-BIH from PhysioNet", total=len(files)):
        _fetch_files(folder, batch)
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split() for line in lines if line)}
    for name in (name for batch in files[1:] for name in batch):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected.get(name):
            raise OSError(f"{name} came damaged; try again")


def _fetch_files(folder: Path, names: list[str]) -> None:
    import wfdb  # noqa: PLC0415

    with contextlib.redirect_stdout(io.StringIO()):  # wfdb prints as it goes
        wfdb.dl_files(PHYSIONET_NAME, str(folder), names)


def _cut_all(headers: Sequence[Header], leads: int) -> Mapping[str, NDArray[Any]]:
    import joblib  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import

    # joblib's processes need no guarded main module, unlike those of concurrent.futures.
    # To start one costs as much as cutting a few records.
    processes = min(max(1, len(headers) // 4), joblib.cpu_count())
    jobs = joblib.Parallel(n_jobs=processes, return_as="generator")
    cuts = jobs(joblib.delayed(cut_record)(header, leads) for header in headers)
    parts = list(show_progress(cuts, "Cutting beats", total=len(headers)))
    classes = np.concatenate([part.classes for part in parts])
    if len(classes) == 0:
        raise DataError(f"{headers[0].path.parent}: not one beat could be cut from its records")
    moments = Moments.join([part.moments for part in parts])
    return {
        "x": np.concatenate([part.x for part in parts]),
        "classes": classes,
        "record": np.repeat(
            [header.path.name for header in headers], [len(part.classes) for part in parts]
        ),
        "moments": np.stack([moments.time_s, moments.before_s, moments.after_s]),
    }


@dataclass(frozen=True)
class CutBeats:
    """The beats of one record, in the order in which they came.

    Attributes:
        x: In mV, shape (n, leads, 320).
        classes: AAMI classes, shape (n,).
        moments: When they came; intervals are those to any annotated beat, cut or not.
    """

    x: FloatArray
    classes: TextArray
    moments: Moments


def cut_record(header: Header, leads: int) -> CutBeats:
    """Filter one record and cut a window around each annotated beat.

    Args:
        header: From `read_header`.
        leads: How many of its leads to cut, the first ones of ``header.leads``.

    Raises:
        DataError: The signal or the annotations cannot be read, hold NaN or no beat.
    """
    signal = band_pass(read_signal(header, leads))
    position, classes = read_annotations(header)
    moments = Moments.of_times(position / SAMPLING_RATE_HZ)
    inside = inside_record(position, signal)
    position, classes, moments = position[inside], classes[inside], moments[inside]
    if signal.shape[1] > 0 and len(position):
        # BeatGAN trusts a normal label only where a detector sees a beat as well.
        kept = (classes != NORMAL) | _near_an_r_peak(position, signal[0])
        position, classes, moments = position[kept], classes[kept], moments[kept]
    return CutBeats(windows(signal, position), classes, moments)


def inside_record(position: IndexArray, signal: NDArray[np.float64]) -> BoolArray:
    """Which beats have all their samples, shape (n,)."""
    return np.asarray(
        (position >= SAMPLES_BEFORE) & (position + SAMPLES_AFTER < signal.shape[1])
    )


def windows(signal: NDArray[np.float64], position: IndexArray) -> FloatArray:
    """Cut a window around each beat, all of them `inside_record`.

    Args:
        signal: Filtered leads, shape (leads, samples).
        position: Sample of each beat, shape (n,).

    Returns:
        Shape (n, leads, 320), float32.
    """
    window = position[:, None] + np.arange(-SAMPLES_BEFORE, SAMPLES_AFTER)
    beats = signal[:, window].transpose(1, 0, 2)
    return np.ascontiguousarray(beats, dtype=np.float32)


def read_signal(header: Header, leads: int) -> NDArray[np.float64]:
    """The first leads of a record in mV at 360 Hz, not filtered, shape (leads, samples).

    Raises:
        DataError: The signal cannot be read, is truncated or holds NaN.
    """
    import wfdb  # noqa: PLC0415

    file = header.path.parent / header.signal_files[0]
    try:
        columns = wfdb.rdrecord(str(header.path)).p_signal
    except UNREADABLE as error:
        raise DataError(f"{file}: cannot be read; truncated? ({_reason(error)})") from None
    if len(columns) != header.samples:
        raise DataError(
            f"{file}: truncated: {len(columns):,} samples, "
            f"but {header.path.name}.hea says {header.samples:,}"
        )
    signal = np.asarray(columns, dtype=np.float64).T[list(header.order[:leads])]
    bad = np.argwhere(~np.isfinite(signal))
    if len(bad):
        lead, sample = bad[0]
        raise DataError(
            f"{file}: no value (NaN) in lead {header.leads[lead]}, sample {sample:,}"
        )
    return _resample(signal, header.sampling_rate_hz)


def _resample(signal: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    if rate_hz == SAMPLING_RATE_HZ:
        return signal
    from scipy.signal import resample_poly  # noqa: PLC0415

    ratio = Fraction(SAMPLING_RATE_HZ / rate_hz).limit_denominator(1000)
    return np.asarray(resample_poly(signal, ratio.numerator, ratio.denominator, axis=1))


def read_annotations(header: Header) -> tuple[IndexArray, TextArray]:
    """The annotated beats of a record: their samples at 360 Hz and AAMI classes, shape (n,).

    Raises:
        DataError: The annotations cannot be read, or none of them is a beat.
    """
    import wfdb  # noqa: PLC0415

    file = f"{header.path}.atr"
    try:
        marks = wfdb.rdann(str(header.path), "atr")
        scale = SAMPLING_RATE_HZ / header.sampling_rate_hz
        # Plus one, because BeatGAN counted samples from 1.
        position = np.rint(np.asarray(marks.sample) * scale).astype(np.int64) + 1
        classes = np.array([CLASS_OF_SYMBOL.get(symbol, "") for symbol in marks.symbol])
    except UNREADABLE as error:
        raise DataError(f"{file}: not readable WFDB annotations ({_reason(error)})") from None
    is_beat = classes != ""
    if not is_beat.any():
        raise DataError(f"{file}: no beats: none of its annotations is of {AAMI_CLASSES}")
    return position[is_beat], classes[is_beat].astype("<U1")


def band_pass(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter leads at 360 Hz to 3-45 Hz, forwards and backwards, so that no peak moves.

    Args:
        signal: Shape (leads, samples).

    Returns:
        The same shape; no samples at all where the signal is too short to filter.
    """
    from scipy.signal import filtfilt, firwin  # noqa: PLC0415

    taps = firwin(FILTER_ORDER + 1, BAND_HZ, pass_zero=False, fs=SAMPLING_RATE_HZ)
    if signal.shape[1] <= 3 * len(taps):
        return signal[:, :0]  # under a second: too short to filter, and for a beat
    return np.asarray(filtfilt(taps, [1.0], signal, axis=1))


def _near_an_r_peak(position: IndexArray, lead: NDArray[np.float64]) -> BoolArray:
    peaks = r_peaks(lead)
    if len(peaks) == 0:
        return np.zeros(len(position), dtype=np.bool_)
    right = np.searchsorted(peaks, position).clip(max=len(peaks) - 1)
    left = (right - 1).clip(min=0)
    distance = np.minimum(abs(peaks[right] - position), abs(peaks[left] - position))
    return np.asarray(distance < NEAREST_R_PEAK_SAMPLES)


def r_peaks(lead: NDArray[np.float64]) -> IndexArray:
    """R peaks of a filtered lead at 360 Hz by Hamilton's segmenter, corrected, shape (n,)."""
    from biosppy.signals import ecg  # noqa: PLC0415

    found = ecg.hamilton_segmenter(lead, SAMPLING_RATE_HZ)["rpeaks"]
    peaks = ecg.correct_rpeaks(lead, found, SAMPLING_RATE_HZ, R_PEAK_TOLERANCE_S)["rpeaks"]
    return np.asarray(peaks, dtype=np.int64)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
