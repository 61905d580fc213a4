"""One process of the plain script's training: its steps a second, as often as it is asked.

Started by `gpu_parts/against.py` with a device and a width. Prints a line when it is ready;
then, for each line with a number of seconds, trains so long and prints the steps a second.
"""

from __future__ import annotations

import itertools
import sys
import time

import plain
import torch
from torch.utils.data import DataLoader, TensorDataset

BEATS = 20 * plain.BATCH


def main() -> None:
    device, width = sys.argv[1], int(sys.argv[2])
    players = plain.new_players(width, 1e-4, device)
    x = torch.rand(BEATS, 1, 320) * 2 - 1
    loader = DataLoader(
        TensorDataset(x, torch.zeros(BEATS)), plain.BATCH, shuffle=True, drop_last=True
    )
    epochs = itertools.chain.from_iterable(iter(lambda: loader, None))
    steps = plain.train(players, epochs, device)
    for _ in range(3):
        next(steps)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, started, done = float(line), time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            next(steps)
            done += 1
        print(done / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
