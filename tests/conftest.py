"""What every test gets: a cache of its own, so that no test finds what another one made."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the user's cache; created by whoever writes to it."""
    folder = tmp_path / "kdsearch-cache"
    monkeypatch.setenv("KDSEARCH_CACHE", str(folder))
    return folder
