"""``run_search.py``, with notes of what the user has been told in the record of the disk.

("mark", "driver", None)              a driver starts
("mark", "ended", record)             a trial's end was shown; the record as a dict
("mark", "reported", (number, reports)) so many reports of a trial were shown
("mark", "teacher", fingerprint)      the teacher's line was shown
("mark", "complete", number of trials) the leaderboard was shown
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from sitecustomize import DISK

from kdsearch.cli.main import search_command
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.ledger import Ledger


def note_after(owner: type, name: str, note: Any) -> None:
    """Call `note` with the method's arguments after each call."""
    method = getattr(owner, name)

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        note(self, *args)
        return result

    setattr(owner, name, noted)


def ended(ledger: Ledger, number: int, *_: Any) -> None:
    DISK.mark("ended", asdict(ledger.folder.trial(number).record()))


def reported(ledger: Ledger, number: int, _: dict[str, Any]) -> None:
    DISK.mark("reported", (number, len(ledger._running[number].curve)))


def kept_teacher(_: RunFolder, __: Any, description: dict[str, Any]) -> None:
    DISK.mark("teacher", description["fingerprint"])


if __name__ == "__main__":
    note_after(Ledger, "finish", ended)
    note_after(Ledger, "report", reported)
    note_after(RunFolder, "write_teacher", kept_teacher)
    DISK.mark("driver", None)
    status = search_command()
    if status == 0:
        DISK.mark("complete", None)
    sys.exit(status)
