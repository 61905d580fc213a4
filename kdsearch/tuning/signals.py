"""SIGINT and SIGTERM during a search: one line, the usual status, and never a long wait."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kdsearch.errors import Interrupted

CAUGHT = (signal.SIGINT, signal.SIGTERM)
# How long a search may take to stop Ray and to remove its temporary files.
GRACE_S = 15.0
STOPPED = "{}: stopped; finished epochs are saved, rerun with --resume"


class Signals:
    """SIGINT and SIGTERM: the first ends the search in order, a second one at once."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`."""
        self._seen: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Turn the first signal into `Interrupted`, wherever it comes.

        Raised in the middle of Ray's compiled code it arrives as another exception, or not
        at all; hence the translation here and `check` for loops around Ray. Where compiled
        code does not return, a watching thread ends the process after `GRACE_S`. Only a main
        thread can catch signals; a search in another one leaves them to its caller.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._handle) for s in CAUGHT}
        try:
            with _watched():
                yield
        except Exception:
            self.check()
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._seen is not None:
            raise Interrupted(self._seen)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._seen is not None and not _interactive():
            _leave(signum)
        self._seen = signum
        raise Interrupted(signum)


@contextmanager
def _watched() -> Iterator[None]:
    """End the process if it does not react to a signal: Python writes each to a pipe at once,
    but runs handlers only after compiled code has returned."""
    if _interactive():
        # A notebook or a Python shell, which may hold other results.
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    done = threading.Event()

    def watch() -> None:
        while signals := os.read(reading, 1):
            if signals[0] in CAUGHT and not done.wait(GRACE_S):
                _leave(signals[0])

    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="kdsearch-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)


def _interactive() -> bool:
    return hasattr(sys, "ps1")


def _leave(signum: int) -> None:
    line = STOPPED.format(signal.Signals(signum).name)
    os.write(2, f"{line}\n".encode())
    os._exit(128 + signum)
