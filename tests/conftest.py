"""What every test gets: a cache of its own, and the servers that some of them talk to."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from services import Postgres, postgres_server, s3_server

# Before torch is imported: tiny networks on two busy cores wait for each other's threads
# longer than they work, twenty times longer and more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A busy machine takes long to start Ray, again and again; what never ends is a fault."""
    for item in items:
        if not item.path.is_relative_to(Path(__file__).parent / "unit"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is used as the user's cache; not created yet."""
    folder = tmp_path / "kdsearch-cache"
    monkeypatch.setenv("KDSEARCH_CACHE", str(folder))
    return folder


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture
def as_another_user() -> Callable[[Path], AbstractContextManager[None]]:
    """Run as another user of a shared machine, with a folder that is read-only."""

    @contextmanager
    def another(folder: Path) -> Iterator[None]:
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            for path in folders:
                path.chmod(0o755)

    return another


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


@pytest.fixture
def mitdb() -> Path:
    """Folder of the MIT-BIH records. Without it a test is skipped; in CI it fails."""
    folder = os.environ.get("KDSEARCH_MITDB")
    if not folder:
        assert not os.environ.get("CI"), "CI has to set KDSEARCH_MITDB to the MIT-BIH records"
        pytest.skip("KDSEARCH_MITDB does not name a folder with the MIT-BIH records")
    return Path(folder)


@pytest.fixture(scope="session")
def mitdb_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of all tests, also of those in other processes: the records are cut once."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mitbih-cache"
