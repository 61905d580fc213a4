"""A workplace for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import SPACE, Workplace, kill_all


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """A workplace whose processes and temporary files are gone afterwards."""
    # Ray's sockets need a short path, which pytest's own folders do not have.
    temporary = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    workplace = Workplace(tmp_path, temporary)
    workplace.space.write_text(SPACE)
    yield workplace
    for process in workplace.started:
        if process.poll() is None:
            kill_all(process)
    shutil.rmtree(temporary, ignore_errors=True)
