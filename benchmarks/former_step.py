"""The engine's step of one student on one CPU thread, against the per-student path before it.

    python benchmarks/former_step.py

Takes the former package from git (the parent of 4f91aac, "Train students in fixed slots with
batched matrix products") under another name, so that both steps run in one process, in turns,
in the thread's own time. Printed is the median of the ratios of neighbouring steps, with their
quartiles: other work on the machine slows both.
"""

from __future__ import annotations

import argparse
import importlib
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from step import BATCH, Step, beats, lean

from kdsearch.methods.device import Precision, use_threads
from kdsearch.methods.protocol import Compute

FORMER = "4f91aac^"
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    use_threads(1)
    print("| precision | width | former, ms | engine, ms | engine / former | quartiles |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        extract(Path(folder))
        sys.path.insert(0, folder)
        for precision in options.precisions:
            for width in options.widths:
                compare(width, precision, options.rounds)


def extract(folder: Path) -> None:
    """Write the former package as ``former``."""
    command = ["git", "archive", FORMER, "kdsearch"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    (folder / "kdsearch").rename(folder / "former")
    for file in (folder / "former").rglob("*.py"):
        file.write_text(file.read_text().replace("kdsearch", "former"))


def compare(width: int, precision: Precision, rounds: int) -> None:
    steps = former(width, precision), lean(width, 1, Compute("cpu", precision))
    times: tuple[list[float], list[float]] = [], []
    for i in range(rounds + 4):
        for which in (0, 1) if i % 2 else (1, 0):
            started = time.thread_time()
            steps[which]()
            if i >= 4:
                times[which].append(time.thread_time() - started)
    old, new = (1e3 * statistics.median(some) for some in times)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios)
    print(
        f"| {precision} | {width} | {old:.1f} | {new:.1f} | {middle:.2f} | "
        f"{low:.2f} to {high:.2f} |",
        flush=True,
    )


def former(width: int, precision: str) -> Step:
    names = ("networks", "optimiser", "step")
    networks, optimiser, step = (
        importlib.import_module(f"former.methods.beatgan.{name}") for name in names
    )
    compute = importlib.import_module("former.methods.protocol").Compute("cpu", precision)
    architecture = networks.Architecture(width, 50, 1, 320)

    def new(kind: Any) -> Any:
        made = networks.build(kind, architecture, 1, "cpu")
        made.load_state_dict(
            networks.initial_state(kind, architecture, torch.Generator().manual_seed(0)),
            strict=False,
        )
        return made

    made = [new(kind) for kind in (networks.Generator, networks.Discriminator)]
    players = step.Players(*made, *(optimiser.StackedAdam(n, [1e-4], 0.5) for n in made))
    x, rows = beats("cpu").unsqueeze(1), torch.zeros(BATCH, 1, dtype=torch.long)
    weights = step.Weights(torch.ones(1), torch.zeros(1))
    return lambda: step.train_step(
        players, rows, x, weights=weights, distillation={}, compute=compute
    )


if __name__ == "__main__":
    main()
