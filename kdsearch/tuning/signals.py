"""Handle SIGINT and SIGTERM during a search: one line, the usual exit status, no long wait.

SIGTERM is what a machine sends that is about to be taken away, a while before SIGKILL. While
students or the teacher train, the running epochs get a part of this time to end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kdsearch.errors import ConfigError, Interrupted

CAUGHT = (signal.SIGINT, signal.SIGTERM)
# How long a search may take to stop Ray and to remove its temporary files.
GRACE_S = 15.0
# Seconds between SIGTERM and SIGKILL: as many as Kubernetes and most clouds allow.
GRACE_VARIABLE, USUAL_GRACE_S = "KDSEARCH_GRACE_S", 30.0
# Kept of them, so that the search has ended for certain.
SPARE_S = 2.0
STOPPED = "{}: stopped; finished epochs are saved, rerun with --resume"


class Signals:
    """SIGINT and SIGTERM: the first ends the search in order, a second one at once."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`.

        Raises:
            ConfigError: ``KDSEARCH_GRACE_S`` is not a number.
        """
        given = os.environ.get(GRACE_VARIABLE) or str(USUAL_GRACE_S)
        try:
            self._for_epochs_s = float(given) - GRACE_S - SPARE_S
        except ValueError:
            raise ConfigError(
                f"{GRACE_VARIABLE}: expected the seconds between SIGTERM and SIGKILL, but "
                f"found {given!r}"
            ) from None
        self._seen: int | None = None
        self._saving = self._polled = False
        self._over = False

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
            with _watched(self._wait_s):
                yield
        except Exception:
            self.check()
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def saving_epochs(self, *, polled: bool = False) -> Iterator[None]:
        """Give running epochs time to end after a SIGTERM: `leaving` is true then.

        The body calls `leave` when all are saved. After the time for it, `Interrupted` is
        raised wherever the body is.

        Args:
            polled: The body calls `check` several times a second, and `Interrupted` is raised
                only there. Tune takes what Ray's compiled code makes of it for an error and
                then waits ten seconds for its trials.
        """
        self._saving, self._polled = True, polled
        try:
            yield
        finally:
            self._saving = False
            if polled:
                self._polled = self._over = False
        self.check()

    @property
    def leaving(self) -> bool:
        """Whether SIGTERM has come, and running epochs have time to end."""
        return self._saving and self._seen is not None and not self._over

    def leave(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._seen is not None:
            raise Interrupted(self._seen)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come, unless running epochs have time to end."""
        if not self.leaving:
            self.leave()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold signals back while Ray starts: raised inside it, an exception is often lost.

        The processes that are started meanwhile inherit that both signals are blocked. A batch
        system that sends SIGTERM to all processes of a job then leaves Ray's to us.
        """
        main = threading.current_thread() is threading.main_thread()
        late: list[int] = []
        before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        handlers = {}
        if main:
            # Threads of other libraries, where signals are not blocked, take them as well.
            for signum in CAUGHT:
                handlers[signum] = signal.signal(signum, lambda s, frame: late.append(s))
        try:
            with _ended_if_slow(late):
                yield
        finally:
            # Ray's own handlers, in Python and below, are replaced.
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if late:
                signal.raise_signal(late[0])

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._over and not self._polled:
            self._over = False
            raise Interrupted(signum)
        again = self._seen is not None
        if again and not _interactive():
            _leave(signum)
        self._seen = signum
        wait_s = self._wait_s(signum)
        if wait_s > 0:
            threading.Thread(target=self._end_after, args=(wait_s,), daemon=True).start()
        elif self._polled and not again:
            self._over = True
        else:
            raise Interrupted(signum)

    def _wait_s(self, signum: int) -> float:
        """Return how long running epochs may take to end."""
        patient = self._saving and signum == signal.SIGTERM
        return max(0.0, self._for_epochs_s) if patient else 0.0

    def _end_after(self, seconds: float) -> None:
        time.sleep(seconds)
        if self._saving:
            self._over = True
            if not self._polled:
                # Interrupts what the main thread waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def _watched(wait_s: Callable[[int], float]) -> Iterator[None]:
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
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        while signals := os.read(reading, 1):
            if signals[0] in CAUGHT and not done.wait(wait_s(signals[0]) + GRACE_S):
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


@contextmanager
def _ended_if_slow(late: list[int]) -> Iterator[None]:
    """End the process if a signal waits for longer than `GRACE_S`."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            waiting = [*late, *(signal.sigpending() & {*CAUGHT})]
            if waiting and not done.wait(GRACE_S) and not _interactive():
                _leave(waiting[0])

    thread = threading.Thread(target=watch, name="kdsearch-signals-held-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _interactive() -> bool:
    return hasattr(sys, "ps1")


def _leave(signum: int) -> None:
    line = STOPPED.format(signal.Signals(signum).name)
    os.write(2, f"{line}\n".encode())
    os._exit(128 + signum)
