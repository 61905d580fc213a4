"""What nodes are sent, and what is asked of the machine that drives them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from search_cases import space_file

import kdsearch
from kdsearch.config.space_file import Config, parse_config
from kdsearch.errors import ConfigError
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.cluster import JOB_CONFIG, runtime_environment
from kdsearch.tuning.request import Request
from kdsearch.tuning.search import resolve_teacher_compute

OURS = str(Path(kdsearch.__file__).parent)
METHOD = "from kdsearch.methods.beatgan import BeatGan\nclass Own(BeatGan): pass\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A search by a method that lies beside its space file."""
    (tmp_path / "my_own_method.py").write_text(METHOD)
    raw = space_file(resources={"device": "cuda"}) | {"method": "my_own_method:Own"}
    return parse_config(raw, "kd.yaml", beside=tmp_path)


@pytest.fixture(autouse=True)
def path_of_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_own_method", "my_own_method.gan"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_nodes_are_sent_the_code_and_where_the_bucket_is(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TUNE_X", "60")
    sent = runtime_environment(config, ["TUNE_X", "TUNE_UNSET"])
    assert sent["py_modules"] == [OURS, str(tmp_path / "my_own_method.py")]
    assert sent["env_vars"] == {"TUNE_X": "60", "AWS_REGION": "eu-central-1"}
    built_in = parse_config(space_file(), "kd.yaml")
    assert runtime_environment(built_in, [])["py_modules"] == [OURS]


def test_a_package_without_init_is_sent_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_own_method").mkdir()
    (tmp_path / "my_own_method" / "gan.py").write_text(METHOD)
    raw = space_file() | {"method": "my_own_method.gan:Own"}
    config = parse_config(raw, "kd.yaml", beside=tmp_path)
    sent = runtime_environment(config, [])
    assert sent["py_modules"] == [OURS, str(tmp_path / "my_own_method")]
    installed = tmp_path.parent
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(installed))
    assert runtime_environment(config, [])["py_modules"] == [OURS]


def test_what_a_job_says_goes_first(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("TUNE_X", "60")
    job = {"runtime_env": {"py_modules": ["gcs://x.zip"], "env_vars": {"AWS_REGION": "x"}}}
    monkeypatch.setenv(JOB_CONFIG, json.dumps(job))
    sent = runtime_environment(config, ["TUNE_X"])
    assert "py_modules" not in sent
    assert sent["env_vars"] == {"TUNE_X": "60"}


def test_a_driver_of_a_cluster_needs_no_gpu(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    console = Console(file=io.StringIO())
    folder = RunFolder(tmp_path / "kd")
    on_cluster = Request(config, {}, folder, False, "auto", console)
    assert resolve_teacher_compute(on_cluster).device == "cpu"
    alone = Request(config, {}, folder, False, None, console)
    with pytest.raises(ConfigError, match="needs a GPU, but torch"):
        resolve_teacher_compute(alone)


@pytest.mark.parametrize(("given", "threads"), [("4,2", 4), ("3", 3), ("many", 1), ("", 1)])
def test_the_first_of_openmps_numbers_is_the_teachers(
    given: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("kdsearch.tuning.search.available_cpus", lambda: 2)
    config = parse_config(space_file(resources={"device": "cpu"}), "kd.yaml")
    before = torch.get_num_threads()
    try:
        console = Console(file=io.StringIO())
        folder = RunFolder(tmp_path / "kd")
        resolve_teacher_compute(Request(config, {}, folder, False, None, console))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
