"""The script for a GPU, with sizes that a CPU can do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.data import DataSettings, load_dataset
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.protocol import Compute, Task

ROOT = Path(__file__).parents[2]
TABLES = {
    "environment": ["rows"],
    "correctness": ["rows"],
    "steps": ["rows"],
    "profile": ["beatgan_kernels", "memory_kernels"],
    "checkpoints": ["rows"],
    "plain": ["rows"],
    "quality": ["epochs", "seeds"],
}


@pytest.fixture(autouse=True)
def python_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))


def script(folder: Path, *options: str) -> list[str]:
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "--tiny", "--device", "cpu"]
    return [*command, "--output", str(folder), *options]


def run(folder: Path, *options: str, status: int = 0) -> dict[str, dict]:
    done = subprocess.run(script(folder, *options), check=False, capture_output=True)
    assert done.returncode == status, done.stderr.decode()
    return json.loads((folder / "gpu.json").read_text())


def test_every_part_that_needs_no_ray_finds_something(tmp_path: Path):
    found = run(tmp_path, "--parts", *TABLES)
    assert {part: one["state"] for part, one in found.items()} == dict.fromkeys(TABLES, "done")
    for part, tables in TABLES.items():
        assert all(found[part][table] for table in tables)
    assert all(row["agrees"] for row in found["correctness"]["rows"])
    steps = [
        (row["method"], row["precision"], row["students"])
        for row in found["steps"]["rows"]
        if not row["form"]
    ]
    assert sorted(steps) == [
        (method, precision, students)
        for method in ("beatgan", "memory")
        for precision in ("bf16", "fp32")
        for students in (1, 2)
    ]
    assert [row["epoch"] for row in found["quality"]["epochs"]] == [1, 2]
    assert found["quality"]["test_auc"]["mean"] == pytest.approx(
        sum(row["test_auc"] for row in found["quality"]["seeds"]) / 2
    )
    assert "memory by self_cpu_time_total" in (tmp_path / "profile.txt").read_text()


def test_a_part_that_fails_stops_no_other(tmp_path: Path):
    missing = str(tmp_path / "missing.npz")
    found = run(tmp_path, "--parts", "searches", "quality", "--data", missing, status=1)
    assert found["searches"]["state"] == "failed"
    assert found["quality"]["state"] == "failed"
    assert "missing.npz" in found["quality"]["error"]


def test_what_was_found_before_a_kill_is_kept(tmp_path: Path):
    command = script(tmp_path, "--parts", "quality", "--epochs", "10000")
    file = tmp_path / "gpu.json"
    with subprocess.Popen(command) as process:
        while not (file.exists() and json.loads(file.read_text())["quality"].get("epochs")):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    found = json.loads(file.read_text())["quality"]
    assert found["state"] == "running"
    assert found["epochs"][0]["epoch"] == 1


def test_beats_of_the_small_file_are_those_of_the_source(tmp_path: Path):
    file = tmp_path / "beats.npz"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_data.py"), "--data", "simulated"]
    done = subprocess.run([*command, str(file)], check=True, capture_output=True, text=True)
    of_source, of_file = map(float, re.findall(r"0\.\d{5}", done.stdout))
    assert of_file == pytest.approx(of_source, abs=2e-4)
    settings = DataSettings(source="simulated", split="fold")
    expected = load_dataset(settings, tmp_path / "cache")
    found = load_dataset(settings.model_copy(update={"source": str(file)}), tmp_path / "cache")
    for part in ("training.train", "training.validation.x", "test.x"):
        rows, original = attrgetter(part)(found), attrgetter(part)(expected)
        assert rows.shape == original.shape
        assert abs(rows - original).max() < 2e-3
    assert (found.test.classes == expected.test.classes).all()


def test_a_shrunk_wheel_has_a_record_of_what_is_left(tmp_path: Path):
    wheel = tmp_path / "ray-1-py3-none-any.whl"
    record = "ray/__init__.py,,\nray/jars/ray.jar,,\nray-1.dist-info/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ray/__init__.py", "VALUE = 1\n")
        archive.writestr("ray/jars/ray.jar", "a program in Java")
        archive.writestr("ray-1.dist-info/RECORD", record)
    shrink = str(ROOT / "benchmarks" / "gpu_wheels.py")
    subprocess.run([sys.executable, shrink, str(wheel)], check=True)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["ray/__init__.py", "ray-1.dist-info/RECORD"]
        assert archive.read("ray/__init__.py") == b"VALUE = 1\n"
        left = archive.read("ray-1.dist-info/RECORD").decode().splitlines()
    assert left == ["ray/__init__.py,,", "ray-1.dist-info/RECORD,,"]


def test_the_plain_script_has_the_same_teacher(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    against_plain, course = map(import_module, ("against_plain", "gpu_parts.course"))
    method, data = BeatGan(), course.made_up(64)
    settings = method.teacher_settings(width=2)
    stack = method.teacher_stack(settings, Task(data, Compute()))
    stack.put_in(0, settings, seed=0)
    stack.advance()
    weights = stack.weights(0)
    network = against_plain.plain.generator(2)
    network.load_state_dict(against_plain.plain_weights(weights))
    x = torch.from_numpy(data.validation.x)
    found = against_plain.plain.scores_of(network.eval(), [x], "cpu")
    np.testing.assert_allclose(found, method.score(weights, x.numpy(), Compute()), rtol=1e-4)


def test_only_the_searches_need_ray_and_optuna(tmp_path: Path):
    missing = ("ray", "optuna", "sqlalchemy", "tensorboardX", "plotly", "itables")
    for name in missing:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r})\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT / 'benchmarks'}"}
    subprocess.run(
        [sys.executable, "-c", "import gpu_parts.__main__"], check=True, env=environment
    )
