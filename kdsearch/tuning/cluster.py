"""Connect to a Ray cluster, or start one on this machine and stop it afterwards.

A node of a cluster needs Python, Ray and torch of the same versions (an image, see
``deploy/``), but not kdsearch: the driver's package and the user's own method are sent with the
search, so that versions are always the same.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

import kdsearch
from kdsearch.config.space_file import BUILT_IN, Config
from kdsearch.errors import RunError, UserError
from kdsearch.extras import uncollected
from kdsearch.files.atomic import write_text
from kdsearch.files.bucket import BucketPath, Place, finds
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning import ENVIRONMENT
from kdsearch.tuning.placement import local_cpus
from kdsearch.tuning.ray_internals import adapted, start
from kdsearch.tuning.signals import Signals
from kdsearch.tuning.temporary import temporary_folder

MIB = 2**20
CONNECT_TIMEOUT_S = 10.0
# Longest path of a Unix socket, on macOS four characters shorter, and what Ray and we append to
# the folder for temporary files: /kds-xxxxxxxx/r/session_<date>_<time>_<process>/sockets/<x>.
SOCKET_PATH = 107 if sys.platform.startswith("linux") else 103
APPENDED = len("/kds-xxxxxxxx/r/session_2026-01-01_00-00-00_000000_0000000") + len(
    "/sockets/plasma_store"
)
# Where Ray keeps the options of `ray job submit`, in the job's own process.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Where a bucket is. Its keys must be on the nodes: everyone who sees the cluster sees what is
# sent with a search.
BUCKET = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


@contextmanager
def joined(address: str, config: Config, signals: Signals) -> Iterator[None]:
    """Join the cluster at ``address``, as Ray takes it, for example ``auto``.

    Raises:
        UserError: There is no cluster at ``address``.
    """
    _refuse_running()
    _check_reachable(address)
    try:
        with adapted(), signals.held_back():
            ray.init(address=address, runtime_env=runtime_environment(config), **QUIET)
    except (ConnectionError, ValueError, TimeoutError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers: {error}") from None
    try:
        yield
    finally:
        _shut_down()


@contextmanager
def started(
    config: Config, *, data_bytes: int, folder: RunFolder, signals: Signals
) -> Iterator[None]:
    """Start Ray on this machine and stop it again.

    Args:
        data_bytes: Size of what the trials share.
        folder: The run, which remembers Ray's temporary files for the case of a kill.
    """
    _refuse_running()
    # Installed packages are found without it.
    own = [str(path.parent) for path in _own_method(config)]
    with temporary_folder(folder, temporary_parent()) as temporary:
        try:
            with adapted(), signals.held_back():
                start(
                    temporary=temporary,
                    import_from=own,
                    num_cpus=local_cpus(config),
                    object_store_memory=max(100 * MIB, 2 * data_bytes),
                    **QUIET,
                )
            yield
        finally:
            _shut_down()


def _shut_down() -> None:
    """Leave Ray, and let no other thread collect what Tune has left meanwhile.

    Its objects are garbage in cycles, and call Ray when they are collected. In the middle of
    the shutdown Ray then ends the process with status 1 and without a word; before and after it
    there is no harm.
    """
    with uncollected():
        ray.shutdown()


def _refuse_running() -> None:
    if ray.is_initialized():
        raise UserError(
            "Ray runs in this process already: call ray.shutdown() before, and name a cluster "
            "that is to be used by its address"
        )


def runtime_environment(config: Config) -> dict[str, Any]:
    """Return the runtime environment of a search's workers, as `ray.init` takes it.

    Inside a job, the job's own environment takes precedence.
    """
    job = json.loads(os.environ.get(JOB_CONFIG) or "{}").get("runtime_env") or {}
    names = {name for name in (*ENVIRONMENT, *BUCKET) if name in os.environ}
    names -= job.get("env_vars", {}).keys()
    environment: dict[str, Any] = {
        "py_modules": [str(Path(kdsearch.__file__).parent), *map(str, _own_method(config))],
        "excludes": ["__pycache__"],
    }
    return {
        **{key: value for key, value in environment.items() if key not in job},
        "env_vars": {name: os.environ[name] for name in names},
    }


def _own_method(config: Config) -> list[Path]:
    """Return the package or module of a user's own method, unless it is installed."""
    if config.method_name in BUILT_IN:
        return []
    module = sys.modules[config.method_name.partition(":")[0].partition(".")[0]]
    # A package without __init__.py has a path and no file; a notebook has neither.
    path = next(iter(getattr(module, "__path__", [getattr(module, "__file__", None)])))
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if path is None or any(Path(path).is_relative_to(folder) for folder in installed):
        return []
    return [Path(path).resolve()]


def _check_reachable(address: str) -> None:
    """Ask the port first: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "//" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers: {error}") from None


def temporary_parent() -> Path:
    """Folder for Ray's temporary files: the system's, or a short one if that is too long.

    Raises:
        UserError: There is none whose path is short enough for Ray's sockets.
    """
    longest = SOCKET_PATH - APPENDED
    system = tempfile.gettempdir()
    for folder in (system, "/tmp", "/var/tmp"):
        if len(os.fsencode(folder)) <= longest and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise UserError(
        f"TMPDIR: Ray's sockets need a writable folder whose path has at most {longest} "
        f"characters, but found {system}; set TMPDIR to such a folder"
    )


def probe_storage(run: Place) -> None:
    """Refuse a run folder that some machine of the cluster cannot see.

    Raises:
        RunError: Names the machines.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(nodes) < 2:
        return
    # Of a module that imports little, since each machine starts a process for it.
    look = ray.remote(num_cpus=0)(finds)
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    # A word that no other folder of this path holds.
    word, probe = uuid.uuid4().hex, run / ".probe"
    write_text(probe, word)
    try:
        answers = ray.get(
            [
                look.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(
                    str(probe), word
                )
                for node in nodes
            ]
        )
    finally:
        probe.unlink(missing_ok=True)
    blind = [
        node["NodeManagerAddress"]
        for node, sees in zip(nodes, answers, strict=True)
        if not sees
    ]
    if blind:
        remedy = (
            "give them credentials for this bucket"
            if isinstance(run, BucketPath)
            else "put it on storage that all share, or in a bucket, with --runs-dir"
        )
        raise RunError(
            f"{run}: the machines {', '.join(blind)} cannot see this folder; {remedy}"
        )
