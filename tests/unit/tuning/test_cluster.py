"""Ray's start, without Ray: where its sockets go, what it is told of the command line."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import ray

from kdsearch.errors import UserError
from kdsearch.tuning import cluster


def test_a_long_folder_for_temporary_files_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert cluster.temporary_parent() == Path("/tmp")
    long = "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T"
    monkeypatch.setattr(tempfile, "tempdir", long)
    assert cluster.temporary_parent() == Path("/tmp")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=rf"at most \d\d characters, but found {long}; set TM"):
        cluster.temporary_parent()


def test_the_longest_folder_is_short_enough_for_rays_sockets():
    folder = "/" + "x" * (cluster.SOCKET_PATH - cluster.APPENDED - 1)
    name = "session_2026-11-27_13-28-09_123456_4194304/sockets/plasma_store"
    assert len(f"{folder}/kds-12345678/r/{name}") <= cluster.SOCKET_PATH


def test_ray_is_told_no_password_of_the_command_line(monkeypatch: pytest.MonkeyPatch):
    line = ["python", "run_search.py", "--track", "mlflow=http://me:hunter2@host"]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: line)
    utils = ray._private.utils
    assert "hunter2" in utils.get_entrypoint_name()
    before = utils.get_entrypoint_name, utils.set_sigterm_handler
    with cluster.adapted():
        assert utils.get_entrypoint_name().endswith("mlflow=http://me:***@host")
        utils.set_sigterm_handler(lambda signum, frame: sys.exit(15))
    assert (utils.get_entrypoint_name, utils.set_sigterm_handler) == before


def test_a_probe_tells_one_folder_from_another(tmp_path: Path):
    probe = tmp_path / ".probe"
    assert not cluster._sees(str(probe), "word")
    probe.write_text("other")
    assert not cluster._sees(str(probe), "word")
    probe.write_text("word")
    assert cluster._sees(str(probe), "word")
