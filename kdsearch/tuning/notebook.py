"""The trials of a running search as a table in a notebook, updated in place."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

from kdsearch.analysis.run import open_run
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState

INTERVAL_S = 1.0
# The most of the driver's time that reading and drawing may take.
SHARE = 0.02


class NotebookTable:
    """Shows what `Run` shows in a notebook; an observer of the ledger."""

    def __init__(self, folder: RunFolder, show: Callable[[str], None]) -> None:
        """Nothing is shown before the first epoch.

        Args:
            show: Puts HTML in the place of what was shown before.
        """
        self._folder = folder
        self._show = show
        self._next = 0.0

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """A trial was validated: see `Observer`."""
        self._update()

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended."""
        self._update()

    def close(self) -> None:
        """Show the last state."""
        self._next = 0.0
        self._update()

    def _update(self) -> None:
        start = time.monotonic()
        if start < self._next:
            return
        self._show(open_run(self._folder.path)._repr_html_())
        end = time.monotonic()
        self._next = end + max(INTERVAL_S, (end - start) / SHARE)


def notebook_table(folder: RunFolder) -> NotebookTable:
    """Return a table in the output of the cell that runs; a notebook has IPython."""
    ipython = importlib.import_module("IPython.display")
    handle = ipython.display(ipython.HTML(""), display_id=True)
    return NotebookTable(folder, lambda text: handle.update(ipython.HTML(text)))
