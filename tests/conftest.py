"""What every test gets: a cache of its own, and the servers that some of them talk to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import Postgres, postgres_server, s3_server

# Before torch is imported: tiny networks on two busy cores wait for each other's threads
# longer than they work, twenty times longer and more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the user's cache; created by whoever writes to it."""
    folder = tmp_path / "kdsearch-cache"
    monkeypatch.setenv("KDSEARCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; what is in it stays from test to test."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """Where a running S3 server and its bucket ``bucket`` are found."""
    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, set in this process."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return s3_environment
