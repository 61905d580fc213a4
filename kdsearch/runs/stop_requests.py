"""Requests of ``kdsearch stop``: empty files in a run folder that the driver looks for.

.stop/search   pause the search
.stop/<number> stop this trial
"""

from __future__ import annotations

import logging
import math
import time

from kdsearch.errors import RunError
from kdsearch.files.atomic import write_text
from kdsearch.runs.driver_lock import claims_on
from kdsearch.runs.folder import RunFolder

logger = logging.getLogger(__name__)

# How often a driver looks, at most: in a bucket each look is a request.
POLL_S = 1.0
SEARCH = "search"
PAUSED = "paused by 'kdsearch stop'"


class Paused(Exception):
    """The search is to be paused."""


class StopRequests:
    """Requests to pause a search, or to stop one of its trials."""

    def __init__(self, folder: RunFolder) -> None:
        """Nothing is read or written."""
        self._folder = folder
        self._path = folder.path / ".stop"
        self._names: set[str] = set()
        self._looked = -math.inf

    def pause_search(self) -> None:
        """Ask the driver to pause the search.

        Raises:
            RunError: No search is running.
        """
        if not claims_on(self._folder.path):
            raise RunError(f"{self._folder.path}: no search is running here")
        write_text(self._path / SEARCH, "")

    def stop_trial(self, number: int) -> None:
        """Ask the driver to stop a trial after its current epoch.

        Raises:
            RunError: There is no such trial, or it has ended.
        """
        numbers = list(self._folder.trial_files())
        if number not in numbers:
            known = f"trials {numbers[0]} to {numbers[-1]}" if numbers else "no trials yet"
            raise RunError(f"{self._folder.path}: no trial {number} (found: {known})")
        record = self._folder.trial(number).record()
        if record.finished:
            raise RunError(f"{self._folder.path}: trial {number} has ended: {record.state}")
        write_text(self._path / str(number), "")

    def forget_pause(self) -> None:
        """Remove a request to pause an earlier start of the search."""
        (self._path / SEARCH).unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `Paused` if the search is to be paused."""
        if self.search_paused():
            raise Paused(PAUSED)

    def search_paused(self) -> bool:
        """Return whether the search is to be paused."""
        return SEARCH in self._current()

    def trial_stopped(self, number: int) -> bool:
        """Return whether a trial is to be stopped."""
        return str(number) in self._current()

    def _current(self) -> set[str]:
        now = time.monotonic()
        if now - self._looked >= POLL_S:
            self._looked = now
            try:
                self._names = {file.name for file in self._path.iterdir()}
            except FileNotFoundError:
                self._names = set()
            except OSError as error:
                # A search does not end because a bucket does not answer once.
                logger.warning("%s: cannot be read: %s", self._path, error)
        return self._names
