"""Students of `memory` in a stack, against the same students one after the other.

    python benchmarks/stacks.py                                   # one thread of this CPU
    python benchmarks/stacks.py --threads 2
    python benchmarks/stacks.py --device cuda --students 1 4 16 64

The loop is plain torch: a module, AdamW and clipping for each student. Both train on the same
beats and take turns; each figure is the median of several rounds. On a machine that computes
something else besides, the ratio of CPU times says more than that of wall times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from kdsearch.data.beats import LabelledBeats, TrainingData
from kdsearch.methods.device import autocast, use_threads
from kdsearch.methods.memory import Memory
from kdsearch.methods.memory.settings import StudentSettings
from kdsearch.methods.memory.stack import contrast, score_regression
from kdsearch.methods.protocol import Compute, Targets, Task
from kdsearch.methods.torch_stack import shape_of

STEPS, LENGTH, VALIDATED = 8, 320, 256
METHOD, SETTINGS = Memory(), StudentSettings(init="random", lr=1e-4)
Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--students", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    use_threads(options.threads)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} thread(s)\n")
    print("| precision | students | loop, ms | stack, ms | wall | CPU |")
    print("|---|---|---|---|---|---|")
    data, targets = beats()
    for precision in options.precisions:
        compute = Compute(options.device, precision)
        for students in options.students:
            works = (
                loop(students, data, targets, compute),
                stack(students, data, targets, compute),
            )
            wall, cpu = zip(
                *(timed(works, options.device) for _ in range(options.rounds)), strict=True
            )
            ms = [
                1e3 * statistics.median(w[i] for w in wall) / STEPS / students for i in (0, 1)
            ]
            ratios = [statistics.median(b / a for a, b in times) for times in (wall, cpu)]
            print(
                f"| {precision} | {students} | {ms[0]:.2f} | {ms[1]:.2f} | "
                f"{ratios[0]:.2f} | {ratios[1]:.2f} |",
                flush=True,
            )


def beats() -> tuple[TrainingData, Targets]:
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    n = STEPS * SETTINGS.batch_size // 2
    abnormal = np.arange(VALIDATED) % 2 == 0
    validation = LabelledBeats(
        noise(VALIDATED, 1, LENGTH), abnormal, np.where(abnormal, "V", "N"), None
    )
    targets = {
        "own": noise(n),
        "distorted": noise(SETTINGS.distorted * n, 1, LENGTH),
        "distorted_scores": noise(SETTINGS.distorted * n),
    }
    return TrainingData(noise(n, 1, LENGTH), validation), targets


def stack(students: int, data: TrainingData, targets: Targets, compute: Compute) -> Work:
    """One epoch of a stack."""
    made = METHOD.student_stack(SETTINGS, students, Task(data, compute, {}, targets))
    for slot in range(students):
        made.put_in(slot, SETTINGS, seed=slot)
    return made.advance


def loop(students: int, data: TrainingData, targets: Targets, compute: Compute) -> Work:
    """One epoch of each student."""
    x, own = (torch.tensor(rows).to(compute.device) for rows in (data.train, targets["own"]))
    distorted = torch.tensor(targets["distorted"]).to(compute.device)
    scores = torch.tensor(targets["distorted_scores"]).to(compute.device)
    validation = torch.tensor(data.validation.x).to(compute.device)
    networks = [
        METHOD.network(SETTINGS, shape_of(data)).to(compute.device) for _ in range(students)
    ]
    optimisers = [torch.optim.AdamW(network.parameters(), SETTINGS.lr) for network in networks]

    def epoch() -> None:
        for network, optimiser in zip(networks, optimisers, strict=True):
            for rows in torch.randperm(len(x)).to(compute.device).chunk(STEPS):
                others = torch.randint(len(distorted), (len(rows),), device=compute.device)
                with autocast(compute):
                    found, logits = network(torch.cat([x[rows], distorted[others]]))
                memory = torch.cat([own[rows], scores[others]])
                loss = score_regression(found, memory) + 0.3 * contrast(logits)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
            with torch.inference_mode(), autocast(compute):
                network.score(validation).cpu()

    return epoch


def timed(works: tuple[Work, ...], device: str) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of each."""
    wall, cpu = [], []
    for work in works:
        started, used = time.perf_counter(), time.process_time()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return wall, cpu


if __name__ == "__main__":
    main()
