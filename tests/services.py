"""Servers that a search talks to, the real ones, started and stopped by the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import pytest


def absent(what: str) -> None:
    """Leave the tests of a service out where it is not installed, but never in CI."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server with the bucket ``bucket``; gives the environment that leads to it."""
    if find_spec("moto") is None:
        absent("needs an S3 server: pip install -e '.[dev]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url)
        urlopen(Request(f"{url}/bucket", method="PUT"), timeout=10).close()
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


def _await(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urlopen(url, timeout=10).close()
        except OSError:
            assert time.monotonic() < deadline, "the S3 server does not come up"
            time.sleep(0.1)
        else:
            return


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of our own, on a socket in its own folder."""

    folder: Path
    programs: Path

    @property
    def url(self) -> str:
        return f"postgresql://kds:secret@/postgres?host={self.folder}"

    def control(self, *arguments: str) -> None:
        """Start, stop or restart it."""
        options = f"-k {self.folder} -h ''"
        self.program(
            *("pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log")),
            *("-w", "-o", options, *arguments),
        )

    def program(self, name: str, *arguments: str) -> None:
        command = [str(self.programs / name), *arguments]
        if os.getuid() == 0:  # PostgreSQL refuses to run as root.
            command = ["runuser", "-u", "postgres", "--", *command]
        # Into a file: the server would keep a pipe open.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(command, stdout=said, stderr=said, check=False, cwd="/")
            said.seek(0)
            assert done.returncode == 0, said.read().decode()


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    initdb = shutil.which("initdb") or next(
        iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)),
        None,
    )
    if initdb is None:
        absent("needs PostgreSQL: apt-get install postgresql")
    # A socket needs a short path.
    folder = Path(tempfile.mkdtemp(prefix="kpg", dir="/tmp"))
    server = Postgres(folder, Path(str(initdb)).resolve().parent)
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        secret = folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o644)
        data = str(folder / "data")
        server.program(
            *("initdb", "-D", data, "-U", "kds", "--auth=scram-sha-256", "--no-sync"),
            f"--pwfile={secret}",
        )
        server.control("start")
        yield server
        server.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
