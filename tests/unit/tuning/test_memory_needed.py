"""What cannot fit into this machine is refused before anything is cut or trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from search_cases import space_file, write_space
from torch import Tensor, nn

from kdsearch.cli.main import search_command
from kdsearch.config.shipped import shipped_spaces
from kdsearch.config.space_file import load_space, parse_config
from kdsearch.data.beats import BeatShape
from kdsearch.errors import ConfigError
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import StudentSettings
from kdsearch.methods.torch_method import TorchMethod
from kdsearch.tuning import memory_needed
from kdsearch.tuning.memory_needed import check_memory, machine_memory

MEMORY_SPACE = {
    "method": "memory",
    "data": {"source": "simulated"},
    "teacher": {},
    "search": {"num_samples": 1},
    "space": {"alpha": 1, "w_contrast": 0.3, "lr": 0.001},
}


@pytest.fixture(autouse=True)
def two_cores_and_8_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory_needed, "machine_memory", lambda: 8_000_000_000)
    monkeypatch.setattr("kdsearch.tuning.placement.available_cpus", lambda: 2)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"teacher": {"width": 16384}}, "teacher.width=16384 needs about 8,7"),
        (
            {"student": {"width": 16384}, "search": {"max_concurrent": 1}},
            r"student.width=16384 needs about 8,[\d.,]+ GB of memory to train, but this "
            "machine has 8.0 GB; lower it$",
        ),
        (
            {"space": {"width": {"choice": [2, 512]}}, "resources": {"students_per_cpu": 2}},
            r"space.width=512 needs about 3\d.\d GB of memory to train, 4 students at a time, "
            "but this machine has 8.0 GB; lower it, or search.max_concurrent$",
        ),
    ],
)
def test_too_large_a_beatgan_is_refused(changes: dict[str, Any], refused: str):
    plain = space_file(**changes)
    for name in changes.get("space", {}):
        plain["student"].pop(name, None)
    with pytest.raises(ConfigError, match=refused):
        check_memory(parse_config(plain, "kd.yaml"))


def test_too_large_a_student_of_a_memory_is_refused():
    student = {"width": 16384, "depth": 100}
    with pytest.raises(ConfigError, match=r"student\.width=16384 needs about 4\d\d\.\d GB"):
        check_memory(parse_config({**MEMORY_SPACE, "student": student}, "memory.yaml"))


@pytest.mark.parametrize("path", shipped_spaces().values(), ids=lambda path: path.stem)
def test_every_shipped_space_fits_into_8_gb(path: Path):
    check_memory(load_space(path))


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_the_command_refuses_it_in_one_line_and_leaves_nothing(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    space = write_space(tmp_path, teacher={"width": 16384})
    runs = tmp_path / "runs"
    assert search_command(["--space", str(space), "--runs-dir", str(runs), *more]) == 2
    said = capsys.readouterr()
    assert "teacher.width=16384 needs about " in said.err
    assert (said.out, said.err.count("\n"), runs.exists()) == ("", 1, False)


def test_a_method_that_cannot_tell_its_size_is_not_checked():
    config = parse_config(space_file(teacher={"width": 16384}), "kd.yaml")
    check_memory(replace(config, method=cast("Any", Untold)))


class Untold:
    """A method without a word on its size."""

    teacher_settings = BeatGan.teacher_settings
    student_settings = BeatGan.student_settings


class NeedsValues(TorchMethod):
    """Makes a network by looking at a value, which the meta device does not have."""

    def network(self, settings: Any, shape: BeatShape) -> nn.Module:
        return nn.Linear(int(torch.ones(()).item()), 1)

    def scores(self, network: nn.Module, x: Tensor) -> Tensor:
        raise NotImplementedError

    def losses(self, network: nn.Module, x: Tensor, settings: Any, taught: Any) -> Any:
        raise NotImplementedError


def test_a_network_that_is_made_from_values_is_of_unknown_size():
    settings = NeedsValues.student_settings()
    assert NeedsValues().training_values(settings, BeatShape(1, 320, 1)) == 0


def test_a_container_has_its_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory_needed, "CONTAINER", limit)
    physical = machine_memory()
    limit.write_text("max\n")
    assert machine_memory() == physical > 1_000_000
    limit.write_text("1000000\n")
    assert machine_memory() == 1_000_000


def test_the_parameters_of_a_beatgan_are_counted():
    # 4 bytes, of which there are 4: value, gradient and both moments.
    large = StudentSettings(width=32, latent=50, batch_size=1)
    values = BeatGan().training_values(large, BeatShape(1, 320, 1))
    kept = 4 * 5 * 32 * 320
    assert (values - kept) / 4 == pytest.approx(2_500_000, rel=0.3)


def test_a_mini_batch_larger_than_the_data_may_be_is_not_refused():
    check_memory(parse_config(space_file(student={"batch_size": 1_000_000}), "kd.yaml"))
