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
from kdsearch.methods.protocol import Compute, Method, Stack, State
from kdsearch.metrics.ranking import rank

PUBLISHED = {"test_auc": 0.9458, "test_ap": 0.9108}
# Seconds for the scores of the test beats, at the end.
RESERVE_S = 15


def quality(part: Part, options: argparse.Namespace) -> None:
    """BeatGAN as published, several seeds in one stack; validation chooses each one's epoch."""
    size = sizes(options)
    epochs = options.epochs or (2 if options.tiny else 100)
    seeds = 2 if options.tiny else options.seeds
    limits = {"train_limit": 64, "validation_limit": 64} if options.tiny else {}
    data = load_dataset(DataSettings(source=options.data, split="fold", **limits), cache_dir())
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
        reports = stack.advance()
        slowest = max(slowest, time.perf_counter() - started)
        for k, report in reports.items():
            if not isinstance(report, Exception) and report.val_auc > best[k]:
                best[k], chosen[k], weights[k] = report.val_auc, epoch, stack.weights(k)
        part.row(
            table="epochs",
            epoch=epoch,
            seconds=time.perf_counter() - started,
            val_auc=[
                round(getattr(reports.get(k), "val_auc", math.nan), 5) for k in range(seeds)
            ],
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
    method, network = BeatGan(), size.network["beatgan"]
    teachers = method.teacher_settings(**network)
    # Its weights are not used, but say of which shape the students are.
    teacher = method.teacher_stack(teachers, data, compute)
    teacher.put_in(0, teachers, seed=0)
    settings = method.student_settings(**network, target="none", alpha=0)
    stack = method.student_stack(
        settings,
        seeds,
        data=data,
        teacher=teacher.weights(0),
        targets={},
        compute=compute,
    )
    for seed in range(seeds):
        stack.put_in(seed, settings, seed=seed)
    return method, stack
