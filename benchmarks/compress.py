"""The front of AUC and parameters that searches with and without costs find.

    python benchmarks/compress.py

`search_spaces/compress.yaml` with the same limit on parameters and the same number of trials:
with both objectives, with random settings, and with the validation AUC as the only objective,
each with ASHA, one trial at a time. The hypervolume is the area that the front dominates over
the logarithm of the parameters (base 10), from the limit on parameters and an AUC of 0.5. Ray
is not used, only the sampler and ASHA.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from learn_from import taught_task

from kdsearch import load_space
from kdsearch.analysis.leaderboard import front
from kdsearch.config.space_file import Config
from kdsearch.evaluation.costs import StudentCosts, by_name
from kdsearch.runs.study import Study
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.rungs import Rungs
from kdsearch.tuning.workers.training import judge
from kdsearch.tuning.workers.trial import trial_seed

WORST_AUC = 0.5
COST = "parameters"
ARMS: dict[str, dict[str, Any]] = {
    "both objectives": {"objectives": ["val_auc", COST]},
    "random": {"objectives": ["val_auc", COST], "sampler": "random"},
    "val_auc alone": {"objectives": ["val_auc"]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="simulated", help="as of run_search.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--beats", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| seed | {' | '.join(ARMS)} |\n|---|{'---|' * len(ARMS)}", flush=True)
    volumes = []
    for seed in options.seeds:
        row = []
        for settings in ARMS.values():
            config = load_space("compress").replace(
                data={
                    "source": options.data,
                    "train_limit": options.beats,
                    "simulated": {"patients": 12, "beats": 3000},
                },
                teacher={"width": 16, "epochs": 4},
                search={"num_samples": options.trials, "seed": seed, **settings},
            )
            row.append(hypervolume(config, search(config)))
        volumes.append(row)
        print(f"| {seed} | {' | '.join(f'{volume:.4f}' for volume in row)} |", flush=True)
    means = np.mean(volumes, axis=0)
    print(f"| mean | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    for name, mean in list(zip(ARMS, means, strict=True))[1:]:
        print(f"both objectives against {name}: {means[0] / mean - 1:+.1%}")


def search(config: Config) -> list[TrialRecord]:
    task = taught_task(config)
    measured = StudentCosts(config.method, task, timed=False)
    study = Study(
        config.space,
        config.search,
        [],
        cost_of=lambda params: by_name(measured(config.student_settings(params))),
    )
    epochs = config.max_epochs()
    rungs = Rungs(config.scheduler, epochs, config.search.objectives[1:])
    records = []
    for _ in range(config.trials):
        suggestion = study.ask()
        number, settings = suggestion.number, config.student_settings(suggestion.params)
        stack = config.method.student_stack(settings, 1, task)
        stack.put_in(0, settings, seed=trial_seed(config, number))
        curve: dict[int | float, float] = {}
        params, costs = suggestion.params, suggestion.costs
        record = TrialRecord(number, "completed", params, curve, costs=costs)
        for epoch in range(1, epochs + 1):
            auc = judge(stack.advance()[0], task.data.validation).val_auc
            curve[epoch] = max([auc, *curve.values()])
            study.report(number, epoch, curve[epoch])
            if epoch < epochs and rungs.lags(number, epoch, record.value, record.costs):
                record = replace(record, state="stopped")
                break
        study.finish(number, record.state)
        records.append(record)
    return records


def hypervolume(config: Config, records: Sequence[TrialRecord]) -> float:
    """The area between the front, the limit on parameters and the worst AUC."""
    limit = math.log10(config.search.constraints["parameters"].max)
    points = [records[number] for number in front(records, [COST])]
    points.sort(key=lambda record: record.costs[COST])
    volume, best = 0.0, WORST_AUC
    for record in points:
        width = limit - math.log10(record.costs[COST])
        volume += width * max(record.value - best, 0.0)
        best = max(best, record.value)
    return volume


if __name__ == "__main__":
    main()
