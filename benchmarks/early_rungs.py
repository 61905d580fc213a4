"""How early a trial can be judged: many searches with ASHA, replayed over the same trials.

    python benchmarks/early_rungs.py --space kd --width 8
    python benchmarks/early_rungs.py --space mitbih_cpu --data path/to/mitdb --width 8

Trains random settings of a space to their last epoch, and validates them at fractions of the
first epoch and after each epoch. Then searches are replayed: each takes three of four trials in
random order, one at a time, and ASHA stops them by what they had reached. Prints for each grace
period

- the rank correlation of what the trials have reached at the first rung with what they reach;
- the mini-batches that a search trains, in comparison with ``grace_period: 1``;
- its best validation AUC, minus that of the same search with ``grace_period: 1``: the mean, and
  the interval that has 95 % of the searches.

Ray is not started.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from kdsearch import load_space
from kdsearch.config.space_file import Config, SchedulerSettings
from kdsearch.data import cache_dir, load_dataset
from kdsearch.methods.device import resolve_precision
from kdsearch.methods.protocol import Compute, Task
from kdsearch.runs.study import Study
from kdsearch.tuning.rungs import Rungs
from kdsearch.tuning.teacher import TeacherCache
from kdsearch.tuning.workers.training import judge
from kdsearch.tuning.workers.trial import trial_seed

GRACE = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 3)
FACTOR = 3.0
SEARCHES = 1000
Curve = Mapping[float, float]
"""The validation AUC of one trial by epoch, not the best so far."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--space", default="kd")
    parser.add_argument("--data", default=None, help="as of run_search.py")
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--beats", type=int, default=None)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--curves", type=Path, help="written, or read if it exists")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = configuration(options)
    if options.curves and options.curves.exists():
        lists = json.loads(options.curves.read_text())
        curves: list[Curve] = [dict(pairs) for pairs in lists]
    else:
        curves = trained(config)
        if options.curves:
            options.curves.write_text(json.dumps([[*curve.items()] for curve in curves]))
    show(curves, config)


def configuration(options: argparse.Namespace) -> Config:
    data = {"source": options.data, "train_limit": options.beats}
    student = {"width": options.width, "epochs": options.epochs}
    space = load_space(options.space)
    width = {} if space.method.name == "memory" else {"width": options.width}
    return space.replace(
        data={key: value for key, value in data.items() if value is not None},
        teacher={key: value for key, value in width.items() if value is not None},
        student={key: value for key, value in student.items() if value is not None},
        search={"num_samples": options.trials, "sampler": "random"},
    )


def scheduler(grace: float) -> SchedulerSettings:
    return SchedulerSettings(grace_period=grace, reduction_factor=FACTOR)


def fractions() -> list[float]:
    """The rungs within the first epoch of all grace periods."""
    rungs = [scheduler(grace).early_rungs() for grace in GRACE]
    return sorted({rung for early in rungs for rung in early})


def trained(config: Config) -> list[Curve]:
    """Train every trial to its last epoch."""
    dataset = load_dataset(config.data, cache_dir())
    compute = Compute("cpu", resolve_precision("auto", "cpu"))
    cache = TeacherCache(cache_dir())
    teacher = cache.get(config.method, config.teacher, dataset, compute, lambda *_: None)
    task = Task(dataset.training, compute, teacher.weights)
    students = [config.student_settings(point) for point in config.corners()]
    task = replace(task, targets=cache.targets(teacher, config.method, students, task))
    study = Study(config.space, config.search, [])
    curves = []
    for _ in range(config.trials):
        suggestion = study.ask()
        settings = config.student_settings(suggestion.params)
        stack = config.method.student_stack(settings, 1, task)
        stack.put_in(0, settings, seed=trial_seed(config, suggestion.number))
        curve: dict[float, float] = {}
        before = 0
        for epoch in [*fractions(), *range(1, config.max_epochs() + 1)]:
            step = math.ceil(epoch * stack.steps)
            if step > before:
                auc = judge(stack.advance(step - before)[0], task.data.validation).val_auc
            curve[epoch], before = auc, step
        curves.append(curve)
        print(f"trial {suggestion.number}: {max(curve.values()):.4f}", flush=True)
    return curves


def show(curves: Sequence[Curve], config: Config) -> None:
    last = config.max_epochs()
    final = [max(auc for epoch, auc in curve.items() if epoch >= 1) for curve in curves]
    print(f"{len(curves)} trials of {last} epochs, {SEARCHES:,} searches\n")
    print("| grace_period | rank correlation | mini-batches | best val_auc |")
    print("|---|---|---|---|")
    reference = replayed(curves, 1, last)
    for grace in (g for g in GRACE if g <= last):
        reached = [curve[grace] for curve in curves]
        correlation = spearmanr(reached, final).statistic
        found = replayed(curves, grace, last)
        share = found[:, 0].sum() / reference[:, 0].sum()
        difference = found[:, 1] - reference[:, 1]
        low, high = np.quantile(difference, (0.025, 0.975))
        print(
            f"| {grace:g} | {correlation:.2f} | {share:.0%} | "
            f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f}) |"
        )


def replayed(curves: Sequence[Curve], grace: float, last: int) -> np.ndarray:
    """Epochs and best validation AUC of each search, shape (searches, 2)."""
    settings = scheduler(grace)
    reports = [*settings.early_rungs(), *range(1, last + 1)]
    chance = np.random.default_rng(0)
    rows = []
    for _ in range(SEARCHES):
        order = chance.permutation(len(curves))[: round(0.75 * len(curves))]
        rungs = Rungs(settings, last)
        epochs, best = 0.0, 0.0
        for number in order:
            so_far = 0.0
            for epoch in reports:
                so_far = max(so_far, curves[number][epoch])
                if epoch < last and rungs.lags(int(number), epoch, so_far):
                    break
            epochs, best = epochs + epoch, max(best, so_far)
        rows.append((epochs, best))
    return np.array(rows)


if __name__ == "__main__":
    main()
