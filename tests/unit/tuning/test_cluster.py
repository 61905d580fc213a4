"""Ray's start, without Ray: where its sockets go, what it and its nodes are told."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import ray
from search_cases import space_file

import kdsearch
from kdsearch.config.space_file import Config, parse_config
from kdsearch.errors import UserError
from kdsearch.tuning import cluster
from kdsearch.tuning.cluster import JOB_CONFIG, runtime_environment


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


def test_no_thread_collects_garbage_while_ray_is_left(monkeypatch: pytest.MonkeyPatch):
    """What Tune has left would call Ray, which would end the process."""
    collecting = []
    monkeypatch.setattr(ray, "shutdown", lambda: collecting.append(gc.isenabled()))
    cluster._shut_down()
    assert collecting == [False]
    assert gc.isenabled()


# What nodes are sent.

OURS = str(Path(kdsearch.__file__).parent)
METHOD = "from kdsearch.methods.beatgan import BeatGan\nclass Own(BeatGan): pass\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A search by a method that lies beside its space file."""
    (tmp_path / "my_own_method.py").write_text(METHOD)
    raw = space_file(resources={"device": "cuda"}) | {"method": "my_own_method:Own"}
    return parse_config(raw, "kd.yaml", beside=tmp_path)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ENVIRONMENT", ("TUNE_X", "TUNE_UNSET"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_own_method", "my_own_method.gan"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_nodes_are_sent_the_code_and_where_the_bucket_is(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TUNE_X", "60")
    sent = runtime_environment(config)
    assert sent["py_modules"] == [OURS, str(tmp_path / "my_own_method.py")]
    assert sent["env_vars"] == {"TUNE_X": "60", "AWS_REGION": "eu-central-1"}
    built_in = parse_config(space_file(), "kd.yaml")
    assert runtime_environment(built_in)["py_modules"] == [OURS]


def test_a_package_without_init_is_sent_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_own_method").mkdir()
    (tmp_path / "my_own_method" / "gan.py").write_text(METHOD)
    raw = space_file() | {"method": "my_own_method.gan:Own"}
    config = parse_config(raw, "kd.yaml", beside=tmp_path)
    sent = runtime_environment(config)
    assert sent["py_modules"] == [OURS, str(tmp_path / "my_own_method")]
    installed = tmp_path.parent
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(installed))
    assert runtime_environment(config)["py_modules"] == [OURS]


def test_what_a_job_says_goes_first(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("TUNE_X", "60")
    job = {"runtime_env": {"py_modules": ["gcs://x.zip"], "env_vars": {"AWS_REGION": "x"}}}
    monkeypatch.setenv(JOB_CONFIG, json.dumps(job))
    sent = runtime_environment(config)
    assert "py_modules" not in sent
    assert sent["env_vars"] == {"TUNE_X": "60"}
