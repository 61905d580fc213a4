"""Two searches in two processes that want the same teacher at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "unit"

# After each epoch the program says so and waits for a line.
PROGRAM = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(UNIT)!r})
import torch
from search_cases import CPU, tiny_dataset, tiny_teacher
from kdsearch.methods.beatgan import BeatGan
from kdsearch.tuning.teacher import TeacherCache

def on_epoch(report, epochs):
    print("epoch", report.epoch, flush=True)
    sys.stdin.readline()

torch.set_num_threads(1)
print("asks", flush=True)
cache = TeacherCache(Path(sys.argv[1]))
teacher = cache.get(BeatGan(), tiny_teacher(), tiny_dataset(), CPU, on_epoch)
print("found" if teacher.found else "trained", flush=True)
"""

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(cache: Path) -> Iterator[Start]:
    processes = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(cache)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def rest(process: subprocess.Popen[str]) -> list[str]:
    """What it says until its end; `communicate` would lose what `says` has read ahead."""
    return process.stdout.read().split("\n")


def let_go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n" * 9)
    process.stdin.flush()


def test_two_processes_at_once_train_once(start: Start):
    first, second = start(), start()
    assert says(first) == says(second) == "asks"
    let_go(first)
    let_go(second)
    said = sorted(rest(process) for process in (first, second))
    assert said == [["epoch 1", "epoch 2", "epoch 3", "trained", ""], ["found", ""]]


def test_who_waits_for_a_killed_training_goes_on_with_it(start: Start):
    killed = start()
    assert [says(killed), says(killed)] == ["asks", "epoch 1"]
    waiting = start()
    assert says(waiting) == "asks"
    killed.kill()
    assert says(waiting) == "epoch 2"
    let_go(waiting)
    assert rest(waiting) == ["epoch 3", "trained", ""]
