"""A layer below Python's file functions: records what is written, or lets it fail.

`install` replaces the functions of `os` by which `kdsearch.files` writes. It sees every folder
in `roots`, in any number of processes: one that starts with ``WATCHED_DISK`` set and with this
folder on its PYTHONPATH installs it by itself (`sitecustomize`).

A record is a file of pickled operations in the order in which they were done. Paths are
relative to a root's parent; handles have a name that no other has.

    ("open", handle, path, created, truncated)     ("write", handle, offset, bytes)
    ("truncate", handle, size)                     ("sync", handle)
    ("rename", from, to)                           ("remove", path)
    ("folder", path)                               ("sync path", path)
    ("remove folder", path)
    ("mark", name, value)                          a test's note, such as what a user was told
"""

# It stands below pathlib.
# ruff: noqa: PTH100, PTH115, PTH117

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "WATCHED_DISK"
Operation = tuple[Any, ...]
KINDS = ("open", "write", "sync", "rename", "remove", "folder")
REAL = {
    name: getattr(os, name)
    for name in (
        *("open", "write", "fsync", "close", "ftruncate", "lseek"),
        *("replace", "rename", "unlink", "remove", "mkdir", "rmdir"),
    )
}


@dataclass(frozen=True)
class Fault:
    """What fails: the `at`-th operation of some kinds, of all processes together.

    Attributes:
        errno: The error; 0 only delays.
        kinds: Of `KINDS`.
        lasting: Whether everything fails from then on that takes room (or all that writes, if
            the error is EROFS), until the fault is removed.
        delay_s: How long every operation takes.
    """

    errno: int
    kinds: tuple[str, ...] = KINDS
    at: int = 0
    lasting: bool = False
    delay_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a process watches.

    Attributes:
        roots: Folders with all that is in them.
        record: The file of operations, or an empty text.
        counter: A file whose size counts the operations of a fault's kinds.
    """

    roots: tuple[str, ...]
    record: str = ""
    fault: Fault | None = None
    counter: str = ""

    def environment(self) -> dict[str, str]:
        """What a process needs to be started with."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Plan | None:
        if VARIABLE not in os.environ:
            return None
        plain = json.loads(os.environ[VARIABLE])
        fault = plain.pop("fault")
        plain["roots"] = tuple(plain["roots"])
        if fault:
            fault["kinds"] = tuple(fault["kinds"])
        return cls(**plain, fault=Fault(**fault) if fault else None)


