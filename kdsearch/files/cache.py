"""Cache of arrays: computed once, written atomically, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from kdsearch.errors import ConfigError, DataError
from kdsearch.files.atomic import make_folder, put_folder, save_array, write_json
from kdsearch.files.bucket import expand_home
from kdsearch.files.reading import reading

logger = logging.getLogger(__name__)
CACHE_VARIABLE = "KDSEARCH_CACHE"
META = "meta.json"
FORMAT = 1
# How often a process that waits for a lock looks whether it is still to wait.
POLL_S = 0.5

Arrays = Mapping[str, NDArray[Any]]


def cache_dir() -> Path:
    """Return the folder of cut beats and trained teachers.

    ``$KDSEARCH_CACHE``, else ``$XDG_CACHE_HOME/kdsearch``, else ``~/.cache/kdsearch``.

    Raises:
        ConfigError: None of the three is known.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return expand_home(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "kdsearch"
    try:
        return Path.home() / ".cache" / "kdsearch"
    except RuntimeError:
        raise ConfigError(
            f"no home folder is known for the cache: set {CACHE_VARIABLE} to a folder"
        ) from None


def cached_arrays(entry: Path, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of a cache entry; compute and write them if missing or damaged.

    Processes that ask for the same entry at the same time wait for the one that makes it.

    Args:
        entry: Folder of the entry; its name must change whenever the content would.
        make: Calculates the arrays; called at most once.

    Returns:
        Read-only arrays, memory-mapped from ``entry``; in memory where the cache cannot be
        written, for example that of another user.

    Raises:
        DataError: ``make`` raised it.
    """
    found = _read(entry)
    if found is not None:
        return found
    with writable_lock(entry.with_name(entry.name + ".lock")) as writable:
        if not writable:
            return make()
        found = _read(entry)  # another process may have made it while we waited
        if found is not None:
            return found
        arrays = make()
        try:
            _write(entry, arrays)
        except OSError as error:
            logger.warning("%s: the cache cannot be written: %s", entry, error)
            return arrays
    return _read(entry) or arrays


def why_unwritable(cache: Path) -> str:
    """Return why the cache cannot be written; empty if it can."""
    try:
        make_folder(cache)
        with tempfile.TemporaryFile(dir=cache):
            return ""
    except OSError as error:
        return f"{cache}: {error.strerror or error}"


@contextmanager
def writable_lock(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold a lock in the cache; yield False if the cache cannot be written.

    Args:
        on_wait: Called again and again while another process holds the lock; what it raises
            ends the wait.
    """
    lock = FileLock(path)
    try:
        make_folder(path.parent)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=POLL_S)
            except Timeout:
                on_wait()
    except OSError as error:
        logger.warning("%s: the cache cannot be written: %s", path.parent, error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _read(entry: Path) -> dict[str, NDArray[Any]] | None:
    try:
        meta = json.loads((entry / META).read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            return None
        return {name: _read_array(entry, name, facts) for name, facts in meta["arrays"].items()}
    # A damaged entry is ignored: it can always be computed again.
    except (DataError, OSError, ValueError, LookupError, TypeError, AttributeError, EOFError):
        return None


def _read_array(entry: Path, name: str, facts: Mapping[str, Any]) -> NDArray[Any]:
    path = entry / f"{name}.npy"
    if path.stat().st_size != facts["bytes"]:
        raise ValueError(f"{path}: not of its recorded size")
    with reading(path, "a readable .npy file"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if list(array.shape) != facts["shape"] or array.dtype.str != facts["dtype"]:
        raise ValueError(f"{path}: not of its recorded shape and type")
    return array


def _write(entry: Path, arrays: Arrays) -> None:
    """Write beside the entry, then rename; call it under the entry's lock."""
    for leftover in entry.parent.glob(f"{entry.name}.tmp*"):
        shutil.rmtree(leftover)  # of a process that was killed
    fresh = Path(tempfile.mkdtemp(prefix=f"{entry.name}.tmp", dir=entry.parent))
    try:
        facts: dict[str, Any] = {}
        for name, array in arrays.items():
            path = fresh / f"{name}.npy"
            save_array(path, array)
            shape, dtype = list(array.shape), array.dtype.str
            facts[name] = {"bytes": path.stat().st_size, "shape": shape, "dtype": dtype}
        write_json(fresh / META, {"format": FORMAT, "arrays": facts})
        # One that is there is damaged, or it would have been read.
        put_folder(fresh, entry)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sha256_of_files(files: Iterable[Path], recipe: str) -> str:
    """Return the SHA-256 of a recipe and of the files' names and contents."""
    total = hashlib.sha256(recipe.encode())
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"\n{path.name} {content}".encode())
    return total.hexdigest()


def sha256_of_arrays(arrays: Iterable[NDArray[Any]], recipe: str) -> str:
    """Return the SHA-256 of a recipe and of the arrays' types, shapes and values."""
    total = hashlib.sha256(recipe.encode())
    for array in arrays:
        total.update(f"\n{array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).view(np.uint8).data)
    return total.hexdigest()
