"""The lock of a run in a bucket, and the copy of its log.

Object storage cannot append to a log. The log is on the driver's machine and is copied into the
bucket periodically. Everything else is written directly into the bucket.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdsearch.errors import RunError
from kdsearch.files.atomic import write_text
from kdsearch.files.bucket import BucketPath

logger = logging.getLogger(__name__)

# How often the lock is renewed.
BEAT_S = 5.0
# A lock that is not renewed for so long belongs to a dead driver.
LEASE_S = 20.0
# Of two drivers that take the lock at once, the later one's name is in it after this.
SETTLE_S = 1.0
# How often the log is copied.
COPY_S = 15.0


class DriverLock:
    """The driver's lock on a run in a bucket.

    The lock is an object that its owner renews. No clocks are compared: a newcomer watches
    whether it changes. It refuses a second driver while the first one runs. It cannot refuse
    one that comes while the first is cut off from the bucket for longer than the lease; what
    the first one's workers still write is then refused by the run's generation.
    """

    def __init__(self, path: BucketPath, local: Path) -> None:
        """Nothing is read or written.

        Args:
            path: The run folder.
            local: The driver's own folder on this machine.
        """
        self._lock = path / ".driver"
        self._path = path
        self._local = local
        self._owner = uuid.uuid4().hex
        self._beat = 0
        self._renewed = _clock()
        self._lost = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the lock, renew it, and release it at the end if it is still ours.

        Raises:
            RunError: Another driver has it.
            OSError: The bucket cannot be reached.
        """
        self._take()
        try:
            # Nothing else runs in this thread: a slow copy would let the lease end.
            with _repeated(BEAT_S, self._renew_ours, "kdsearch-lock"):
                yield
        finally:
            try:
                if self._is_ours(self._read()):
                    self._lock.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s: the lock was not released: %s", self._path, error)

    def check(self) -> None:
        """Raise an OSError if another driver has taken the run over.

        A driver that could not renew the lock in time, because it was asleep or cut off, looks
        before it writes anything.
        """
        if not self._lost and _clock() - self._renewed > LEASE_S:
            self._renew_ours()
        if self._lost:
            text = "another search has taken over this run"
            raise OSError(errno.EBUSY, text, str(self._path))

    def _take(self) -> None:
        content = self._read()
        # A lock taken from this folder, whose own lock is ours now, belongs to a dead driver.
        if content and content.get("home") != self._home():
            self._watch(content)
        self._renew()
        time.sleep(SETTLE_S)
        self._refuse_if_another(self._read())

    def _watch(self, content: dict[str, Any]) -> None:
        """Wait until a lock that is not renewed can be taken for a dead driver's."""
        logger.info("%s: is its driver on %s alive?", self._path, content.get("host"))
        deadline = time.monotonic() + LEASE_S
        while time.monotonic() < deadline:
            time.sleep(BEAT_S / 5)
            now = self._read()
            if now is None:
                return
            if now != content:
                self._refuse_if_another(now)

    def _refuse_if_another(self, content: dict[str, Any] | None) -> None:
        if not self._is_ours(content):
            host = "" if content is None else f" from {content.get('host')}"
            raise RunError(
                f"{self._path}: another search is running in this folder{host}; wait for it, "
                "or choose another --name"
            )

    def _renew_ours(self) -> None:
        if self._is_ours(self._read()):
            self._renew()
        else:
            self._lost = True

    def _renew(self) -> None:
        self._beat += 1
        content = {
            "owner": self._owner,
            "home": self._home(),
            "host": socket.gethostname(),
            "beat": self._beat,
        }
        self._lock.write_bytes(json.dumps(content).encode())
        self._renewed = _clock()

    def _is_ours(self, content: dict[str, Any] | None) -> bool:
        return content is not None and content.get("owner") == self._owner

    def _read(self) -> dict[str, Any] | None:
        with suppress(FileNotFoundError, ValueError):
            content = json.loads(self._lock.read_bytes())
            return content if isinstance(content, dict) else {}
        return None

    def _home(self) -> str:
        """Return a name for the local folder, which goes when the folder goes."""
        file = self._local / ".home"
        with suppress(FileNotFoundError):
            return file.read_text()
        write_text(file, uuid.uuid4().hex)
        return file.read_text()


def _clock() -> float:
    """Return the seconds since boot, with the time that the machine was asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def log_copied(log: Path, target: BucketPath, lock: DriverLock) -> Iterator[None]:
    """Continue the log that is in the bucket, and copy it there while the run is ours."""
    with suppress(FileNotFoundError):
        there = target.read_bytes()
        if not log.exists() or not log.read_bytes().startswith(there):
            log.write_bytes(there)
    copied = 0

    def copy() -> None:
        nonlocal copied
        content = log.read_bytes() if log.exists() else b""
        if len(content) != copied:
            lock.check()
            target.write_bytes(content)
            copied = len(content)

    try:
        with _repeated(COPY_S, copy, "kdsearch-log"):
            yield
    finally:
        try:
            copy()
        except OSError as error:
            logger.warning("%s: the log was not copied: %s", target, error)


@contextmanager
def _repeated(seconds: float, action: Callable[[], None], name: str) -> Iterator[None]:
    """Repeat an action in a thread until the end; one that fails is tried again."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            try:
                action()
            except OSError as error:
                logger.warning("%s waits: %s", name, error)

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
