"""A teacher that trains in the driver: with which threads, and what a search says of it."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from rich.console import Console
from search_cases import CPU, space_file, tiny_dataset, tiny_teacher

from kdsearch.config.space_file import Config, parse_config
from kdsearch.errors import Interrupted
from kdsearch.methods.beatgan import BeatGan
from kdsearch.tuning.signals import Signals
from kdsearch.tuning.teacher import fingerprint
from kdsearch.tuning.teacher_training import WAITING, TeacherTraining

SETTINGS = tiny_teacher(epochs=1)


class Watched(BeatGan):
    """Notes the threads with which a teacher is trained."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def teacher_stack(self, *arguments: Any) -> Any:
        self.threads.append(torch.get_num_threads())
        return super().teacher_stack(*arguments)


def training(
    config: Config, said: list[str], signals: Signals | None = None
) -> TeacherTraining:
    console = Console(file=io.StringIO())
    signals = signals or Signals()
    return TeacherTraining(config, tiny_dataset(), CPU, signals, console, said.append)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path))
    parsed = parse_config(space_file(resources={"device": "cpu"}), "kd.yaml")
    return replace(parsed, method=Watched(), teacher=SETTINGS)


@pytest.mark.parametrize(
    ("given", "most", "threads"),
    [("", None, 3), ("many", None, 3), ("", 2, 2), ("4,2", None, 4), ("1", None, 1)],
)
def test_a_teacher_has_all_cpus_of_the_search_or_as_many_threads_as_openmp_says(
    config: Config,
    given: str,
    most: int | None,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("kdsearch.tuning.placement.available_cpus", lambda: 3)
    config = replace(config, search=config.search.changed(max_concurrent=most))
    before = torch.get_num_threads()
    training(config, []).run(on_cluster=False)
    assert config.method.threads == [threads]
    assert torch.get_num_threads() == before


def test_a_teacher_in_the_cache_needs_no_room_on_a_cluster(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = training(config, []).run(on_cluster=False)
    module = "kdsearch.tuning.teacher_training"
    monkeypatch.setattr(f"{module}.trial_compute", lambda *_: CPU)
    monkeypatch.setattr(f"{module}.wait_for_room", lambda *_: pytest.fail("it waits"))
    again = training(config, []).run(on_cluster=True)
    assert again.found
    assert again.fingerprint == first.fingerprint


def test_a_search_says_that_it_waits_for_another_ones_teacher(
    config: Config, tmp_path: Path
) -> None:
    name = fingerprint(config.method, SETTINGS, tiny_dataset(), CPU)
    entry = tmp_path / "teachers" / name
    entry.mkdir(parents=True)
    said: list[str] = []
    with FileLock(entry / ".lock"):
        waiting = threading.Thread(
            target=lambda: training(config, said).run(on_cluster=False), daemon=True
        )
        waiting.start()
        while not said:
            waiting.join(0.01)
            assert waiting.is_alive()
    waiting.join()
    assert said == [WAITING]
    assert (entry / "teacher.json").exists()


def test_a_signal_ends_the_wait_for_another_searchs_teacher(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fingerprint(config.method, SETTINGS, tiny_dataset(), CPU)
    entry = tmp_path / "teachers" / name
    entry.mkdir(parents=True)

    def lost_signal() -> None:
        raise Interrupted(2)

    signals = Signals()
    monkeypatch.setattr(signals, "check", lost_signal)
    with FileLock(entry / ".lock"), pytest.raises(Interrupted, match="SIGINT"):
        training(config, [], signals).run(on_cluster=False)
