"""kdsearch against the script that anyone would write: trial-epochs per hour and their ratio.

    python benchmarks/against_plain.py --data path/to/mitdb
    python benchmarks/against_plain.py --data path/to/mitdb --gpus-per-trial 0.0625   # on a GPU

Both sides search the same beats with the same trials (settings and number of epochs; nothing is
stopped early), one after the other on the same machine: kdsearch as a user starts it,
`plain_ray.py` likewise. Both teachers are trained before. Wall time is that of the whole
command, imports, Ray's start, evaluation and reports included. With ``--gpus-per-trial`` both
use the GPU; give the share at which the plain script is fastest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plain
import torch
import yaml

from kdsearch.data import cache_dir, load_dataset
from kdsearch.data.settings import DataSettings
from kdsearch.files.atomic import load_state
from kdsearch.methods.protocol import State
from kdsearch.runs.folder import RunFolder

HERE = Path(__file__).parent
ROOT = HERE.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="simulated", help="as of run_search.py")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--plain-trials", type=int, help="default: as many")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--beats", type=int, default=8000, help="training beats")
    parser.add_argument("--teacher-epochs", type=int, default=10, help="as of mitbih_cpu")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, help="of the plain script")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        show(dict(searches(work, options)), options)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def searches(work: Path, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """What either search found, one after the other."""
    space = work / "plain.yaml"
    space.write_text(yaml.safe_dump(space_file(options)))
    run = RunFolder(work / "runs" / "plain")
    ours = [sys.executable, str(ROOT / "run_search.py"), "--space", str(space)]
    ours += ["--runs-dir", str(run.path.parent)]
    # Once with a single trial, so that beats and teacher lie in the cache.
    timed([*ours, "--name", "warm", "--num-samples", "1"])
    seconds = timed(ours)
    records = run.records()
    yield (
        "kdsearch",
        {
            "trial_epochs": sum(record.epochs for record in records),
            "seconds": seconds,
            "val_auc": [record.value for record in records],
        },
    )
    prepare_plain(work, run, records, options)
    script = [sys.executable, str(HERE / "plain_ray.py"), str(work)]
    script += ["--trials", str(options.plain_trials or options.trials)]
    for name in ("epochs", "width", "cpus", "gpus_per_trial"):
        script += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    started = time.perf_counter()
    done = subprocess.run(
        script, check=True, stdout=subprocess.PIPE, text=True, env=environment()
    )
    found = json.loads(done.stdout.splitlines()[-1])
    yield "plain Ray Tune", {**found, "seconds": time.perf_counter() - started}


def space_file(options: argparse.Namespace) -> dict[str, Any]:
    network = {"width": options.width, "latent": 50}
    return {
        "data": data_settings(options).model_dump(),
        "teacher": {**network, "epochs": options.teacher_epochs},
        "student": {**network, "epochs": options.epochs},
        "space": {
            "temperature": {"loguniform": [0.25, 8]},
            "alpha": {"loguniform": [0.001, 3]},
            "w_adv": {"loguniform": [0.1, 10]},
            "lr": {"loguniform": [5e-5, 2e-3]},
        },
        "search": {"num_samples": options.trials, "sampler": "random"},
        "scheduler": {"name": "none"},
        "confirm": {"top": 0},
        "resources": {"device": "cuda" if options.gpus_per_trial else "cpu"},
    }


def data_settings(options: argparse.Namespace) -> DataSettings:
    return DataSettings(
        source=options.data, split="fold", train_limit=options.beats, validation_limit=4000
    )


def prepare_plain(
    work: Path, run: RunFolder, records: list[Any], options: argparse.Namespace
) -> None:
    """The same beats, a teacher of the same shape, the same settings, as plain files."""
    data = load_dataset(data_settings(options), cache_dir()).training
    truth = data.validation.abnormal.astype(np.int64)
    np.savez(work / "beats.npz", train=data.train, val_x=data.validation.x, val_y=truth)
    torch.save(plain_weights(load_state(run.teacher_weights)), work / "teacher.pt")
    trials = [{**record.params, "seed": record.number} for record in records]
    (work / "trials.json").write_text(json.dumps(trials))


def plain_weights(teacher: State) -> State:
    """The same values under the plain script's names; it counts batches besides."""
    width = teacher["architecture"]["width"]
    state = plain.generator(width).state_dict()
    first_layer = {"encoder1": 0, "decoder": len(plain.encoder(width, plain.LATENT))}
    for name, value in teacher["generator"].items():
        part, _, layer, kind = name.split(".")
        state[f"{first_layer[part] + int(layer)}.{kind}"] = value
    return state


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    return time.perf_counter() - started


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def show(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    print(
        f"{options.trials} trials of {options.epochs} epochs, {options.beats:,} beats, width "
        f"{options.width}, {options.cpus} CPUs, "
        f"{'one GPU' if options.gpus_per_trial else 'no GPU'}\n"
    )
    print("| | trial-epochs | seconds | trial-epochs per hour | mean best val_auc |")
    print("|---|---|---|---|---|")
    rates = {}
    for name, one in found.items():
        rates[name] = 3600 * one["trial_epochs"] / one["seconds"]
        print(
            f"| {name} | {one['trial_epochs']} | {one['seconds']:.0f} | {rates[name]:.0f} | "
            f"{np.mean(one['val_auc']):.3f} |"
        )
    print(f"\nratio: {rates['kdsearch'] / rates['plain Ray Tune']:.1f}")


if __name__ == "__main__":
    main()
