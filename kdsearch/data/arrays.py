"""Beats that somebody has cut already: an .npz file, or BeatGAN's folder of .npy files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import AAMI_CLASSES, NORMAL, Beats, FloatArray, Moments, TextArray
from kdsearch.errors import DataError
from kdsearch.files.cache import sha256_of_arrays

ABNORMAL = "abnormal"
SHORTEST, LONGEST = 16, 16384
# Beyond it the span of a beat could overflow float32 when beats are normalised.
LARGEST = 1e30
RECIPE = "arrays 1"
UNREADABLE = (ValueError, OSError, EOFError, BadZipFile, KeyError, SyntaxError)


def load_npz(path: Path, leads: int) -> Beats:
    """Beats of an .npz file.

    Args:
        path: Has ``x``, shape (n, leads, length) or (n, length), and ``y``, shape (n,):
            0 (normal) and 1 (abnormal), or names of classes, of which ``N`` and ``normal``
            are normal. It may have ``record``, shape (n,): the patient of each beat; and
            ``time_s``, shape (n,): when it came, if all beats of a record are there in order.
        leads: How many leads to take.

    Raises:
        DataError: The file is not of this form, or a value is NaN or infinite.
    """
    arrays = read_npz(path)
    for name in ("x", "y"):
        if name not in arrays:
            found = ", ".join(sorted(arrays)) or "none"
            raise DataError(f"{path}: no array '{name}' in it (found: {found})")
    x = _check_beats(arrays["x"], leads, f"{path}: x")
    classes = read_classes(arrays["y"], len(x), f"{path}: y")
    record = arrays.get("record")
    if record is not None:
        record = read_records(record, len(x), f"{path}: record")
    whose = np.full(len(x), "") if record is None else record
    moments = read_moments(arrays, whose, len(x), path)
    _check_both_kinds(classes, path)
    return _beats(x, classes, record, path, moments)


def load_folder(folder: Path, leads: int) -> Beats:
    """Beats of a folder as BeatGAN publishes it: N_samples.npy and one file per other class.

    Args:
        folder: N_samples.npy and at least one of S_, V_, F_ and Q_samples.npy, each of shape
            (n, leads, length) or (n, length).
        leads: How many leads to take.

    Raises:
        DataError: A file is missing or not of this form, or a value is NaN or infinite.
    """
    paths = {name: folder / f"{name}_samples.npy" for name in AAMI_CLASSES}
    present = {name: path for name, path in paths.items() if path.is_file()}
    if NORMAL not in present:
        raise DataError(f"{paths[NORMAL]}: missing, but it has to hold the normal beats")
    if len(present) == 1:
        raise DataError(
            f"{folder}: no abnormal beats: none of S, V, F, Q has a NAME_samples.npy"
        )
    parts = {
        name: _check_beats(_read_npy(path), leads, str(path)) for name, path in present.items()
    }
    for name, part in parts.items():
        if part.shape[1:] != parts[NORMAL].shape[1:]:
            raise DataError(
                f"{paths[name]}: {part.shape[2]} samples a beat, "
                f"but {paths[NORMAL].name} has {parts[NORMAL].shape[2]}"
            )
    counts = [len(part) for part in parts.values()]
    return _beats(
        np.concatenate(list(parts.values())), np.repeat(list(parts), counts), None, folder
    )


def _beats(
    x: FloatArray,
    classes: TextArray,
    record: TextArray | None,
    path: Path,
    moments: Moments | None = None,
) -> Beats:
    known = [x, classes] if record is None else [x, classes, record]
    if moments is not None:
        known.append(moments.time_s)
    return Beats(
        x=x,
        classes=classes,
        record=record,
        fingerprint=sha256_of_arrays(known, RECIPE),
        description=f"{path.name}, {len(x):,} beats",
        moments=moments,
    )


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an .npz file.

    Raises:
        DataError: It is none, or holds pickles.
    """
    try:
        # Pickles can run any code when they are read, so they are never allowed.
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("a single array, not an .npz file")
        with archive:
            return {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise DataError(f"{path}: {_why_unreadable(error, '.npz')}") from None


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(f"{path}: {_why_unreadable(error, '.npy')}") from None
    return array


def _why_unreadable(error: Exception, kind: str) -> str:
    text = " ".join(str(error).split())
    if "ickle" in text or "Object arrays" in text or "Python objects" in text:
        return f"holds Python objects (pickles), not plain arrays, or is no {kind} file"
    return f"not a readable {kind} file ({text[:200]})"


def _check_beats(x: NDArray[Any], leads: int, where: str) -> FloatArray:
    """The first leads as float32, shape (n, leads, length), or the reason why not."""
    if x.dtype.kind not in "iuf":
        raise DataError(f"{where}: beats have to be real numbers, but are {x.dtype}")
    if x.ndim == 2:
        x = x[:, None, :]
    if x.ndim != 3 or 0 in x.shape:
        raise DataError(
            f"{where}: expected the shape (beats, leads, samples) or (beats, samples), "
            f"but found {x.shape}"
        )
    if not SHORTEST <= x.shape[2] <= LONGEST:
        raise DataError(
            f"{where}: a beat may have {SHORTEST} to {LONGEST:,} samples, "
            f"but has {x.shape[2]:,} (the shape is {x.shape})"
        )
    if x.shape[1] < leads:
        raise DataError(f"{where}: data.leads is {leads}, but the beats have {x.shape[1]}")
    return _as_float32(x[:, :leads], where)


def _as_float32(x: NDArray[Any], where: str) -> FloatArray:
    # In float16, the limit itself would be infinite; float64 may overflow, to infinity.
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(x, dtype=np.float32)
    usable = np.abs(values) <= LARGEST  # False for NaN, too
    if not usable.all():
        beat, lead, sample = np.argwhere(~usable)[0]
        value = x[beat, lead, sample]
        raise DataError(
            f"{where}: beat {beat}, lead {lead}, sample {sample} is {value}; "
            "NaN, infinite and huge values cannot be learned from"
        )
    return values


def read_classes(y: NDArray[Any], beats: int, where: str) -> TextArray:
    """Labels 0 and 1 or names as classes, of which ``"N"`` is normal, shape (n,).

    Raises:
        DataError: They are of another form, or not as many as the beats.
    """
    if y.shape != (beats,):
        raise DataError(
            f"{where}: expected one label for each of {beats} beats, found {y.shape}"
        )
    if y.dtype.kind == "U":
        return _read_names(y, where)
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels have to be 0 and 1 or text, but are {y.dtype}")
    unknown = y[(y != 0) & (y != 1)]
    if len(unknown):
        raise DataError(
            f"{where}: labels have to be 0 (normal) or 1 (abnormal), "
            f"but {unknown[0]} was found; other classes are given by name"
        )
    return np.where(y.astype(np.bool_), ABNORMAL, NORMAL)


def _read_names(y: NDArray[Any], where: str) -> TextArray:
    names = np.char.strip(y)
    if (names == "").any():
        raise DataError(f"{where}: the label of beat {np.flatnonzero(names == '')[0]} is empty")
    normal = (names == NORMAL) | (np.char.lower(names) == "normal")
    return np.where(normal, NORMAL, names)


def read_records(record: NDArray[Any], beats: int, where: str) -> TextArray:
    """The record of each beat as text, shape (n,).

    Raises:
        DataError: It is of another form, or not one for each beat.
    """
    if record.shape != (beats,) or record.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: expected a number or a text for each of {beats} beats, "
            f"found {record.dtype} {record.shape}"
        )
    return record.astype(np.str_)


