"""What every test gets: a cache of its own, so that no test finds what another one made."""

import os
from pathlib import Path

import pytest

# Before torch is imported: tiny networks on two busy cores wait for each other's threads
# longer than they work, twenty times longer and more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the user's cache; created by whoever writes to it."""
    folder = tmp_path / "kdsearch-cache"
    monkeypatch.setenv("KDSEARCH_CACHE", str(folder))
    return folder
