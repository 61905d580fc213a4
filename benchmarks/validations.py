"""How often a student should be validated: what the best of more states gains, and its cost.

    python benchmarks/validations.py --space mitbih_cpu --data path/to/mitdb

Trains random settings of a space to their last epoch, and validates each student at equal
distances within every epoch. A trial keeps its best state on the validation beats. Prints for
each ``search.validations_per_epoch``

- the mean validation AUC of the trials' best states, and the mean test AUC of the same states,
  each with the standard error of the mean difference from one validation per epoch;
- the CPU time of a trial, in comparison with one validation per epoch;
- the best validation AUC of searches with ASHA that take the same CPU time, and the test AUC of
  the student that they find, minus those with one validation per epoch: the mean, and the
  interval that has 95 % of the searches. They draw from the same trials with replacement, so
  they are not independent.

The test AUC is of a random part of the test beats. Ray is not started.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from early_rungs import SEARCHES, Report, configuration, prepared, search, spread

from kdsearch.config.space_file import Config
from kdsearch.metrics.ranking import rank
from kdsearch.tuning.workers.training import judge, mini_batches
from kdsearch.tuning.workers.trial import trial_seed

COUNTS = (1, 2, 4)
"""Validations per epoch that are compared; each divides the last."""


@dataclass(frozen=True)
class Trial:
    """One student, trained to its last epoch.

    Attributes:
        validation: AUC after each ``COUNTS[-1]``-th of an epoch.
        test: Likewise, on a part of the test beats.
        epoch_s: CPU time of an epoch's mini-batches.
        validation_s: CPU time of one validation.
    """

    validation: list[float]
    test: list[float]
    epoch_s: float
    validation_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--space", default="mitbih_cpu")
    parser.add_argument("--data", default=None, help="as of run_search.py")
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--beats", type=int, default=None, help="training beats")
    parser.add_argument("--test-beats", type=int, default=5000)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--trials-file", type=Path, help="written, or read if it exists")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.trials_file and options.trials_file.exists():
        trials = [Trial(**trial) for trial in json.loads(options.trials_file.read_text())]
    else:
        trials = trained(configuration(options), options.test_beats)
        if options.trials_file:
            options.trials_file.write_text(json.dumps([asdict(trial) for trial in trials]))
    show(trials)


def trained(config: Config, test_beats: int) -> list[Trial]:
    dataset, task, study = prepared(config)
    some = np.random.default_rng(0).permutation(len(dataset.test.x))[:test_beats]
    x, abnormal = dataset.test.x[some], dataset.test.abnormal[some]
    trials = []
    for _ in range(config.trials):
        suggestion = study.ask()
        settings = config.student_settings(suggestion.params)
        stack = config.method.student_stack(settings, 1, task)
        stack.put_in(0, settings, seed=trial_seed(config, suggestion.number))
        validation, test = [], []
        before, training_s, scoring_s = 0, 0.0, 0.0
        reports = COUNTS[-1] * int(settings.epochs)  # type: ignore[attr-defined]
        for report in range(1, reports + 1):
            now = mini_batches(report / COUNTS[-1], stack.steps)
            started = time.process_time()
            advanced = stack.advance(now - before)[0]
            validation.append(judge(advanced, task.data.validation).val_auc)
            training_s += time.process_time() - started
            weights, before = stack.weights(0), now
            test.append(rank(config.method.score(weights, x, task.compute), abnormal).roc_auc())
            started = time.process_time()
            config.method.score(weights, task.data.validation.x, task.compute)
            scoring_s += time.process_time() - started
        epoch_s = (training_s - scoring_s) * COUNTS[-1] / reports
        trials.append(Trial(validation, test, epoch_s, scoring_s / reports))
        print(f"trial {suggestion.number}: {max(validation):.4f}", flush=True)
    return trials


def show(trials: Sequence[Trial]) -> None:
    epochs = len(trials[0].validation) // COUNTS[-1]
    epoch_s = np.mean([trial.epoch_s for trial in trials])
    validation_s = np.mean([trial.validation_s for trial in trials])
    print(f"{len(trials)} trials of {epochs} epochs, {SEARCHES:,} searches; ", end="")
    print(f"CPU time: an epoch {epoch_s:.1f} s, a validation {validation_s:.2f} s\n")
    print("| validations | val_auc | test AUC | time | search: val_auc | search: test AUC |")
    print("|---|---|---|---|---|---|")
    chance = np.random.default_rng(0)
    size = round(0.75 * len(trials))
    orders = [chance.integers(len(trials), size=4 * size) for _ in range(SEARCHES)]
    once = np.array([best_state(trial, 1) for trial in trials])
    first = [found(trials, order[:size], 1) for order in orders]
    for count in COUNTS:
        states = np.array([best_state(trial, count) for trial in trials])
        mean, error = states.mean(0), (states - once).std(0, ddof=1) / len(trials) ** 0.5
        seconds = (epoch_s + count * validation_s) / (epoch_s + validation_s)
        budgets = zip(orders, first, strict=True)
        gains = np.array(
            [
                np.subtract(found(trials, order, count, budget_s)[1], figures)
                for order, (budget_s, figures) in budgets
            ]
        )
        print(
            f"| {count} | {mean[0]:.4f} ± {error[0]:.4f} | {mean[1]:.4f} ± {error[1]:.4f} | "
            f"{seconds:.2f} | {spread(gains[:, 0])} | {spread(gains[:, 1])} |"
        )


def best_state(trial: Trial, count: int) -> tuple[float, ...]:
    """Return the validation and the test AUC of the best state on the validation beats."""
    return max(figures for _, _, figures in reports(trial, count))


def found(
    trials: Sequence[Trial], order: np.ndarray, count: int, budget_s: float = math.inf
) -> tuple[float, tuple[float, ...]]:
    """Return the CPU time of a search of the trials in this order, and its best state."""
    epochs = len(trials[0].validation) // COUNTS[-1]
    return search((reports(trials[i], count) for i in order), 1, epochs, budget_s)


def reports(trial: Trial, count: int) -> Iterator[Report]:
    """The reports of a trial that is validated so often in each epoch, at a cost in seconds."""
    step = COUNTS[-1] // count
    for n, at in enumerate(range(step - 1, len(trial.validation), step), start=1):
        cost_s = n * (trial.epoch_s / count + trial.validation_s)
        yield n / count, cost_s, (trial.validation[at], trial.test[at])


if __name__ == "__main__":
    main()
