"""Where beats come from: recognised by a word, or by what is in a file or folder."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data import arrays, mitbih
from kdsearch.data.beats import AAMI_CLASSES, Beats
from kdsearch.data.settings import DataSettings
from kdsearch.data.simulated import simulate
from kdsearch.errors import DataError
from kdsearch.files.bucket import expand_home

SIMULATED = "simulated"
MITBIH = "mitbih"
EXPECTED = (
    f"'{SIMULATED}', '{MITBIH}', a folder of WFDB records, a folder with N_samples.npy and "
    "others, or an .npz file with x and y"
)


def load_beats(settings: DataSettings, cache: Path) -> Beats:
    """All beats of ``settings.source``, neither normalised nor split.

    Args:
        settings: The source, and how many leads are needed of it. A relative path starts at
            the current directory; a folder that is named like a word is given as ``./word``.
        cache: Folder for what is cut or downloaded only once, see `kdsearch.data.cache_dir`.

    Raises:
        DataError: The source does not exist, is none of the known kinds, or is damaged.
    """
    if settings.source == SIMULATED:
        return simulate(settings.simulated, settings.seed)
    if settings.source == MITBIH:
        return mitbih.load(mitbih.fetch(cache), settings.leads, cache)
    path = expand_home(settings.source)
    if path.is_dir():
        return _load_folder(path, settings.leads, cache)
    if path.is_file():
        return arrays.load_npz(path, settings.leads)
    relative = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise DataError(
        f"data.source: no such file or folder{relative}: '{settings.source}' (expected "
        f"{EXPECTED})"
    )


def _load_folder(folder: Path, leads: int, cache: Path) -> Beats:
    if any(folder.glob("*.hea")):
        return mitbih.load(folder, leads, cache)
    if any((folder / f"{name}_samples.npy").is_file() for name in AAMI_CLASSES):
        return arrays.load_folder(folder, leads)
    raise DataError(
        f"data.source: neither WFDB records (*.hea) nor N_samples.npy in the folder '{folder}' "
        f"(expected {EXPECTED})"
    )
