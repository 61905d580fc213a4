"""What a run in a bucket needs beside its objects: a lock, and copies of what only grows.

A study's journal and the log grow by appending, which object storage cannot do. They lie on
the driver's machine and are copied into the bucket every few seconds. Everything else, the
trials' notes, epochs and checkpoints included, goes into the bucket at once; what a lost
machine's journal had not told yet, the next driver finds there.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdsearch.files.bucket import BucketPath
from kdsearch.errors import RunError
from kdsearch.files.atomic import write_text

logger = logging.getLogger(__name__)

# How often the lock is renewed and what has grown is copied.
BEAT_S = 5.0
# A lock that is not renewed for so long is a dead driver's.
LEASE_S = 20.0
# Of two drivers that take the lock at once, the later one's name stands after this.
SETTLE_S = 1.0


class BucketRun:
    """The driver's hold on a run in a bucket.

    The lock is an object that its owner renews; no clocks are compared, a newcomer watches
    whether it changes. It keeps out whoever comes while a driver runs. It cannot keep out one
    that comes while the first is cut off from the bucket for longer than the lease; what the
    first one's workers still write is then refused by the run's generation.
    """

    def __init__(self, path: BucketPath, local: Path, grown: Sequence[str]) -> None:
        """Nothing is read or written.

        Args:
            path: The run folder.
            local: The folder on this machine where the driver keeps what grows.
            grown: Names of these files, the same on both sides.
        """
        self._lock = path / ".driver"
        self._path = path
        self._local = local
        self._grown = grown
        self._copied: dict[str, int] = {}
        self._owner = uuid.uuid4().hex
        self._beat = 0
        self._stop = threading.Event()
        self.lost = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the run; fetch what grew elsewhere; keep both sides together until the end.

        Raises:
            RunError: Another driver has it.
            OSError: The bucket cannot be reached.
        """
        self._take()
        for name in self._grown:
            self._fetch(name)
        thread = threading.Thread(target=self._keep, name="kdsearch-bucket", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            if not self.lost:
                self._let_go()

    def check(self) -> None:
        """Make sure that no other driver has taken over.

        Raises:
            OSError: One has.
        """
        if self.lost:
            raise OSError(
                errno.EBUSY, "another search has taken over this run", str(self._path)
            )

    def _let_go(self) -> None:
        """Copy a last time; a bucket that is out of reach has ended the search already."""
        try:
            self._copy_grown()
            self._lock.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the last copy was not made: %s", error)

    def _take(self) -> None:
        found = self._read_lock()
        # One that was taken from this very folder, whose own lock is ours now, is dead.
        if found and found.get("home") != self._home():
            self._watch(found)
        self._renew()
        time.sleep(SETTLE_S)
        self._refuse_if(self._read_lock())

    def _watch(self, found: dict[str, Any]) -> None:
        """Wait until a lock that nobody renews can be taken for a dead driver's."""
        logger.info("%s: waiting whether its driver on %s lives", self._path, found["host"])
        deadline = time.monotonic() + LEASE_S
        while time.monotonic() < deadline:
            time.sleep(BEAT_S / 5)
            now = self._read_lock()
            if now is None:
                return
            if now != found:
                self._refuse_if(now)

    def _refuse_if(self, found: dict[str, Any] | None) -> None:
        if found is None or found.get("owner") != self._owner:
            host = "" if found is None else f" from {found.get('host')}"
            raise RunError(
                f"{self._path}: another search is running in this folder{host}; wait for it, "
                "or choose another --name"
            )

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                found = self._read_lock()
                if found is None or found.get("owner") != self._owner:
                    self.lost = True
                    return
                self._renew()
                self._copy_grown()
            except OSError as error:
                logger.warning("the copies wait: %s", error)

    def _renew(self) -> None:
        self._beat += 1
        note = {
            "owner": self._owner,
            "home": self._home(),
            "host": socket.gethostname(),
            "beat": self._beat,
        }
        self._lock.write_bytes(json.dumps(note).encode())

    def _read_lock(self) -> dict[str, Any] | None:
        with suppress(FileNotFoundError, ValueError):
            found = json.loads(self._lock.read_bytes())
            return found if isinstance(found, dict) else {}
        return None

    def _home(self) -> str:
        """A name for the local folder, which goes when the folder goes."""
        file = self._local / ".home"
        with suppress(FileNotFoundError):
            return file.read_text()
        write_text(file, uuid.uuid4().hex)
        return file.read_text()

    def _fetch(self, name: str) -> None:
        """Take the bucket's copy, unless this machine's file is the same and longer."""
        here, there = self._local / name, b""
        with suppress(FileNotFoundError):
            there = (self._path / name).read_bytes()
        # A line may have been copied, or cut off here, in its middle.
        whole = there[: there.rfind(b"\n") + 1]
        mine = here.read_bytes() if here.exists() else b""
        if not whole:
            here.unlink(missing_ok=True)
        elif not mine.startswith(whole):
            here.write_bytes(whole)

    def _copy_grown(self) -> None:
        for name in self._grown:
            file = self._local / name
            size = file.stat().st_size if file.exists() else 0
            if size and size != self._copied.get(name):
                with file.open("rb") as stream:
                    content = stream.read(size)
                (self._path / name).write_bytes(content)
                self._copied[name] = size
