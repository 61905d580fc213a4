"""Paths in object storage, with as much of `pathlib.Path` as a run folder needs.

Writing an object is atomic, so that no temporary file and rename are needed. Uses S3 and Google
Cloud Storage through pyarrow, a dependency of Ray Tune. The storage's own library finds the
credentials (environment, files, roles).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from kdsearch.errors import ConfigError
from kdsearch.extras import needs

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEMES = ("s3", "gs")
# A bucket that is out of reach for less than this causes no error.
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, ATTEMPTS = 5, 60, 5
# Requests at the same time; pyarrow has as many connections as threads, 25 at least.
CONNECTIONS = 64


@dataclass(frozen=True)
class BucketPath:
    """An object, or a folder of objects.

    Attributes:
        url: ``s3://bucket/path`` or ``gs://bucket/path``, without a slash at its end.

    Its methods do what those of `pathlib.Path` do, and raise an OSError that names the URL
    where the storage cannot be reached or refuses.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, part: str) -> BucketPath:
        return BucketPath(f"{self.url}/{part}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> BucketPath:
        """All but the last part."""
        return BucketPath(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> BucketPath:
        """The same with another last part."""
        return self.parent / name

    def resolve(self) -> BucketPath:
        """Itself: a URL is absolute."""
        return self

    def exists(self) -> bool:
        """Whether there is an object here, or one below."""
        return bool(self._info().type.name != "NotFound")

    def is_file(self) -> bool:
        """Whether there is an object here."""
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        """Whether there is an object below."""
        return bool(self._info().type.name == "Directory")

    def iterdir(self) -> Iterator[BucketPath]:
        """Return the paths directly below, in no order."""
        with self._reached() as storage:
            from pyarrow.fs import FileSelector  # noqa: PLC0415

            found = storage.get_file_info(FileSelector(self._key, allow_not_found=True))
        return iter([self / info.base_name for info in found])

    def names_below(self) -> Iterator[str]:
        """The names of all objects below, relative to this one, in one listing."""
        with self._reached() as storage:
            from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415

            selector = FileSelector(self._key, allow_not_found=True, recursive=True)
            found = storage.get_file_info(selector)
        first = len(self._key) + 1
        return iter([info.path[first:] for info in found if info.type == FileType.File])

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are parts of names."""

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self._reached() as storage, storage.open_input_stream(self._key) as stream:
            content: bytes = stream.read()
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes | memoryview) -> None:
        """Put the object; it is there as a whole when this returns."""
        with self._reached() as storage, storage.open_output_stream(self._key) as stream:
            stream.write(content)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            with self._reached() as storage:
                storage.delete_file(self._key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    @property
    def _key(self) -> str:
        return self.url.partition("://")[2]

    def _info(self) -> FileInfo:
        with self._reached() as storage:
            return storage.get_file_info(self._key)

    @contextmanager
    def _reached(self) -> Iterator[FileSystem]:
        try:
            yield _storage(self.url.partition("://")[0], self._key.partition("/")[0])
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.url) from None
        except OSError as error:
            # pyarrow's errors have neither a number nor the URL.
            text = " ".join(str(error).split())
            raise OSError(errno.EIO, text, self.url) from None


Place: TypeAlias = Path | BucketPath


def parse_path(name: str | os.PathLike[str] | BucketPath) -> Place:
    """Read what a user typed: a URL of object storage, or a path.

    Raises:
        ConfigError: A URL that names no bucket, or brings credentials or options along.
    """
    if isinstance(name, BucketPath):
        return name
    text = os.fspath(name)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return expand_home(text)
    # What a URL holds is shown and kept, so it must hold no secret.
    if scheme not in SCHEMES or not rest.strip("/") or set(rest) & set("@?#"):
        raise ConfigError(
            f"{scheme}://...: expected s3://bucket/path or gs://bucket/path, with credentials, "
            "region and endpoint in the environment (AWS_ENDPOINT_URL and its like)"
        )
    return BucketPath(f"{scheme}://{rest.strip('/')}")


def finds(path: str, text: str) -> bool:
    """Return whether this machine finds a file with this text at a path or URL."""
    try:
        return parse_path(path).read_text() == text
    except OSError:
        return False


def expand_home(text: str) -> Path:
    """Replace ``~`` and ``~user`` at the beginning of a path.

    Raises:
        ConfigError: The user or the home folder is not known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text}: no home folder is known for '~'; use a full path") from None


@lru_cache(maxsize=8)
def _storage(scheme: str, bucket: str) -> FileSystem:
    with needs("search", "object storage"):
        import pyarrow as pa  # noqa: PLC0415
    from pyarrow import fs  # noqa: PLC0415

    pa.set_io_thread_count(max(pa.io_thread_count(), CONNECTIONS))
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_TIMEOUT_S))
    options: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint)
        options = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    elif not os.environ.get("AWS_REGION") and not os.environ.get("AWS_DEFAULT_REGION"):
        options = {"region": fs.resolve_s3_region(bucket)}
    return fs.S3FileSystem(
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        # One request for a small object instead of three.
        allow_delayed_open=True,
        **options,
    )
