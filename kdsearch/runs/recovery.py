"""A lost study, put together again from what the trials' own folders hold.

The study is the one truth; but a journal can vanish, be emptied, or lose its end to a broken
disk. Every trial's folder has the driver's note of it and its epochs, and these are enough.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import cast

from kdsearch.runs.database import Database
from kdsearch.errors import RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.config.dimensions import Dimension
from kdsearch.runs.study import Fate, TrialRecord, read_records, write_study

logger = logging.getLogger(__name__)

READERS = 16


def study_records(folder: RunFolder) -> list[TrialRecord]:
    """Every trial of a run, for readers: whatever state its study is in.

    From the journal, or from the trials' folders: where it is lost or damaged; where a bucket
    has a mere copy; where the study lies in a database, since nobody's password goes to a
    server that a run folder names.

    Raises:
        RunError: The journal is damaged and there are no folders.
    """
    journal = folder.own_journal()
    if journal is None:
        return records_from_folders(folder)
    try:
        return read_records(journal)
    except RunError:
        records = records_from_folders(folder)
        if journal.exists() and not records:
            raise
        return records


def recover(folder: RunFolder, place: Path | Database, space: Mapping[str, Dimension]) -> str:
    """Mend a run's study where it lies behind its trials' folders.

    An old journal is kept beside the new one, with ``.damaged`` behind its name.

    Args:
        place: Where the study lies.

    Returns:
        What was done, for people; empty where nothing had to be.
    """
    notes = records_from_folders(folder)
    try:
        known = [] if isinstance(place, Path) and not place.exists() else read_records(place)
    except RunError as error:
        logger.warning("%s", error)
        known = []
        if not notes:
            raise
    if not _behind(known, notes):
        return ""
    write_study(place, _merged(known, notes), space)
    return f"{place}: had lost trials; rebuilt from the folders of {len(notes)} trials"


def records_from_folders(folder: RunFolder) -> list[TrialRecord]:
    """Every trial as its own folder tells it, without gaps.

    A number whose folder is missing or unreadable between others is a failed trial: the
    search must not hand out its number again.
    """
    numbers = folder.trial_numbers()
    # Several at a time: a bucket takes its time over each.
    with ThreadPoolExecutor(READERS) as readers:
        records = readers.map(lambda number: _record(folder, number), numbers)
        found = dict(zip(numbers, records, strict=True))
    known = {number: record for number, record in found.items() if record is not None}
    lost = "lost together with the study"
    return [
        known.get(number) or TrialRecord(number, "failed", {}, reason=lost)
        for number in range(max(known, default=-1) + 1)
    ]


def _record(folder: RunFolder, number: int) -> TrialRecord | None:
    trial = folder.trial(number)
    note = trial.note()
    if note is None:
        return None
    history = trial.history()
    best_so_far = accumulate((report.val_auc for report in history), max)
    return TrialRecord(
        number=number,
        state=cast("Fate", note.state),
        params=note.params,
        curve=dict(enumerate(best_so_far, start=1)),
        seconds=sum(report.seconds for report in history),
        reason=note.reason,
    )


def _behind(known: Sequence[TrialRecord], notes: Sequence[TrialRecord]) -> bool:
    if len(notes) > len(known):
        return True
    return any(
        note.finished and not record.finished
        for record, note in zip(known, notes, strict=False)
    )


def _merged(known: Sequence[TrialRecord], notes: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The study's own record of a trial, unless the trial's folder knows its fate better."""
    records = {record.number: record for record in notes}
    records |= {record.number: record for record in known if record.finished}
    records |= {record.number: record for record in known if record.number not in records}
    return [records[number] for number in sorted(records)]