def read_moments(
    arrays: Mapping[str, NDArray[Any]], record: TextArray, beats: int, path: Path
) -> Moments | None:
    """When beats came, from the array ``time_s``, shape (n,); None where there is none.

    Raises:
        DataError: It is of another form, or not in order in every record.
    """
    if "time_s" not in arrays:
        return None
    time_s = arrays["time_s"]
    if time_s.shape != (beats,) or time_s.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: time_s: expected a number for each of {beats} beats, "
            f"found {time_s.dtype} {time_s.shape}"
        )
    moments = Moments(*np.full((3, beats), np.nan))
    for name in np.unique(record):
        rows = np.flatnonzero(record == name)
        own = Moments.of_times(time_s[rows])
        if not (np.diff(own.time_s) > 0).all() or not np.isfinite(own.time_s).all():
            raise DataError(
                f"{path}: time_s: has to increase from beat to beat"
                + (f", but does not in record {name}" if name else "")
            )
        for column in fields(Moments):
            getattr(moments, column.name)[rows] = getattr(own, column.name)
    return moments


def _check_both_kinds(classes: TextArray, path: Path) -> None:
    normal = classes == NORMAL
    for name, found in (("normal", normal), ("abnormal", ~normal)):
        if not found.any():
            raise DataError(
                f"{path}: y: no {name} beats, but both kinds are needed; "
                "normal ones are labelled 0, 'N' or 'normal'"
            )
