"""Temporary folder of a search; it is removed even after a kill."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdsearch.runs.folder import RunFolder

# Short: Ray's sockets need a short path.
PREFIX = "kds-"
RUN, LOCK = "run", "driver.lock"


@contextmanager
def temporary_folder(folder: RunFolder, parent: Path) -> Iterator[Path]:
    """Create a folder of mode 0700; it is removed at the end.

    The run remembers it, so that the next driver can remove it if this one is killed.

    Args:
        parent: Where it is created.
    """
    # Ray opens its own folder to everybody; this one around it stays closed.
    around = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    with FileLock(around / LOCK):
        (around / RUN).write_text(folder.identity())
        folder.remember_temporary(str(around))
        inside = around / "r"
        inside.mkdir()
        try:
            yield inside
        finally:
            shutil.rmtree(around, ignore_errors=True)
            folder.forget_temporary()


def remove_abandoned(folder: RunFolder) -> None:
    """Remove the temporary folder of this run's last driver, if that driver is dead.

    The path comes from a file of the run folder, which may be a copy, or a stranger's: nothing
    is removed but a folder of this run whose lock no living process holds.
    """
    around = Path(folder.remembered_temporary())
    if not re.fullmatch(PREFIX + r"\w{8}", around.name) or around.is_symlink():
        return
    try:
        if (around / RUN).read_text() != folder.identity():
            return
        with FileLock(around / LOCK).acquire(timeout=0):
            shutil.rmtree(around, ignore_errors=True)
    except (OSError, UnicodeDecodeError, Timeout):
        return
    folder.forget_temporary()
