"""Whether a faster way of training costs quality: the same students, by seed, both ways.

    python benchmarks/quality.py --data path/to/mitdb

Trains students with the same seeds in float32 and in bfloat16, one thread each, and prints the
test AUC of each one's best epoch by validation, and the mean difference with its 95 %
confidence interval over the seeds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from kdsearch.data import Dataset, cache_dir, load_dataset
from kdsearch.data.settings import DataSettings
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import StudentSettings
from kdsearch.methods.device import use_threads
from kdsearch.methods.protocol import Compute, Task
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import paired_by_seed
from kdsearch.tuning.workers.training import judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="simulated", help="as of run_search.py")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--beats", type=int, default=4000)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    use_threads(1)
    settings = DataSettings(
        source=options.data, split="fold", train_limit=options.beats, validation_limit=4000
    )
    dataset = load_dataset(settings, cache_dir())
    print(dataset.description)
    aucs: dict[str, list[float]] = {"fp32": [], "bf16": []}
    seconds = dict.fromkeys(aucs, 0.0)
    print("| seed | fp32 | bf16 |\n|---|---|---|")
    for seed in range(options.seeds):
        for precision in ("fp32", "bf16"):
            started = time.perf_counter()
            auc = student(dataset, Compute(options.device, precision), seed, options)
            aucs[precision].append(auc)
            seconds[precision] += time.perf_counter() - started
        print(f"| {seed} | {aucs['fp32'][-1]:.4f} | {aucs['bf16'][-1]:.4f} |", flush=True)
    show(aucs, seconds)


def student(
    dataset: Dataset, compute: Compute, seed: int, options: argparse.Namespace
) -> float:
    """Test AUC of the best of its epochs by validation, of a student without distillation."""
    shape = {"width": options.width, "epochs": options.epochs}
    method = BeatGan()
    settings = StudentSettings(**shape, target="none")
    stack = method.student_stack(settings, 1, Task(dataset.training, compute))
    stack.put_in(0, settings, seed=seed)
    best, weights = -1.0, stack.weights(0)
    for _ in range(options.epochs):
        report = judge(stack.advance()[0], dataset.training.validation)
        if report.val_auc > best:
            best, weights = report.val_auc, stack.weights(0)
    scores = method.score(weights, dataset.test.x, compute)
    return rank(scores, dataset.test.abnormal).roc_auc()


def show(aucs: dict[str, list[float]], seconds: dict[str, float]) -> None:
    for precision, found in aucs.items():
        mean, sd = np.mean(found), np.std(found, ddof=1)
        print(f"{precision}: test AUC {mean:.4f} ± {sd:.4f} (sd), {seconds[precision]:.0f} s")
    difference = paired_by_seed(aucs["bf16"], aucs["fp32"])
    print(
        f"bf16 - fp32: {difference.estimate:+.4f}, 95 % confidence interval "
        f"{difference.low:+.4f} to {difference.high:+.4f} over {len(aucs['bf16'])} seeds"
    )


if __name__ == "__main__":
    main()
