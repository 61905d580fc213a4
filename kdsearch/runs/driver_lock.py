"""The lock of a run, which holds between machines, and the copy of a log into a bucket.

A file lock keeps out drivers of the same machine. It says nothing to other machines where the
run is in a bucket, or in a shared folder that does not support file locks. Hence the claims:
each driver has one file in ``.driver/``, which it renews.

A driver that starts writes its claim, then lists all claims. Storage that shows a new file in
every later listing (local disks, NFS, S3, GCS) needs no conditional writes for this: of two
drivers that start at once, at least one sees the other. A driver that sees no other claim has
the run. Of several new claims, the one with the smallest name waits and the others withdraw. A
claim that is not renewed for `LEASE_S` belongs to a dead driver. No clocks are compared.

A driver that gets the run writes its own token into ``.generation``. What writes for an earlier
driver, and that driver itself when it wakes up, sees there that the run is no longer its own.

Object storage cannot append to a log. The log is on the driver's machine and is copied into the
bucket periodically.
"""

from __future__ import annotations

import errno
import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdsearch.errors import RunError
from kdsearch.files.atomic import write_json, write_text
from kdsearch.files.bucket import BucketPath, Place
from kdsearch.texts import printable

logger = logging.getLogger(__name__)

# How often a claim is renewed, and how often others are looked at.
BEAT_S, POLL_S = 5.0, 0.5
# A claim that is not renewed for so long belongs to a dead driver.
LEASE_S = 20.0
# How often the log is copied.
COPY_S = 15.0

Claim = dict[str, Any]


class DriverLock:
    """The claim of one driver on a run."""

    def __init__(self, path: Place, local: Path, say: Callable[[str], None]) -> None:
        """Nothing is read or written.

        Args:
            path: The run folder.
            local: The driver's own folder on this machine; its file lock is held.
            say: Called with a line if another driver may be dead, and is waited for.
        """
        self.token = uuid.uuid4().hex
        self._path = path
        self._claims = path / ".driver"
        self._generation_file = path / ".generation"
        self._say = say
        self._home = kernel() if isinstance(path, Path) else _name_of(local)
        self._claim: Claim = {
            "home": self._home,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "user": _user(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "beat": 0,
        }
        self._renewed = _clock()
        self._lost = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the run, renew the claim, and withdraw it at the end.

        Raises:
            RunError: Another driver has the run.
            OSError: The storage cannot be reached.
        """
        try:
            self._take()
            # Nothing else runs in this thread: a slow copy would let the lease end.
            with _repeated(BEAT_S, self._renew_ours, "kdsearch-lock"):
                yield
        finally:
            try:
                self._remove(self.token)
            except OSError as error:
                logger.warning("%s: the claim was not withdrawn: %s", self._path, error)

    def check(self) -> None:
        """Raise an OSError if another driver has the run now.

        A driver that could not renew its claim in time, because it was asleep or cut off, looks
        before it writes anything.
        """
        if not self._lost and _clock() - self._renewed > LEASE_S / 2:
            self._renew_ours()
        if self._lost:
            text = f"another search has taken over this run{_in_brackets(self._others())}"
            raise OSError(errno.EBUSY, text, str(self._path))

    def _take(self) -> None:
        while True:
            written = _clock()
            self._write()
            others = self._others()
            for name in [n for n, claim in others.items() if claim["home"] == self._home]:
                # This machine's file lock is ours: that driver is dead.
                self._remove(name)
                del others[name]
            if others:
                start_as_well = all(claim["beat"] == 0 for claim in others.values())
                if not (start_as_well and self.token < min(others)):
                    self._remove(self.token)
                self._await_end_of(others)
            elif _clock() - written < LEASE_S / 2:
                # Otherwise asleep meanwhile, so that this claim may count as a dead driver's.
                break
        write_text(self._generation_file, self.token)
        self._renew()

    def _await_end_of(self, others: dict[str, Claim]) -> None:
        """Wait until these claims are withdrawn, or remove them if they are not renewed.

        Raises:
            RunError: One of them is renewed: its driver has the run.
        """
        start, said = _clock(), False
        while (waited := _clock() - start) < LEASE_S:
            time.sleep(POLL_S)
            left = {name: claim for name, claim in self._others().items() if name in others}
            if not left:
                return
            if renewed := {n: claim for n, claim in left.items() if claim != others[n]}:
                raise refused(self._path, renewed)
            if waited > BEAT_S and not said:
                said = True
                self._say(
                    f"{self._path}: another search has it{_in_brackets(left)}; it is taken "
                    f"over if that search gives no sign of life for {LEASE_S:.0f} s"
                )
        for name in others:
            self._remove(name)

    def _renew_ours(self) -> None:
        if read_generation(self._generation_file) == self.token:
            self._renew()
        else:
            self._lost = True

    def _renew(self) -> None:
        self._claim["beat"] += 1
        self._write()
        self._renewed = _clock()

    def _write(self) -> None:
        write_json(self._claims / self.token, self._claim)

    def _remove(self, name: str) -> None:
        (self._claims / name).unlink(missing_ok=True)

    def _others(self) -> dict[str, Claim]:
        claims = claims_on(self._path)
        claims.pop(self.token, None)
        return claims


def claims_on(path: Place) -> dict[str, Claim]:
    """Read all claims on a run, by their names."""
    folder = path / ".driver"
    claims: dict[str, Claim] = {}
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            # The name of a file that is being written has dots.
            if file.name.isalnum():
                claims[file.name] = _read(file)
    return {name: claim for name, claim in claims.items() if claim}


def _read(file: Place, attempts: int = 3) -> Claim:
    """Read a claim; empty if it was withdrawn meanwhile."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    except OSError:
        # Some object stores break off a read while the object is renewed.
        if attempts == 1:
            raise
        return _read(file, attempts - 1)
    known = content if isinstance(content, dict) else {}
    return {"home": "", "beat": 0, **known}


def refused(path: Place, claims: dict[str, Claim]) -> RunError:
    """Return the error that another driver has the run."""
    return RunError(
        f"{path}: another search is running in this folder{_in_brackets(claims)}; wait for it, "
        "or choose another --name"
    )


def _in_brackets(claims: dict[str, Claim]) -> str:
    """Return who has a run, on which machine, since when; empty where that is unknown."""
    for claim in claims.values():
        known = {key: claim.get(key, "?") for key in ("process", "user", "host", "since")}
        return printable(
            " (process {process} of {user} on {host}, since {since})".format(**known)
        )
    return ""


def read_generation(file: Place) -> str:
    """Read the token of the driver that has the run; empty before the first."""
    try:
        return file.read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def kernel() -> str:
    """Return a name for the running kernel, between whose processes file locks hold."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _name_of(local: Path) -> str:
    """Return a name for the local folder, which ends with the folder."""
    file = local / ".home"
    with suppress(FileNotFoundError):
        return file.read_text()
    write_text(file, uuid.uuid4().hex)
    return file.read_text()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # In a container a user may have a number alone.
        return f"user {os.getuid()}"


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
