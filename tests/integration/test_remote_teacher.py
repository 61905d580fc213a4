"""A teacher in a process of a real Ray that is killed, once or too often, or fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from search_cases import CPU, tiny_dataset, tiny_teacher
from small import started_ray

from kdsearch.errors import Interrupted, SearchFailed
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.protocol import EpochReport, Task
from kdsearch.tuning.placement import Processes
from kdsearch.tuning.remote_teacher import RemoteTeacher
from kdsearch.tuning.teacher import Teacher, TeacherCache

SETTINGS = tiny_teacher()


class Dying(BeatGan):
    """Its teacher's process kills itself after some calculations of the second epoch."""

    def __init__(self, log: Path, kills: int) -> None:
        self.log = log
        self.kills = kills

    def teacher_stack(self, *arguments: Any) -> Any:
        stack: Any = super().teacher_stack(*arguments)
        advance = stack.advance

        def logged() -> Any:
            trained = advance()
            with self.log.open("a") as log:
                log.write(f"{trained[0].epoch} {os.getpid()}\n")
            lines = self.log.read_text().splitlines()
            if 0 < [line.split()[0] for line in lines].count("2") <= self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            return trained

        stack.advance = logged
        return stack


class Failing(BeatGan):
    def teacher_stack(self, *arguments: Any) -> Any:
        raise ValueError("the sensor caught fire")


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with started_ray(__name__, cpus=1):
        yield


class Remote:
    """A cache whose teachers train in Ray's processes."""

    def __init__(self, cache: Path, method: BeatGan, retries: int) -> None:
        self._cache = TeacherCache(cache)
        self._method = method
        self._retries = retries
        self.epochs: list[int] = []

    def get(self, check: Any = lambda: None) -> Teacher:
        task = ray.put(Task(tiny_dataset().training, CPU))
        stack = RemoteTeacher(
            self._method, task, Processes(CPU, 1, 1, 1), retries=self._retries, check=check
        )
        return self._cache.get(
            self._method,
            SETTINGS,
            tiny_dataset(),
            CPU,
            self._seen,
            open_stack=lambda _: closing(stack),
        )

    def _seen(self, report: EpochReport, epochs: int) -> None:
        assert epochs == SETTINGS.epochs
        self.epochs.append(report.epoch)


def computed(log: Path) -> list[int]:
    return [int(line.split()[0]) for line in log.read_text().splitlines()]


def test_a_killed_process_costs_one_epoch(tmp_path: Path) -> None:
    log = tmp_path / "log"
    remote = Remote(tmp_path / "remote", Dying(log, kills=1), retries=1)
    found = remote.get()
    assert remote.epochs == [1, 2, 3]
    assert computed(log) == [1, 2, 2, 3]
    processes = [line.split()[1] for line in log.read_text().splitlines()]
    assert len(set(processes)) == 2
    assert str(os.getpid()) not in processes
    here = TeacherCache(tmp_path / "here").get(
        BeatGan(), SETTINGS, tiny_dataset(), CPU, lambda report, epochs: None
    )
    assert [report.epoch for report in found.history] == [1, 2, 3]
    x = tiny_dataset().test.x
    scores = (BeatGan().score(teacher.weights, x, CPU) for teacher in (found, here))
    np.testing.assert_allclose(*scores, rtol=1e-3)


def test_a_process_killed_too_often_ends_the_search_and_a_resume_continues(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    remote = Remote(tmp_path / "cache", Dying(log, kills=2), retries=1)
    with pytest.raises(SearchFailed, match=r"lost 2 times in one epoch: .*rerun with --resume"):
        remote.get()
    assert remote.epochs == [1]
    assert not remote.get().found
    assert remote.epochs == [1, 2, 3]
    assert computed(log) == [1, 2, 2, 2, 3]


def test_a_method_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    remote = Remote(tmp_path / "cache", Failing(), retries=9)
    reason = "the teacher's training failed: ValueError: the sensor caught fire"
    with pytest.raises(SearchFailed, match=f"^{reason}$"):
        remote.get()


def test_a_signal_ends_the_wait_for_a_process(tmp_path: Path) -> None:
    def signalled() -> None:
        raise Interrupted(signal.SIGINT)

    @ray.remote
    def sleep() -> None:
        time.sleep(600)

    busy = sleep.remote()
    try:
        with pytest.raises(Interrupted, match="SIGINT"):
            Remote(tmp_path / "cache", BeatGan(), retries=0).get(signalled)
    finally:
        ray.cancel(busy, force=True)
