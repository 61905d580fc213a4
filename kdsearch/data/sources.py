"""Select the source of the beats by its name, or by the content of a file or folder."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdsearch.data import arrays, mitbih, recordings
from kdsearch.data.beats import AAMI_CLASSES, Beats
from kdsearch.data.record_folder import has_records
from kdsearch.data.settings import DataSettings
from kdsearch.data.simulated import simulate
from kdsearch.errors import DataError
from kdsearch.files.bucket import expand_home
from kdsearch.files.reading import reading

SIMULATED = "simulated"
MITBIH = "mitbih"
EXPECTED = (
    f"'{SIMULATED}', '{MITBIH}', a folder of WFDB records, EDF files or tables of "
    "samples, a folder with N_samples.npy and others, or an .npz file with x and y"
)
PATIENT_COLUMNS = ("record", "patient")


def load_beats(settings: DataSettings, cache: Path) -> Beats:
    """All beats of ``settings.source``, neither normalised nor split.

    Args:
        settings: The source, and how it is read. A relative path starts at the current
            directory; a folder that is named like a word is given as ``./word``.
        cache: Folder for what is cut or downloaded only once, see `kdsearch.data.cache_dir`.

    Raises:
        DataError: The source does not exist, has an unknown format, or is damaged.
    """
    beats = _load(settings, cache)
    if settings.patients is not None:
        return _with_patients(beats, expand_home(settings.patients))
    if beats.record is None or beats.simulated:
        return beats
    names, index = np.unique(beats.record, return_inverse=True)
    if set(names.tolist()) <= {*mitbih.DS1, *mitbih.DS2}:
        patients = [mitbih.PATIENT_OF.get(name, name) for name in names.tolist()]
        return replace(beats, patient=np.array(patients)[index])
    return replace(beats, notes=(*beats.notes, *_same_patients(names.tolist())))


def resolved_source(source: str) -> str:
    """Return the source; a path becomes absolute."""
    if source in ("", SIMULATED, MITBIH):
        return source
    return str(expand_home(source).absolute())


def resolved_paths(settings: DataSettings) -> DataSettings:
    """Return the settings with absolute paths."""
    patients = settings.patients
    return settings.changed(
        source=resolved_source(settings.source),
        patients=None if patients is None else resolved_source(patients),
    )


def _load(settings: DataSettings, cache: Path) -> Beats:
    if settings.source == SIMULATED:
        return simulate(settings.simulated, settings.seed)
    if settings.source == MITBIH:
        return recordings.load(mitbih.fetch(cache), settings, cache)
    path = expand_home(settings.source)
    is_arrays = any((path / f"{name}_samples.npy").is_file() for name in AAMI_CLASSES)
    if path.is_dir() and not is_arrays:
        if has_records(path):
            return recordings.load(path, settings, cache)
        raise DataError(
            "data.source: neither WFDB records (*.hea) nor EDF files nor tables of samples "
            f"(.csv with a column 'time') nor N_samples.npy in the folder '{path}' (expected "
            f"{EXPECTED})"
        )
    if not isinstance(settings.leads, int):
        raise DataError(
            f"data.leads: leads have names in WFDB records alone, but found "
            f"{list(settings.leads)} for '{settings.source}'"
        )
    if is_arrays:
        return arrays.load_folder(path, settings.leads)
    if path.is_file():
        _check_is_npz(path)
        return arrays.load_npz(path, settings.leads)
    relative = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise DataError(
        f"data.source: no such file or folder{relative}: '{settings.source}' (expected "
        f"{EXPECTED})"
    )


def _check_is_npz(path: Path) -> None:
    """Refuse a file that is not an .npz, with a hint for its kind."""
    kinds = {
        **dict.fromkeys(
            (".hea", ".dat", ".atr"), "a part of a WFDB record: give the folder of records"
        ),
        ".csv": "a table: give its folder if a row is a sample, or write its beats to an .npz, "
        "with numpy.savez(file, x=x, y=y)",
        ".npy": "one array: give the folder, with N_samples.npy and others, or an .npz",
    }
    kind = kinds.get(path.suffix.lower())
    if kind is not None:
        raise DataError(f"data.source: '{path}' is {kind} (expected {EXPECTED})")


def _with_patients(beats: Beats, path: Path) -> Beats:
    """Return the same beats with the patients of a table."""
    if beats.record is None:
        raise DataError(
            f"data.patients: {path} says whose records are, but the records of these beats are "
            "not known; an .npz may have them as an array 'record'"
        )
    known = read_patients(path)
    names, index = np.unique(beats.record, return_inverse=True)
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise DataError(
            f"{path}: no patient for {len(unknown)} of {len(names)} records, the first: "
            f"{unknown[0]}"
        )
    patients = np.array([known[str(name)] for name in names])
    whose = "\n".join(
        f"{name},{patient}" for name, patient in zip(names, patients, strict=True)
    )
    return replace(
        beats,
        patient=patients[index],
        fingerprint=hashlib.sha256(f"{beats.fingerprint}\n{whose}".encode()).hexdigest(),
        description=f"{beats.description} of {len(np.unique(patients))} patients",
    )


def read_patients(path: Path) -> dict[str, str]:
    """The patient of each record, from a .csv of the columns ``record`` and ``patient``.

    Raises:
        DataError: It cannot be read, or a record has no patient, or two.
    """
    with reading(path, "a readable .csv"):
        text = path.read_text(encoding="utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    if not rows or tuple(cell.lower() for cell in rows[0]) != PATIENT_COLUMNS:
        raise DataError(
            f"{path}: line 1: expected the columns 'record,patient', "
            f"found '{','.join(rows[0]) if rows else ''}'"
        )
    known: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(PATIENT_COLUMNS) or "" in row:
            raise DataError(f"{path}: row {number}: expected a record and a patient")
        if known.setdefault(row[0], row[1]) != row[1]:
            raise DataError(f"{path}: row {number}: record {row[0]} has another patient above")
    return known


def _same_patients(records: Sequence[str]) -> list[str]:
    """Return a warning if names suggest several records of one patient: data_8_1, data_8_2."""
    by_folder = {str(name).rpartition("/")[0] for name in records}
    by_name = {re.sub(r"[_\-][^_\-/]+$", "", str(name)) for name in records}
    for groups, example in ((by_folder, "folders"), (by_name, "names")):
        if 1 < len(groups) < len(records):
            return [
                f"warning: the {example} of {len(records)} records look like those of "
                f"{len(groups)} patients ({', '.join(sorted(groups)[:3])}, ...), but each "
                "record counts as one; data.patients: FILE.csv says whose they are"
            ]
    return []
