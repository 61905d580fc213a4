"""Write files atomically; read tensors without running code.

A `Place` is a path on disk or in a bucket.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kdsearch.files.bucket import BucketPath, Place


def write_bytes(path: Place, *parts: bytes | memoryview) -> None:
    """Write ``path`` beside itself and rename: a reader sees the old file or the new one.

    When this returns, neither a kill nor a power cut undoes it. The name beside it is unique:
    a dying process cannot spoil its successor's file. Nothing is left behind if it fails.

    Raises:
        OSError: It names the file. What a failed sync has written is dropped: a second sync may
            succeed although the disk does not have the data (Rebello et al., ATC 2020).
    """
    if isinstance(path, BucketPath):
        path.write_bytes(b"".join(parts))
        return
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(path)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents in a way that a power cut does not undo."""
    if not path.is_dir():
        make_folder(path.parent)
        with suppress(FileExistsError):  # Another process was faster.
            path.mkdir()
        sync(path.parent)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk: no power cut undoes them then."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # A folder may be writable without being readable.
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have nothing to sync here.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sync_folders(path: Path) -> None:
    """Sync a folder and all folders below it.

    What a killed process had no time to sync is safe then, and not only seen.
    """
    for folder, _, _ in os.walk(path):
        sync(Path(folder))


def remove(path: Place) -> None:
    """Remove a file, if it is there, in a way that a power cut does not undo."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    if isinstance(path, Path):
        sync(path.parent)


def names_in_folders(path: Place) -> Iterator[tuple[str, str]]:
    """Return the folder's name and the file's name of each file one folder below ``path``."""
    if isinstance(path, BucketPath):
        for name in path.names_below():
            parts = name.split("/")
            if len(parts) == 2:
                yield parts[0], parts[1]
        return
    for below in path.iterdir() if path.is_dir() else ():
        if below.is_dir():
            for file in below.iterdir():
                yield below.name, file.name


def write_text(path: Place, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Place, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def save_state(path: Place, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts whole or not at all, with a checksum in front."""
    import torch  # noqa: PLC0415

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    write_bytes(path, hashlib.sha256(content).digest(), content)


def load_state(path: Place) -> dict[str, Any]:
    """Read what `save_state` wrote, tensors on the CPU; runs no code from the file.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFile: The content does not match its checksum.
    """
    # Torch is imported where tensors are read: a leaderboard needs none and must not wait.
    import torch  # noqa: PLC0415

    content = path.read_bytes()
    digest, body = content[:32], memoryview(content)[32:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedFile(f"{path}: damaged or half-written")
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return state


def save_arrays(path: Place, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed ``.npz``, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **cast("dict[str, Any]", arrays))
    write_bytes(path, buffer.getbuffer())


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``.npy``, whole or not at all, without a copy in memory."""
    array = np.asarray(array, order="C")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, np.lib.format.header_data_from_array_1_0(array)
    )
    write_bytes(path, header.getbuffer(), array.reshape(-1).view(np.uint8).data)


def put_folder(fresh: Path, folder: Path) -> None:
    """Rename a folder that was written beside its name, in place of one of this name.

    Its files are synced first: without that a power cut can leave files of full size that are
    empty. A crash may leave neither the old folder nor the new one.
    """
    for path in [*fresh.rglob("*"), fresh]:
        sync(path)
    if folder.exists():
        shutil.rmtree(folder)
    fresh.rename(folder)
    sync(folder.parent)


def remove_leftovers(folder: Place) -> None:
    """Remove what killed processes left of `write_bytes`; in a bucket they leave nothing."""
    if isinstance(folder, Path):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


class DamagedFile(Exception):
    """A file whose content does not match its checksum."""