class WatchedDisk:
    """The layer in one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # A sink in memory in place of the file, for tests in one process.
        self.sink: Callable[[Operation], object] | None = None
        self.failed: list[str] = []
        # Whether a sync is done: on a file system in memory it has no effect.
        self.syncs = True
        # After how many operations the machine stops; every thread then ends at its next one.
        self.life: int | None = None
        self._handles: dict[int, tuple[str, str, bool, tuple[int, int] | None]] = {}
        self._serial = 0
        self._count = 0
        self._lock = threading.RLock()
        self._log = None

    def install(self) -> None:
        for name, replacement in (
            *(("open", self._open), ("write", self._write), ("fsync", self._sync)),
            *(("close", self._close), ("ftruncate", self._truncate)),
            *(("replace", self._rename("replace")), ("rename", self._rename("rename"))),
            *(("unlink", self._remove("unlink")), ("remove", self._remove("remove"))),
            *(("mkdir", self._mkdir), ("rmdir", self._rmdir)),
        ):
            setattr(os, name, replacement)

    def uninstall(self) -> None:
        for name, real in REAL.items():
            setattr(os, name, real)

    def mark(self, name: str, value: Any) -> None:
        """Note something between the operations."""
        with self._operation("mark", "") as note:
            note("mark", name, value)

    # Each does what the real one does, and notes it when it is done.

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
        inside = self._inside(path, dir_fd)
        if inside is None or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            descriptor = REAL["open"](path, flags, mode, dir_fd=dir_fd)
            if inside is not None:
                self._opened(descriptor, inside, by_path=True)
            return int(descriptor)
        with self._operation("open", inside) as note:
            there = os.path.lexists(_full(path, dir_fd))
            descriptor = REAL["open"](path, flags, mode, dir_fd=dir_fd)
            handle = self._opened(descriptor, inside, by_path=False)
            note("open", handle, inside, not there, bool(there and flags & os.O_TRUNC))
        return int(descriptor)

    def _opened(self, descriptor: int, inside: str, *, by_path: bool) -> str:
        self._serial += 1
        handle, status = f"{os.getpid()}.{id(self)}.{self._serial}", os.fstat(descriptor)
        same = status.st_dev, status.st_ino
        self._handles[descriptor] = (handle, inside, by_path, same)
        return handle

    def _known(self, descriptor: int) -> tuple[str, str, bool] | None:
        """Return handle, path and whether it is only read; None if it is of something else."""
        handle, inside, by_path, same = self._handles.get(descriptor, ("", "", False, None))
        if same is None:
            return None
        status = os.fstat(descriptor)
        # Others close descriptors without `os.close`, which are then used again.
        return (handle, inside, by_path) if same == (status.st_dev, status.st_ino) else None

    def _write(self, descriptor: int, content: Any) -> int:
        known = self._known(descriptor)
        if known is None:
            return int(REAL["write"](descriptor, content))
        handle, path, _ = known
        with self._operation("write", path) as note:
            offset = REAL["lseek"](descriptor, 0, os.SEEK_CUR)
            written = REAL["write"](descriptor, content)
            note("write", handle, offset, bytes(memoryview(content)[:written]))
        return int(written)

    def _sync(self, descriptor: int) -> None:
        known = self._known(descriptor)
        if known is None:
            REAL["fsync"](descriptor)
            return
        handle, path, by_path = known
        with self._operation("sync", path) as note:
            if self.syncs:
                REAL["fsync"](descriptor)
            note(*(("sync path", path) if by_path else ("sync", handle)))

    def _truncate(self, descriptor: int, length: int) -> None:
        known = self._known(descriptor)
        if known is None:
            REAL["ftruncate"](descriptor, length)
            return
        handle, path, _ = known
        with self._operation("write", path) as note:
            REAL["ftruncate"](descriptor, length)
            note("truncate", handle, length)

    def _close(self, descriptor: int) -> None:
        self._handles.pop(descriptor, None)
        REAL["close"](descriptor)

    def _rename(self, name: str) -> Callable[..., None]:
        def rename(
            source: Any, target: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None
        ) -> None:
            inside = self._inside(source, src_dir_fd), self._inside(target, dst_dir_fd)
            if None in inside:
                REAL[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
                return
            with self._operation("rename", str(inside[1])) as note:
                REAL[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
                note("rename", *inside)

        return rename

    def _remove(self, name: str) -> Callable[..., None]:
        def remove(path: Any, *, dir_fd: Any = None) -> None:
            inside = self._inside(path, dir_fd)
            if inside is None:
                REAL[name](path, dir_fd=dir_fd)
                return
            with self._operation("remove", inside) as note:
                REAL[name](path, dir_fd=dir_fd)
                note("remove", inside)

        return remove

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: Any = None) -> None:
        inside = self._inside(path, dir_fd)
        if inside is None:
            REAL["mkdir"](path, mode, dir_fd=dir_fd)
            return
        with self._operation("folder", inside) as note:
            REAL["mkdir"](path, mode, dir_fd=dir_fd)
            note("folder", inside)

    def _rmdir(self, path: Any, *, dir_fd: Any = None) -> None:
        inside = self._inside(path, dir_fd)
        if inside is None:
            REAL["rmdir"](path, dir_fd=dir_fd)
            return
        with self._operation("remove", inside) as note:
            REAL["rmdir"](path, dir_fd=dir_fd)
            note("remove folder", inside)

    # What is common to them.

    @contextmanager
    def _operation(self, kind: str, path: str) -> Iterator[Callable[..., None]]:
        """Let it fail, or note it, in one order over all processes."""
        self._fail(kind, path)
        with self._lock:
            if self.life is not None:
                if self.life <= 0:
                    raise SystemExit
                self.life -= kind != "mark"
            if self.plan.record and self._log is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._log = REAL["open"](self.plan.record, flags, 0o666)
            if self._log is not None:
                fcntl.flock(self._log, fcntl.LOCK_EX)
            try:
                yield self._note
            finally:
                if self._log is not None:
                    fcntl.flock(self._log, fcntl.LOCK_UN)

    def _note(self, *operation: Any) -> None:
        if self.sink is not None:
            self.sink(operation)
        if self._log is not None:
            REAL["write"](self._log, pickle.dumps(operation))

    def _fail(self, kind: str, path: str) -> None:
        fault = self.plan.fault
        if fault is None or kind == "mark":
            return
        if fault.delay_s:
            time.sleep(random.uniform(0, 2 * fault.delay_s))
        if not fault.errno or kind not in fault.kinds:
            return
        count = self._counted()
        # A full disk can still remove and rename; nothing works on one that is read-only.
        full = fault.errno in (errno.ENOSPC, errno.EDQUOT) and kind in ("remove", "rename")
        if count == fault.at or (fault.lasting and count > fault.at and not full):
            self.failed.append(f"{kind} {path}")
            raise OSError(fault.errno, os.strerror(fault.errno), path)

    def _counted(self) -> int:
        """How many operations there were before, of all processes."""
        if not self.plan.counter:
            self._count += 1
            return self._count - 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        counter = REAL["open"](self.plan.counter, flags, 0o666)
        try:
            fcntl.flock(counter, fcntl.LOCK_EX)
            count = REAL["lseek"](counter, 0, os.SEEK_END)
            REAL["write"](counter, b".")
        finally:
            REAL["close"](counter)
        return int(count)

    def _inside(self, path: Any, dir_fd: Any) -> str | None:
        """Return the path relative to its root's parent; None if it is in none."""
        if isinstance(path, int):
            return None
        full = _full(path, dir_fd)
        for root in self.plan.roots:
            if full == root or full.startswith(root + "/"):
                return full[root.rindex("/") + 1 :]
        return None


def _full(path: Any, dir_fd: int | None) -> str:
    full = os.path.abspath(os.fsdecode(path))
    if dir_fd is not None and not os.path.isabs(os.fsdecode(path)):
        full = f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{os.fsdecode(path)}"
    return full


def read_record(file: Path) -> list[Operation]:
    """Read what was recorded."""
    operations = []
    with file.open("rb") as stream:
        while True:
            try:
                operations.append(pickle.load(stream))
            except EOFError:
                return operations


@contextmanager
def watched(
    plan: Plan, sink: Callable[[Operation], object] | None = None
) -> Iterator[WatchedDisk]:
    """Install the layer in this process for a while."""
    disk = WatchedDisk(plan)
    disk.sink = sink
    disk.install()
    try:
        yield disk
    finally:
        disk.uninstall()
