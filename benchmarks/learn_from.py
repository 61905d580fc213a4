"""Trials that a search needs with and without an earlier search to learn from.

    python benchmarks/learn_from.py --data path/to/mitdb                # fold 1 after fold 0
    python benchmarks/learn_from.py --data path/to/mitdb --wider        # width 16 after width 8

For each seed an earlier search, a later one alone, and a later one that learns from the earlier
one, each with TPE, one trial at a time, every trial trained to its last epoch. ``alone`` and
``with`` are the number of trials after which the later search has reached the best validation
AUC that the search alone reaches at all; a search that never reaches it counts one trial more
than it has. Ray is not used, only the sampler.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from kdsearch import load_space
from kdsearch.config.space_file import Config
from kdsearch.data import cache_dir, load_dataset
from kdsearch.methods.protocol import Compute, Task
from kdsearch.runs.learned import Learned
from kdsearch.runs.study import Study
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.teacher import TeacherCache
from kdsearch.tuning.workers.training import judge
from kdsearch.tuning.workers.trial import trial_seed

CPU = Compute("cpu", "fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="simulated", help="as of run_search.py")
    parser.add_argument("--wider", action="store_true", help="the later students are wider")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--beats", type=int, default=2000)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| seed | earlier best | best alone | best with | alone | with |")
    print("|---|---|---|---|---|---|", flush=True)
    needed: list[tuple[int, int]] = []
    for seed in options.seeds:
        earlier, later = configurations(options, seed)
        before = search(earlier, [])
        alone = search(later, [])
        informed = search(later, [Learned("earlier", tuple(before))])
        goal = best(alone)
        needed.append((trials_to(alone, goal), trials_to(informed, goal)))
        print(
            f"| {seed} | {best(before):.4f} | {goal:.4f} | {best(informed):.4f} | "
            f"{needed[-1][0]} | {needed[-1][1]} |",
            flush=True,
        )
    medians = [statistics.median(column) for column in zip(*needed, strict=True)]
    print(f"median trials: alone {medians[0]:g}, with {medians[1]:g}")


def configurations(options: argparse.Namespace, seed: int) -> tuple[Config, Config]:
    """Both searches; they differ in the fold or in the width, and in the sampler's seed."""
    space = load_space("kd").replace(
        data={"source": options.data, "train_limit": options.beats},
        teacher={"width": options.width, "epochs": 6},
        student={"width": options.width, "epochs": options.epochs},
        search={"num_samples": options.trials, "seed": seed, "startup_trials": 6},
        scheduler={"name": "none"},
    )
    later = space.replace(search={"seed": seed + 1000})
    if options.wider:
        wider = {"width": 2 * options.width}
        return space, later.replace(teacher=wider, student=wider)
    return space, later.replace(data={"fold": 1})


def taught_task(config: Config) -> Task:
    """Return the data of a search with its teacher, trained or cached, and its targets."""
    dataset = load_dataset(config.data, cache_dir())
    cache = TeacherCache(cache_dir())
    teacher = cache.get(config.method, config.teacher, dataset, CPU, lambda *_: None)
    task = Task(dataset.training, CPU, teacher.weights)
    students = [config.student_settings(point) for point in config.corners()]
    return replace(task, targets=cache.targets(teacher, config.method, students, task))


def search(config: Config, learned: Sequence[Learned]) -> list[TrialRecord]:
    task = taught_task(config)
    study = Study(config.space, config.search, [], learned)
    records = []
    for _ in range(config.trials):
        suggestion = study.ask()
        settings = config.student_settings(suggestion.params)
        stack = config.method.student_stack(settings, 1, task)
        stack.put_in(0, settings, seed=trial_seed(config, suggestion.number))
        curve: dict[int | float, float] = {}
        for epoch in range(1, config.max_epochs() + 1):
            auc = judge(stack.advance()[0], task.data.validation).val_auc
            curve[epoch] = max([auc, *curve.values()])
            study.report(suggestion.number, epoch, curve[epoch])
        study.finish(suggestion.number, "completed")
        records.append(TrialRecord(suggestion.number, "completed", suggestion.params, curve))
    return records


def best(records: Sequence[TrialRecord]) -> float:
    return max(record.value for record in records)


def trials_to(records: Sequence[TrialRecord], goal: float) -> int:
    """The number of trials after which the goal is reached."""
    reached = (record.number + 1 for record in records if record.value >= goal)
    return next(reached, len(records) + 1)


if __name__ == "__main__":
    main()
