"""What a search spends outside of training: its start, and between the training steps.

    python benchmarks/overhead.py              # 32 trials of about 20 s, two at a time
    python benchmarks/overhead.py --syncs .    # the files of an epoch, on the disk of a folder

Starts a search as a user does, on simulated beats and with a cached teacher; its workers write
down when they train (`timed.py`). Prints

- the share of the cores' time, from the first training step to the last, that was spent in
  training steps, and in validation;
- the seconds from the command to the first training step, beside those that the same Python
  needs to import torch and ray.tune and to start Ray, which no tool on Ray can save.

With ``--syncs`` it writes the files of an epoch instead: the trial's line, a checkpoint and the
best weights, as large as those of BeatGAN at some widths. It prints the median of their time
with the syncs of files and folders, without those of folders, and without any.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml

from kdsearch.files import atomic
from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.folder import RunFolder

HERE = Path(__file__).parent
ROOT = HERE.parent

BARE = """
import sys
import torch
import ray
from ray import tune
ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False,
         object_store_memory=200 * 2**20, log_to_driver=False, _temp_dir=sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--beats", type=int, default=7000, help="training beats")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--syncs", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=51, help="of --syncs")
    options = parser.parse_args()
    if options.syncs:
        syncs(options.syncs, options.rounds)
        return
    work = Path(tempfile.mkdtemp(prefix="over", dir="/tmp"))
    try:
        measure(work, options)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def syncs(disk: Path, rounds: int) -> None:
    """Write the files of an epoch with and without syncs, in turns; print median times."""
    forms: dict[str, Any] = {
        "all": nullcontext(),
        "files": mock.patch.object(atomic, "sync"),
        "none": mock.patch("os.fsync"),
    }
    history = [EpochReport(epoch, {"loss": 0.5}, 0.1, 0.9, 0.9) for epoch in range(1, 21)]
    print("| width | checkpoint and weights | all synced | files only | nothing |")
    print("|---|---|---|---|---|")
    for width in (8, 16, 32):
        weights = torch.rand(round(7.7e6 / 4 * (width / 32) ** 2))
        state = {str(part): weights.clone() for part in range(4)}
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        with tempfile.TemporaryDirectory(dir=disk) as path:
            trial = RunFolder(Path(path) / "run").trial(0)
            for _ in range(rounds):
                for form, patched in forms.items():
                    with patched:
                        started = time.perf_counter()
                        trial.write_history(history)
                        trial.write_best({"weights": weights})
                        trial.write_checkpoint(len(history), state)
                        seconds[form].append(time.perf_counter() - started)
        times = " | ".join(f"{1000 * statistics.median(s):.1f} ms" for s in seconds.values())
        print(f"| {width} | {5 * weights.nbytes / 1e6:.1f} MB | {times} |")


def measure(work: Path, options: argparse.Namespace) -> None:
    log = work / "times"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{HERE}"}
    environment |= {"KDSEARCH_TIMES": str(log), "KDSEARCH_CACHE": str(work / "cache")}
    (work / "space.yaml").write_text(yaml.safe_dump(space_file(options)))
    command = [sys.executable, str(ROOT / "run_search.py"), "--space", str(work / "space.yaml")]
    command += ["--runs-dir", str(work / "runs")]
    # Teacher and beats into the cache, files of Python and torch into memory.
    run([*command, "--name", "warm", "--num-samples", "1"], environment)
    bare = []
    for number in range(3):
        temporary = work / f"r{number}"
        started = time.time()
        run([sys.executable, "-c", BARE, str(options.cpus), str(temporary)], environment)
        bare.append(time.time() - started)
    log.unlink()
    started = time.time()
    run(command, environment)
    show(read(log), started, time.time(), min(bare), options)


def space_file(options: argparse.Namespace) -> dict[str, Any]:
    beats = int(options.beats * 1.9)
    return {
        "method": "timed:TimedBeatGan",
        "data": {
            "source": "simulated",
            "simulated": {"beats": beats},
            "train_limit": options.beats,
        },
        "teacher": {"width": options.width, "epochs": 1},
        "student": {"width": options.width, "epochs": options.epochs},
        "space": {
            "temperature": {"loguniform": [0.25, 8]},
            "alpha": {"loguniform": [0.001, 3]},
            "w_adv": {"loguniform": [0.1, 10]},
            "lr": {"loguniform": [5e-5, 2e-3]},
        },
        "search": {"num_samples": options.trials, "max_concurrent": options.cpus},
        "scheduler": {"name": "none"},
        "confirm": {"top": 0},
        "resources": {"device": "cpu"},
    }


def run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(
        command,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def read(log: Path) -> list[tuple[float, float, str]]:
    lines = (line.split() for line in log.read_text().splitlines())
    return [(float(begun), float(ended), kind) for _, begun, ended, kind in lines]


def show(
    times: list[tuple[float, float, str]],
    started: float,
    ended: float,
    bare: float,
    options: argparse.Namespace,
) -> None:
    first = min(begun for begun, _, _ in times)
    last = max(end for _, end, _ in times)
    spent = {
        kind: sum(end - begun for begun, end, which in times if which == kind)
        for kind in ("train", "validate")
    }
    cores = options.cpus * (last - first)
    each = sum(spent.values()) / options.trials
    print(f"{options.trials} trials of {each:.1f} s, {options.cpus} at a time")
    print(f"from the first step to the last: {last - first:.1f} s")
    print(f"the cores' time spent in training steps: {spent['train'] / cores:.1%}")
    print(f"                        in validation:   {spent['validate'] / cores:.1%}")
    print(f"from the command to the first step: {first - started:.1f} s")
    print(f"    of which to import torch and ray.tune and to start and stop Ray: {bare:.1f} s")
    print(f"    beyond that: {first - started - bare:.1f} s")
    print(f"from the last step to the end, leaderboard and report: {ended - last:.1f} s")


if __name__ == "__main__":
    main()
