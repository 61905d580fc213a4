"""The report of a running search: ``report.html`` is written again and again by a thread.

The thread does not delay the search, and its errors do not end it: they are logged, and the
next page is tried. It writes for at most `SHARE` of the time since it began, the first page
apart: the longer a report takes, the less often it is written.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Sequence
from datetime import datetime

from kdsearch.analysis.run import open_run
from kdsearch.files.atomic import write_text
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
# A page that is older belongs to a search that was killed.
LONGEST_S = 300.0
SHARE = 0.01
_NOTE = re.compile(r'<p id="live".*?</p>')


class LiveReport:
    """Writes the report from the first finished trial to `close`; an observer of the ledger."""

    def __init__(self, folder: RunFolder, earlier: Sequence[TrialRecord] = ()) -> None:
        """Start the thread, which waits for a finished trial.

        Args:
            earlier: Trials of earlier drivers.
        """
        self._folder = folder
        self._news, self._closed = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._begun = any(record.finished for record in earlier)
        self.written = 0
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="kdsearch-report", daemon=True)
        self._thread.start()
        if self._begun:
            self._news.set()

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """A trial was validated: see `Observer`."""
        if self._begun:
            self._news.set()

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended."""
        self._begun = True
        self._news.set()

    def confirmed(self) -> None:
        """A network was trained again."""
        self._news.set()

    def close(self) -> None:
        """End the thread; the page no longer says that the search runs."""
        self._closed.set()
        self._news.set()
        with self._writing:
            if not self.written:
                return
            try:
                page = self._folder.report_file.read_text(encoding="utf-8")
                stopped = '<p id="stopped">The search had not ended when this was written.</p>'
                write_text(self._folder.report_file, _NOTE.sub(stopped, page, count=1))
            except OSError as error:
                logger.warning("report: %s", error)
        logger.info("report: written %d times, in %.2f s", self.written, self.seconds)

    def _run(self) -> None:
        wait_s, begun = INTERVAL_S, time.monotonic()
        while not self._closed.is_set():
            self._news.wait(LONGEST_S if self._begun else None)
            self._news.clear()
            # Wall time: pages of a run in a bucket wait for many requests.
            start = time.monotonic()
            try:
                self._write(wait_s)
            except Exception:
                # Any exception would end this thread, and with it all later pages: a file that
                # is read while it is replaced, a full disk, a fault of a chart.
                logger.warning("report: not written", exc_info=True)
            now = time.monotonic()
            self.seconds += now - start
            # The next page will take as long as this one.
            allowed_s = (self.seconds + now - start) / SHARE
            wait_s = max(INTERVAL_S, begun + allowed_s - now)
            self._closed.wait(wait_s)

    def _write(self, wait_s: float) -> None:
        if self._closed.is_set():
            return
        # Not at the start: the libraries that draw take half a second, before any training.
        from kdsearch.analysis.report import html  # noqa: PLC0415
        from kdsearch.analysis.report.html import Live  # noqa: PLC0415

        now = time.time()
        live = Live(
            written=datetime.fromtimestamp(now).strftime("%H:%M:%S"),
            overdue_ms=round(1000 * (now + 2 * (wait_s + LONGEST_S))),
            reload_s=math.ceil(wait_s),
        )
        page = html(open_run(self._folder.path), live)
        with self._writing:
            # The last page of the search is not overwritten by an earlier one.
            if not self._closed.is_set():
                self._folder.check_ours()
                write_text(self._folder.report_file, page)
                self.written += 1
