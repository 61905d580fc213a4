"""Read beats that are already cut: an .npz file, or BeatGAN's folder of .npy files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import (
    AAMI_CLASSES,
    NORMAL,
    Beats,
    BoolArray,
    FloatArray,
    Moments,
    TextArray,
)
from kdsearch.data.wfdb_files import CLASS_OF_SYMBOL
from kdsearch.errors import DataError
from kdsearch.files.cache import sha256_of_arrays
from kdsearch.files.reading import read_arrays, reading

ABNORMAL = "abnormal"
SHORTEST, LONGEST = 16, 16384
# Beyond it the span of a beat could overflow float32 when beats are normalised.
LARGEST = 1e30
RECIPE = "arrays 1"


def load_npz(path: Path, leads: int) -> Beats:
    """Beats of an .npz file.

    Args:
        path: Has ``x``, shape (n, leads, length) or (n, length), and ``y``, shape (n,):
            0 (normal) and 1 (abnormal), or names of classes, of which ``N`` and ``normal``
            are normal; or the symbols of WFDB's annotations, ``N`` among them, which stand for
            their AAMI classes. It may have ``record``, shape (n,): the recording of each beat;
            and ``time_s``, shape (n,): when it came, if all beats of a record are there in
            order.
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
    labels = read_labels(arrays["y"], len(x), f"{path}: y")
    classes = classes_of_labels(labels)
    record = arrays.get("record")
    if record is not None:
        record = read_records(record, len(x), f"{path}: record")
    whose = np.full(len(x), "") if record is None else record
    moments = read_moments(arrays, whose, len(x), path)
    for name, of_kind in (("normal", classes == NORMAL), ("abnormal", classes != NORMAL)):
        if not of_kind.any():
            raise DataError(
                f"{path}: y: no {name} beats, but both kinds are needed; "
                "normal ones are labelled 0, 'N' or 'normal'"
            )
    return _beats(x, classes, record, path, moments, taken_for_symbols(labels, classes, path))


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
        raise DataError(f"{paths[NORMAL]}: missing; this file must have the normal beats")
    read = {name: _read_npy(path) for name, path in present.items()}
    # An empty array means that there are no beats of its class.
    parts = {
        name: _check_beats(array, leads, str(paths[name]))
        for name, array in read.items()
        if name == NORMAL or array.shape[:1] != (0,)
    }
    if len(parts) == 1:
        raise DataError(
            f"{folder}: no abnormal beats: none of S, V, F, Q has a NAME_samples.npy with beats"
        )
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
    notes: tuple[str, ...] = (),
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
        notes=notes,
    )


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an .npz file.

    Raises:
        DataError: It is not an .npz file, or it has pickled objects.
    """
    with reading(path, "a readable .npz file"), path.open("rb") as file:
        return read_arrays(file)


def _read_npy(path: Path) -> NDArray[Any]:
    with reading(path, "a readable .npy file"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an .npz file, not a single array")
    return array


def _check_beats(x: NDArray[Any], leads: int, where: str) -> FloatArray:
    """The first leads as float32, shape (n, leads, length), or the reason why not."""
    if x.dtype.kind not in "iuf":
        raise DataError(f"{where}: beats must be real numbers, but are {x.dtype}")
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
    return as_float32(x[:, :leads], where, "learned from")


def as_float32(x: NDArray[Any], where: str, use: str) -> FloatArray:
    """Convert beats, shape (n, leads, length).

    Args:
        where: Names them in messages.
        use: What cannot be done with a wrong value, ``scored`` for example.

    Raises:
        DataError: A value is NaN, infinite or huge.
    """
    with np.errstate(over="ignore"):
        beats = np.ascontiguousarray(x, dtype=np.float32)
    # After the conversion: the limit itself is infinite in half precision.
    usable = np.abs(beats) <= LARGEST  # False for NaN, too
    if not usable.all():
        beat, lead, sample = np.argwhere(~usable)[0]
        value = x[beat, lead, sample]
        raise DataError(
            f"{where}: beat {beat}, lead {lead}, sample {sample} is {value}; "
            f"NaN, infinite and huge values cannot be {use}"
        )
    return beats


def read_labels(y: NDArray[Any], beats: int, where: str) -> TextArray:
    """Labels as text, ``N`` for normal beats, shape (n,).

    Args:
        y: 0 and 1, as numbers or texts, or names, of which ``N`` and ``normal`` are normal.
        beats: Their number.
        where: Names them in messages.

    Raises:
        DataError: They are of another form, or not as many as the beats.
    """
    if y.shape != (beats,):
        raise DataError(
            f"{where}: expected one label for each of {beats} beats, found {y.shape}"
        )
    if y.dtype.kind == "S":
        with reading(where, "labels in UTF-8"):
            y = np.char.decode(y, "utf-8")
    if y.dtype.kind == "U":
        names = np.char.strip(y)
        if set(names.tolist()) <= {"0", "1"}:
            return _of_numbers(names == "1")
        if (names == "").any():
            empty = np.flatnonzero(names == "")[0]
            raise DataError(f"{where}: the label of beat {empty} is empty")
        normal = (names == NORMAL) | (np.char.lower(names) == "normal")
        return np.where(normal, NORMAL, names)
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels must be 0 and 1 or text, but are {y.dtype}")
    unknown = y[(y != 0) & (y != 1)]
    if len(unknown):
        raise DataError(
            f"{where}: labels must be 0 (normal) or 1 (abnormal), "
            f"but {unknown[0]} was found; other classes are given by name"
        )
    return _of_numbers(y != 0)


def _of_numbers(abnormal: BoolArray) -> TextArray:
    return np.where(abnormal, ABNORMAL, NORMAL)


def classes_of_labels(labels: TextArray) -> TextArray:
    """Classes of labels, of which ``N`` is normal, shape (n,).

    Labels that are all symbols of WFDB's annotations, ``N`` among them, stand for their AAMI
    classes: ``L``, a bundle branch block, is a normal beat.
    """
    names, index = np.unique(labels, return_inverse=True)
    if not {NORMAL} <= set(names.tolist()) <= CLASS_OF_SYMBOL.keys():
        return labels
    return np.array([CLASS_OF_SYMBOL[str(name)] for name in names])[index]


def taken_for_symbols(labels: TextArray, classes: TextArray, path: Path) -> tuple[str, ...]:
    """Return a note on labels that were read as WFDB's symbols, if there are any."""
    names, first, counts = np.unique(labels, return_index=True, return_counts=True)
    changes = [
        f"{name} as {classes[row]} ({count:,})"
        for name, row, count in zip(names, first, counts, strict=True)
        if name != classes[row]
    ]
    if not changes:
        return ()
    return (f"{path.name}: labels are read as WFDB's symbols: {', '.join(changes)}",)


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
    """Return the moments of beats from the array ``time_s``, shape (n,), or None without it.

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
                f"{path}: time_s: must increase from beat to beat"
                + (f", but does not in record {name}" if name else "")
            )
        for column in fields(Moments):
            getattr(moments, column.name)[rows] = getattr(own, column.name)
    return moments
