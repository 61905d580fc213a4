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
  the interval that has 95 % of the searches;
- the same difference if both train as many mini-batches, so that a search that stops trials
  sooner has more of them; they are drawn with replacement.

Ray is not started.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from kdsearch import load_space
from kdsearch.config.space_file import Config, SchedulerSettings
from kdsearch.data import cache_dir, load_dataset
from kdsearch.data.beats import Dataset
from kdsearch.methods.device import resolve_precision
from kdsearch.methods.protocol import Compute, Task
from kdsearch.runs.study import Study
from kdsearch.tuning.rungs import Rungs
from kdsearch.tuning.teacher import TeacherCache
from kdsearch.tuning.workers.training import judge, mini_batches
from kdsearch.tuning.workers.trial import trial_seed

GRACE = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 3)
FACTOR = 3.0
SEARCHES = 1000
Curve = Mapping[float, float]
"""The validation AUC of one trial by epoch, not the best so far."""
Report = tuple[float, float, tuple[float, ...]]
"""The epoch, what the trial has cost up to it, and figures, of which the first is maximised."""


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


def prepared(config: Config) -> tuple[Dataset, Task, Study]:
    """The beats, what students learn from, and what suggests their settings."""
    dataset = load_dataset(config.data, cache_dir())
    compute = Compute("cpu", resolve_precision("auto", "cpu"))
    cache = TeacherCache(cache_dir())
    teacher = cache.get(config.method, config.teacher, dataset, compute, lambda *_: None)
    task = Task(dataset.training, compute, teacher.weights)
    students = [config.student_settings(point) for point in config.corners()]
    task = replace(task, targets=cache.targets(teacher, config.method, students, task))
    return dataset, task, Study(config.space, config.search, [])


def trained(config: Config) -> list[Curve]:
    """Train every trial to its last epoch."""
    _, task, study = prepared(config)
    curves: list[Curve] = []
    for _ in range(config.trials):
        suggestion = study.ask()
        settings = config.student_settings(suggestion.params)
        stack = config.method.student_stack(settings, 1, task)
        stack.put_in(0, settings, seed=trial_seed(config, suggestion.number))
        curve: dict[float, float] = {}
        before = 0
        for epoch in [*fractions(), *range(1, config.max_epochs() + 1)]:
            step = mini_batches(epoch, stack.steps)
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
    print("| grace_period | rank correlation | mini-batches | best val_auc | at equal cost |")
    print("|---|---|---|---|---|")
    chance = np.random.default_rng(0)
    size = round(0.75 * len(curves))
    orders = [chance.permutation(len(curves))[:size] for _ in range(SEARCHES)]
    reference = np.array([replayed(curves, order, 1, last) for order in orders])
    # Long enough for the searches that stop trials soonest.
    longer = [chance.integers(len(curves), size=20 * size) for _ in range(SEARCHES)]
    equal = np.array([replayed(curves, order[:size], 1, last) for order in longer])
    for grace in (g for g in GRACE if g <= last):
        correlation = spearmanr([curve[grace] for curve in curves], final).statistic
        found = np.array([replayed(curves, order, grace, last) for order in orders])
        share = found[:, 0].sum() / reference[:, 0].sum()
        budgets = zip(longer, equal[:, 0], strict=True)
        at_cost = [replayed(curves, order, grace, last, budget)[1] for order, budget in budgets]
        print(
            f"| {grace:g} | {correlation:.2f} | {share:.0%} | "
            f"{spread(found[:, 1] - reference[:, 1])} | {spread(at_cost - equal[:, 1])} |"
        )


def spread(differences: np.ndarray) -> str:
    low, high = np.quantile(differences, (0.025, 0.975))
    return f"{differences.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def replayed(
    curves: Sequence[Curve],
    order: np.ndarray,
    grace: float,
    last: int,
    budget: float = math.inf,
) -> tuple[float, float]:
    """Return the epochs and the best validation AUC of a search of the trials in this order."""
    epochs, (best,) = search(
        (reports(curves[i], grace, last) for i in order), grace, last, budget
    )
    return epochs, best


def reports(curve: Curve, grace: float, last: int) -> Iterator[Report]:
    """The reports of a trial to its last epoch; it costs as much as it has epochs."""
    for epoch in [*scheduler(grace).early_rungs(), *range(1, last + 1)]:
        yield epoch, epoch, (curve[epoch],)


def search(
    trials: Iterable[Iterable[Report]], grace: float, last: int, budget: float = math.inf
) -> tuple[float, tuple[float, ...]]:
    """Replay a search of these trials, one after the other, by their reports.

    Args:
        budget: What it may cost.

    Returns:
        What it cost, and the figures of its best report.
    """
    rungs = Rungs(scheduler(grace), last)
    spent = 0.0
    best: tuple[float, ...] = (0.0,)
    for number, trial in enumerate(trials):
        so_far = cost = 0.0
        for epoch, cost, figures in trial:
            if spent + cost > budget:
                return spent, best
            so_far = max(so_far, figures[0])
            best = max(best, figures)
            if epoch < last and rungs.lags(number, epoch, so_far):
                break
        spent += cost
    return spent, best


if __name__ == "__main__":
    main()
