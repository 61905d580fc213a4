"""A teacher's mini-batch with one thread and with two, as the driver trains it.

    python benchmarks/teacher_threads.py

BeatGAN in bfloat16 on simulated beats, in turns. Milliseconds of a mini-batch; the shorter of
two measurements of 20 each.
"""

from __future__ import annotations

import time

from kdsearch import load_space
from kdsearch.data import cache_dir, load_dataset
from kdsearch.methods.device import threads
from kdsearch.methods.protocol import Compute, Task

STEPS, WARM_UP = 20, 3


def main() -> None:
    data = {"source": "simulated", "train_limit": 1600, "validation_limit": 200}
    config = load_space("kd").replace(data=data)
    task = Task(load_dataset(config.data, cache_dir()).training, Compute("cpu", "bf16"))
    print("| width | one thread | two threads |\n|---|---|---|")
    for width in (8, 16, 32):
        settings = config.teacher.model_copy(update={"width": width})
        found: dict[int, list[float]] = {1: [], 2: []}
        for count in (1, 2, 1, 2):
            with threads(count):
                stack = config.method.teacher_stack(settings, task)
                stack.put_in(0, settings, seed=0)
                stack.advance(WARM_UP)
                began = time.perf_counter()
                stack.advance(STEPS)
                found[count].append(1000 * (time.perf_counter() - began) / STEPS)
        print(f"| {width} | {min(found[1]):.1f} ms | {min(found[2]):.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
