"""What all parts share: their sizes, where they write, and the time of one call."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdsearch.files.atomic import write_json

# Characters of a cell.
WIDEST = 160


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        network: Settings of a network, by method.
        students: Sizes of stacks.
        steps: Mini-batches in an epoch whose steps are timed.
        copied: Bytes of each of the two tensors that measure the bandwidth.
        product: Rows of the square matrices that measure the rate of products.
        processes: Of the plain script, at once on the device.
        beats: Training beats of the searches and of the epochs between checkpoints.
        epochs: Of each trial of the searches.
    """

    network: dict[str, dict[str, Any]]
    students: tuple[int, ...]
    steps: int
    copied: int
    product: int
    processes: tuple[int, ...]
    beats: int
    epochs: int


FULL = Sizes(
    network={"beatgan": {}, "memory": {}},
    students=(1, 4, 16, 64),
    steps=40,
    copied=2**32,
    product=8192,
    processes=(1, 2, 4, 8, 16),
    beats=8000,
    epochs=3,
)
TINY = Sizes(
    network={
        "beatgan": {"width": 2, "latent": 4, "batch_size": 8},
        "memory": {"width": 8, "depth": 1, "components": 4, "batch_size": 16, "distorted": 1},
    },
    students=(1, 2),
    steps=2,
    copied=2**20,
    product=64,
    processes=(1, 2),
    beats=64,
    epochs=1,
)


class Part:
    """Where a part writes what it finds, and until when it may run."""

    def __init__(self, name: str, found: dict[str, Any], file: Path, until: float) -> None:
        self.until = until
        self._found, self._file = found, file
        self._own = found[name] = {"state": "running", "started": time.time()}
        print(f"\n## {name}\n", flush=True)
        self.put()

    def put(self, **values: Any) -> None:
        """Add values to what was found, on disk at once."""
        self._own.update(values)
        write_json(self._file, self._found)

    def row(self, table: str = "rows", **cells: Any) -> None:
        """Print and add a row of a table; the first one prints the header too."""
        rows = self._own.setdefault(table, [])
        if not rows:
            print("| " + " | ".join(cells) + " |\n|" + "---|" * len(cells))
        print("| " + " | ".join(map(shown, cells.values())) + " |", flush=True)
        rows.append(cells)
        self.put()

    def of(self, name: str) -> dict[str, Any]:
        """What another part found."""
        return self._found.get(name, {})

    def left(self) -> float:
        """Seconds until the part has to end."""
        return self.until - time.time()


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    # The name of a kernel has what it calculates at its end.
    text = str(value)
    return text if len(text) <= WIDEST else f"{text[:30]}...{text[33 - WIDEST :]}"


def sizes(options: argparse.Namespace) -> Sizes:
    return TINY if options.tiny else FULL


def fastest(action: Callable[[], object], device: str, rounds: int = 10) -> float:
    return min(timed(action, device) for _ in range(rounds))


def timed(action: Callable[[], object], device: str) -> float:
    """Seconds until the device has done it."""
    synchronise(device)
    started = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
