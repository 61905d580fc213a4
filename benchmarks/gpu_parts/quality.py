"""BeatGAN at the published size and length."""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np

from gpu_parts.part import Part, Sizes, sizes
from kdsearch.data import DataSettings, TrainingData, cache_dir, load_dataset
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.protocol import Compute, Method, Stack, State, Task
from kdsearch.metrics.ranking import rank

PUBLISHED = {"test_auc": 0.9458, "test_ap": 0.9108}
# Seconds for the scores of the test beats, at the end.
RESERVE_S = 15


def quality(part: Part, options: argparse.Namespace) -> None:
    """BeatGAN as published, several seeds in one stack; validation chooses each one's epoch."""
    size = sizes(options)
    epochs = options.epochs or (2 if options.tiny else 100)
    seeds = 2 if options.tiny else options.seeds
    settings = DataSettings(source=options.data, split="fold")
    if options.tiny:
        settings = settings.model_copy(update={"train_limit": 64, "validation_limit": 64})
    data = load_dataset(settings, cache_dir())
    part.put(data=data.description, precision=options.precision, epochs_wanted=epochs)
    print(f"{data.description}\n")
    compute = Compute(options.device, options.precision)
    method, stack = published_stack(data.training, seeds, size, compute)
    best = np.full(seeds, -1.0)
    weights: list[State] = [{}] * seeds
    chosen = [0] * seeds
    slowest = 0.0
    for epoch in range(1, epochs + 1):
        if part.left() < RESERVE_S + 1.5 * slowest:
            break
        started = time.perf_counter()
        trained = stack.advance()
        slowest = max(slowest, time.perf_counter() - started)
        val_auc = np.full(seeds, math.nan)
        for k, of_seed in trained.items():
            if np.isfinite(of_seed.scores).all():
                val_auc[k] = rank(of_seed.scores, data.training.validation.abnormal).roc_auc()
            if val_auc[k] > best[k]:
                best[k], chosen[k], weights[k] = val_auc[k], epoch, stack.weights(k)
        part.row(
            table="epochs",
            epoch=epoch,
            seconds=time.perf_counter() - started,
            val_auc=val_auc.round(5).tolist(),
        )
    print()
    for k in np.flatnonzero(chosen).tolist():
        ranking = rank(method.score(weights[k], data.test.x, compute), data.test.abnormal)
        part.row(
            table="seeds",
            seed=k,
            best_epoch=chosen[k],
            val_auc=float(best[k]),
            test_auc=ranking.roc_auc(),
            test_ap=ranking.average_precision(),
        )
    for figure in ("test_auc", "test_ap"):
        values = [row[figure] for row in part.of("quality")["seeds"]]
        mean, sd = statistics.mean(values), statistics.stdev(values)
        part.put(**{figure: {"mean": mean, "sd": sd}})
        print(
            f"{figure}: {mean:.4f} ± {sd:.4f} (sd of {seeds} seeds), "
            f"published {PUBLISHED[figure]}"
        )


def published_stack(
    data: TrainingData, seeds: int, size: Sizes, compute: Compute
) -> tuple[Method, Stack]:
    """Students without a teacher's help, which are BeatGANs as published."""
    method = BeatGan()
    network = size.network["beatgan"]
    settings = method.student_settings(**network, target="none", alpha=0)
    stack = method.student_stack(settings, seeds, Task(data, compute))
    for seed in range(seeds):
        stack.put_in(seed, settings, seed=seed)
    return method, stack
