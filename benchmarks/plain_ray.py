"""What anyone would write in an afternoon: a search of BeatGAN students with plain Ray Tune.

The alternative that `against_plain.py` measures kdsearch against. A function trainable as in
Ray's documentation: one process per trial, OptunaSearch, ASHAScheduler, a DataLoader over a
TensorDataset, float32, the published step and the published validation (`plain.py`), the
teacher loaded from disk by every trial, a checkpoint per epoch through ``tune.report``. Nothing
here is slowed down on purpose, and nothing is shared with kdsearch.

    python benchmarks/plain_ray.py WORK --epochs 3 --trials 8 --width 32

WORK holds ``beats.npz`` (train, val_x, val_y), ``teacher.pt`` and ``trials.json`` (a list of
settings to try, in order). Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import plain
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train_student(config):
    work, device = Path(config["work"]), config["device"]
    torch.manual_seed(config["seed"])
    beats = np.load(work / "beats.npz")
    x, val_y = torch.from_numpy(beats["train"]), beats["val_y"]
    val = TensorDataset(torch.from_numpy(beats["val_x"]), torch.from_numpy(val_y))
    teacher = plain.generator(config["width"])
    teacher.load_state_dict(torch.load(work / "teacher.pt"))
    teacher.to(device)
    # As published, both scores are held in NumPy and computed before training.
    teacher_scores = plain.scores_of(teacher, x.split(plain.BATCH), device)

    players = g, d, g_adam, d_adam = plain.new_players(config["width"], config["lr"], device)
    temperature = config["temperature"]
    p_teacher = torch.softmax(torch.from_numpy(teacher_scores) / temperature, 0)
    p_student = torch.log_softmax(torch.zeros_like(p_teacher), 0)
    distilled = config["alpha"] * temperature**2
    distilled *= nn.functional.kl_div(p_student, p_teacher, reduction="batchmean")

    train_loader = DataLoader(
        TensorDataset(x, torch.zeros(len(x))), plain.BATCH, shuffle=True, drop_last=True
    )
    val_loader = DataLoader(val, plain.BATCH)
    best = 0.0
    for epoch in range(1, config["epochs"] + 1):
        for _ in plain.train(players, train_loader, device, config["w_adv"], distilled):
            pass
        if config["quick"]:
            found = {"val_auc": plain.quick_auc(g, val_loader, val_y, device)}
        else:
            auc, ap, f1 = plain.validate(g, val_loader, val_y, device)
            found = {"val_auc": auc, "ap": ap, "f1": f1}
        best = max(best, found["val_auc"])
        with tempfile.TemporaryDirectory() as folder:
            state = {"g": g.state_dict(), "d": d.state_dict(), "epoch": epoch}
            state |= {"g_adam": g_adam.state_dict(), "d_adam": d_adam.state_dict()}
            torch.save(state, os.path.join(folder, "checkpoint.pt"))  # noqa: PTH118
            tune.report(
                {**found, "best": best, "epoch": epoch, "clock": time.time()},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="validate in evaluation mode")
    parser.add_argument("--grace-period", type=int, help="default: nothing is stopped early")
    parser.add_argument("--reduction-factor", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    gpu = options.gpus_per_trial > 0
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as temporary:
        ray.init(
            num_cpus=options.cpus,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            log_to_driver=False,
            _temp_dir=temporary,
        )
        space = {
            "temperature": tune.loguniform(0.25, 8),
            "alpha": tune.loguniform(1e-3, 3),
            "w_adv": tune.loguniform(0.1, 10),
            "lr": tune.loguniform(5e-5, 2e-3),
            "epochs": options.epochs,
            "width": options.width,
            "work": str(options.work.resolve()),
            "device": "cuda" if gpu else "cpu",
            "quick": options.quick,
            "seed": tune.randint(0, 2**31),
        }
        points = json.loads((options.work / "trials.json").read_text())
        tuner = tune.Tuner(
            tune.with_resources(train_student, {"cpu": 1, "gpu": options.gpus_per_trial}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="val_auc",
                mode="max",
                search_alg=OptunaSearch(points_to_evaluate=points or None, seed=options.seed),
                scheduler=ASHAScheduler(
                    max_t=options.epochs,
                    # A comparison over equal epochs has its first rung at the last one.
                    grace_period=options.grace_period or options.epochs,
                    reduction_factor=options.reduction_factor,
                ),
                num_samples=options.trials,
            ),
            run_config=tune.RunConfig(storage_path=temporary, name="plain", verbose=0),
        )
        results = tuner.fit()
        epochs = sum(int(result.metrics["epoch"]) for result in results)
        best = [float(result.metrics["best"]) for result in results]
        reports = [
            [row.clock, row.val_auc]
            for result in results
            for row in result.metrics_dataframe.itertuples()
        ]
        ray.shutdown()
    seconds = time.perf_counter() - started
    found = {"trial_epochs": epochs, "seconds": seconds, "val_auc": best}
    print(json.dumps({**found, "reports": sorted(reports)}))


if __name__ == "__main__":
    main()
