"""Write files atomically; read tensors without running code.

A `Place` is a path on disk or in a bucket.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kdsearch.files.bucket import BucketPath, Place


@contextmanager
def whole_file(path: Place) -> Iterator[BinaryIO]:
    """Write ``path`` beside itself and rename: a reader sees the old file or the new one.

    The name beside it is unique, so that a dying process cannot spoil its
    successor's file. Nothing is left behind when the body raises.
    """
    if isinstance(path, BucketPath):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getbuffer())
        return
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents in a way that a power cut does not undo."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Write the names in a folder to the disk: a power cut undoes no rename before this."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # A folder may be written without being readable.
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have nothing to sync here.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


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
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Place, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def save_state(path: Place, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts whole or not at all, with a checksum in front."""
    import torch  # noqa: PLC0415

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    with whole_file(path) as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)


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
    with whole_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def remove_leftovers(folder: Place) -> None:
    """Remove what killed processes left of `whole_file`; in a bucket they leave nothing."""
    if isinstance(folder, Path):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


class DamagedFile(Exception):
    """A file whose content does not match its checksum."""
