"""What anyone would write in an afternoon: a search of BeatGAN students with plain Ray Tune.

The alternative that `against_plain.py` measures kdsearch against. A function trainable as in
Ray's documentation: one process per trial, OptunaSearch, ASHAScheduler, a DataLoader over a
TensorDataset, float32, the published step and the published validation, the teacher loaded from
disk by every trial, a checkpoint per epoch through ``tune.report``. Nothing here is slowed down
on purpose, and nothing is shared with kdsearch.

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
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LATENT, BATCH = 50, 64


def encoder(width, outputs):
    layers = [nn.Conv1d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for i in range(4):
        layers += [
            nn.Conv1d(width * 2**i, width * 2 ** (i + 1), 4, 2, 1, bias=False),
            nn.BatchNorm1d(width * 2 ** (i + 1)),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return [*layers, nn.Conv1d(width * 16, outputs, 10, 1, 0, bias=False)]


def decoder(width):
    layers = [
        nn.ConvTranspose1d(LATENT, width * 16, 10, 1, 0, bias=False),
        nn.BatchNorm1d(width * 16),
        nn.ReLU(inplace=True),
    ]
    for i in range(4, 0, -1):
        layers += [
            nn.ConvTranspose1d(width * 2**i, width * 2 ** (i - 1), 4, 2, 1, bias=False),
            nn.BatchNorm1d(width * 2 ** (i - 1)),
            nn.ReLU(inplace=True),
        ]
    return [*layers, nn.ConvTranspose1d(width, 1, 4, 2, 1, bias=False), nn.Tanh()]


class Discriminator(nn.Module):
    def __init__(self, width):
        super().__init__()
        layers = encoder(width, 1)
        self.features = nn.Sequential(*layers[:-1])
        self.classifier = nn.Sequential(layers[-1], nn.Sigmoid())

    def forward(self, x):
        features = self.features(x)
        return self.classifier(features).view(-1), features


def generator(width):
    return nn.Sequential(*encoder(width, LATENT), *decoder(width))


def initialise(layer):
    if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
        nn.init.xavier_normal_(layer.weight)
    elif isinstance(layer, nn.BatchNorm1d):
        layer.weight.data.normal_(1.0, 0.02)
        layer.bias.data.fill_(0)


def scores_of(network, x, device):
    with torch.no_grad():
        parts = [((network(b.to(device)) - b.to(device)) ** 2).mean((1, 2)).cpu() for b in x]
    return torch.cat(parts).numpy()


def validate(network, loader, labels, device):
    """As published: every threshold is tried."""
    scores = scores_of(network, (batch for batch, _ in loader), device)
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    best_f1 = max(f1_score(labels, scores >= t) for t in np.unique(scores))
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), best_f1


def train_student(config):
    work, device = Path(config["work"]), config["device"]
    torch.manual_seed(config["seed"])
    beats = np.load(work / "beats.npz")
    x, val_y = torch.from_numpy(beats["train"]), beats["val_y"]
    val = TensorDataset(torch.from_numpy(beats["val_x"]), torch.from_numpy(val_y))
    teacher = generator(config["width"])
    teacher.load_state_dict(torch.load(work / "teacher.pt"))
    teacher.to(device)
    # As published, both scores are held in NumPy and computed before training.
    teacher_scores = scores_of(teacher, x.split(BATCH), device)

    g, d = generator(config["width"]).to(device), Discriminator(config["width"]).to(device)
    g.apply(initialise)
    d.apply(initialise)
    g_adam = torch.optim.Adam(g.parameters(), lr=config["lr"], betas=(0.5, 0.999))
    d_adam = torch.optim.Adam(d.parameters(), lr=config["lr"], betas=(0.5, 0.999))
    bce, mse = nn.BCELoss(), nn.MSELoss()
    temperature = config["temperature"]
    p_teacher = torch.softmax(torch.from_numpy(teacher_scores) / temperature, 0)
    p_student = torch.log_softmax(torch.zeros_like(p_teacher), 0)
    distilled = config["alpha"] * temperature**2
    distilled *= nn.functional.kl_div(p_student, p_teacher, reduction="batchmean")

    train_loader = DataLoader(
        TensorDataset(x, torch.zeros(len(x))), BATCH, shuffle=True, drop_last=True
    )
    val_loader = DataLoader(val, BATCH)
    best = 0.0
    for epoch in range(1, config["epochs"] + 1):
        for batch, _ in train_loader:
            real = batch.to(device)
            ones, zeros = (torch.full((len(real),), v, device=device) for v in (1.0, 0.0))
            # Discriminator
            d.zero_grad()
            judged_real, _ = d(real)
            fake = g(real)
            judged_fake, _ = d(fake)
            loss_d = bce(judged_real, ones) + bce(judged_fake, zeros)
            loss_d.backward()
            d_adam.step()
            # Generator
            g.zero_grad()
            fake = g(real)
            _, features_fake = d(fake)
            _, features_real = d(real)
            adversarial = mse(features_fake, features_real)
            loss_g = mse(fake, real) + config["w_adv"] * adversarial + distilled
            loss_g.backward()
            g_adam.step()
            if loss_d.item() < 5e-6:
                d.apply(initialise)
        auc, ap, f1 = validate(g, val_loader, val_y, device)
        best = max(best, auc)
        with tempfile.TemporaryDirectory() as folder:
            state = {"g": g.state_dict(), "d": d.state_dict(), "epoch": epoch}
            state |= {"g_adam": g_adam.state_dict(), "d_adam": d_adam.state_dict()}
            torch.save(state, os.path.join(folder, "checkpoint.pt"))  # noqa: PTH118
            tune.report(
                {"val_auc": auc, "best": best, "ap": ap, "f1": f1, "epoch": epoch},
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
            "seed": tune.randint(0, 2**31),
        }
        points = json.loads((options.work / "trials.json").read_text())
        tuner = tune.Tuner(
            tune.with_resources(train_student, {"cpu": 1, "gpu": options.gpus_per_trial}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="val_auc",
                mode="max",
                search_alg=OptunaSearch(points_to_evaluate=points),
                # The comparison is over equal epochs: the first rung is the last epoch.
                scheduler=ASHAScheduler(max_t=options.epochs, grace_period=options.epochs),
                num_samples=options.trials,
            ),
            run_config=tune.RunConfig(storage_path=temporary, name="plain", verbose=0),
        )
        results = tuner.fit()
        epochs = sum(int(result.metrics["epoch"]) for result in results)
        best = [float(result.metrics["best"]) for result in results]
        ray.shutdown()
    seconds = time.perf_counter() - started
    print(json.dumps({"trial_epochs": epochs, "seconds": seconds, "val_auc": best}))


if __name__ == "__main__":
    main()
