"""The plain script: its training in several processes, and whole searches beside it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import against_plain
import numpy as np
import plain
import torch

from gpu_parts.course import made_up
from gpu_parts.part import Part, sizes, timed


def plain_script(part: Part, options: argparse.Namespace) -> None:
    """The plain script's training, by the number of processes that share the device."""
    size, device = sizes(options), options.device
    width = size.network["beatgan"].get("width", 32)
    worker = [sys.executable, str(Path(plain.__file__).with_name("plain_worker.py"))]
    seconds = 0.2 if options.tiny else 4.0
    players = plain.new_players(width, 1e-4, device)
    batch = [(torch.from_numpy(made_up(plain.BATCH).train).to(device), None)]

    def step() -> None:
        next(plain.train(players, batch, device))

    step()
    alone = statistics.median(timed(step, device) for _ in range(3 if options.tiny else 50))
    part.put(published_step_ms=1e3 * alone)
    print(f"the published step alone: {1e3 * alone:.2f} ms\n")
    workers = [
        subprocess.Popen(
            [*worker, device, str(width)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(max(size.processes))
    ]
    try:
        for process in workers:
            answer(process)
        for processes in size.processes:
            for process in workers[:processes]:
                assert process.stdin is not None
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
            rates = [float(answer(process)) for process in workers[:processes]]
            part.row(processes=processes, student_steps_per_s=sum(rates))
    finally:
        for process in workers:
            process.kill()
            process.wait()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the plain script ended")
    return line


def searches(part: Part, options: argparse.Namespace) -> None:
    """Whole commands: a search by kdsearch, and fewer of its trials by the plain script."""
    if any(importlib.util.find_spec(name) is None for name in ("ray", "optuna")):
        print("skipped: needs Ray and Optuna (see gpu_wheels.sh)")
        return part.put(skipped="needs Ray and Optuna")
    size, best = sizes(options), options.plain_processes or best_processes(part)
    settings = argparse.Namespace(
        data=options.data,
        trials=2 if options.tiny else options.trials,
        plain_trials=1 if options.tiny else options.plain_trials,
        epochs=size.epochs,
        width=size.network["beatgan"].get("width", 32),
        beats=size.beats,
        # Measured is the speed, for which any teacher will do.
        teacher_epochs=1,
        cpus=os.cpu_count(),
        gpus_per_trial=0.0 if options.device == "cpu" else 1 / best,
    )
    part.put(epochs=size.epochs, beats=size.beats, plain_processes=best)
    with tempfile.TemporaryDirectory() as work:
        for name, found in against_plain.searches(Path(work), settings):
            part.row(
                script=name,
                trials=len(found["val_auc"]),
                trial_epochs=found["trial_epochs"],
                seconds=found["seconds"],
                trial_epochs_per_hour=3600 * found["trial_epochs"] / found["seconds"],
                mean_val_auc=float(np.mean(found["val_auc"])),
            )
    return None


def best_processes(part: Part) -> int:
    """At which the plain script trained fastest, if that was measured before."""
    rows = part.of("plain").get("rows", [])
    rates = {row["processes"]: row["student_steps_per_s"] for row in rows}
    return max(rates, key=lambda n: rates[n], default=8)
