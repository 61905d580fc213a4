"""A study in a PostgreSQL database, and the lock that keeps a second driver away from it.

A journal is guarded by the run folder's lock, which holds on one machine. Drivers on several
machines can reach one database, so the lock lies there: an advisory lock of PostgreSQL, which
the server releases by itself when the connection of its holder ends, however that happens.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from kdsearch.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DRIVER = "postgresql+psycopg"
CONNECT_TIMEOUT_S = 10
# A killed driver's connection may be known to be gone only a moment after its death.
TAKEOVER_S = 5.0
# How long a running search waits for a database that is being restarted.
PATIENCE_S = 60.0
# A lost machine says no goodbye: both sides look after half a minute, three times.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


@dataclass(frozen=True)
class Database:
    """Where a study lies in a database.

    Attributes:
        url: ``postgresql://user:password@host:port/database``; what it leaves out, libpq
            takes from its own variables and files (``PGPASSWORD``, ``~/.pgpass``).
        study: The study's name, one for each run.
    """

    url: str = field(repr=False)
    study: str

    def __post_init__(self) -> None:
        """Refuse what is no database of ours, without repeating the password.

        Raises:
            ConfigError: The URL cannot be read or is not PostgreSQL's.
        """
        if self._parsed().drivername not in SCHEMES:
            raise ConfigError(
                f"--study: expected postgresql://user@host/database, but found "
                f"{self._parsed().drivername}://...; without --study a journal in the run "
                "folder keeps the study"
            )

    def __str__(self) -> str:
        return f"{self.public_url} (study {self.study})"

    @property
    def public_url(self) -> str:
        """The URL without its password."""
        # `URL.set` takes None for "as it is".
        bare = self._parsed()._replace(password=None)
        return bare.difference_update_query(["password"]).render_as_string()

    def storage(self) -> RDBStorage:
        """Optuna's storage; its tables are made where there are none.

        Raises:
            OSError: The database does not answer.
            ConfigError: The package that talks to it is missing.
        """
        with self.answers():
            return RDBStorage(
                self._driver_url().render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True, "connect_args": _connect_args()},
            )

    def exists(self) -> bool:
        """Whether the database has the study.

        Raises:
            OSError: The database does not answer.
        """
        with self.answers():
            return self.study in optuna.get_all_study_names(self.storage())

    def lock(self) -> DatabaseLock:
        """The lock of this study, not yet taken."""
        return DatabaseLock(self)

    def connect(self) -> Connection:
        """A connection of its own, outside transactions.

        Raises:
            OSError: The database does not answer.
        """
        import sqlalchemy  # noqa: PLC0415

        with self.answers():
            engine = sqlalchemy.create_engine(
                self._driver_url(),
                poolclass=sqlalchemy.NullPool,
                isolation_level="AUTOCOMMIT",
                connect_args=_connect_args(),
            )
            return engine.connect()

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Turn whatever a database may fail with into an OSError that names it."""
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            cause = error.__cause__ or error
            text = " ".join(str(cause).split("\n(Background")[0].split())
            raise OSError(errno.EIO, f"the database: {text}", self.public_url) from error
        except ImportError:
            raise ConfigError(
                "--study: needs psycopg; pip install 'kdsearch[postgres]'"
            ) from None

    def _driver_url(self) -> URL:
        return self._parsed().set(drivername=DRIVER)

    def _parsed(self) -> URL:
        import sqlalchemy  # noqa: PLC0415

        try:
            return sqlalchemy.make_url(self.url)
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise ConfigError(
                "--study: cannot be read as postgresql://user:password@host:port/database"
            ) from None


class DatabaseLock:
    """An exclusive lock on a study, held by an open connection."""

    def __init__(self, database: Database) -> None:
        """Nothing is connected before `take`."""
        self._database = database
        self._connection: Connection | None = None

    def take(self) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: Another driver holds it.
            OSError: The database does not answer.
        """
        self._connection = self._database.connect()
        deadline = time.monotonic() + TAKEOVER_S
        while not self._ask("SELECT pg_try_advisory_lock(:key)", key=self._key()):
            if time.monotonic() > deadline:
                self.release()
                raise BlockingIOError(
                    errno.EAGAIN,
                    "another search is running on this study; wait for it, or choose another "
                    "--name",
                    str(self._database),
                )
            time.sleep(0.1)

    def hold(self) -> None:
        """Make sure that the lock is still ours; take it again where the connection was lost.

        Waits for a database that is being restarted.

        Raises:
            OSError: It is not ours any more, or the database does not come back.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self._connection is None:
                    self.take()
                self._ask("SELECT 1")
            except BlockingIOError:
                raise
            except OSError:
                self.release()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    def release(self) -> None:
        """Let go, whatever state the connection is in."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _ask(self, query: str, **values: Any) -> Any:
        import sqlalchemy  # noqa: PLC0415

        assert self._connection is not None
        with self._database.answers():
            return self._connection.scalar(sqlalchemy.text(query), values)

    def _key(self) -> int:
        digest = hashlib.sha256(f"kdsearch {self._database.study}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def _connect_args() -> dict[str, Any]:
    server = " ".join(f"-c tcp_{name}={value}" for name, value in _KEEPALIVE.items())
    return {"connect_timeout": CONNECT_TIMEOUT_S, "options": server, **_KEEPALIVE}
