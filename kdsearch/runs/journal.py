"""Optuna's journal for one writer: what a kill, a full disk or a torn line does to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


def journal_storage(path: Path) -> JournalStorage:
    """The storage in the journal ``path``, which begins to exist when it is written to."""
    return JournalStorage(_Journal(path))


class _Journal(JournalFileBackend):
    """Optuna's journal, for one writer: no lock file that a killed driver could leave behind,
    and no half-written line after a failed append (a full disk)."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock(str(path)))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = self._path.stat().st_size
        try:
            super().append_logs(logs)
        except OSError:
            os.truncate(self._path, size)
            raise


class _NoLock(JournalFileOpenLock):
    """The run folder's own lock already keeps a second driver away."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def mend(path: Path) -> None:
    """Cut a journal back to its last whole line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    while whole and not _is_json(content[content.rfind(b"\n", 0, whole - 1) + 1 : whole]):
        whole = content.rfind(b"\n", 0, whole - 1) + 1
    if whole < len(content):
        os.truncate(path, whole)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
