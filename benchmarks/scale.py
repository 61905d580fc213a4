"""What the harness itself costs with trivial trials, by the number of trials.

    python benchmarks/scale.py                      # the parts, 100, 1,000 and 10,000 trials
    python benchmarks/scale.py --whole 100 1000     # whole searches through Ray Tune as well

Prints seconds per trial of every part, fits the growth of its total between the sizes as
n ** exponent (n log n has an exponent of 1.1 over this range), and draws a log-log plot with
``--plot FILE``. Every trial has three epochs; a third of the trials passes each rung.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml

mpl.use("Agg")

import matplotlib.pyplot as plt
from rich.console import Console

from kdsearch.analysis.leaderboard import leaderboard
from kdsearch.config.dimensions import Float
from kdsearch.config.space_file import SchedulerSettings, SearchSettings
from kdsearch.files.bucket import parse_path
from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.folder import READERS, RunFolder
from kdsearch.runs.study import Study
from kdsearch.runs.study_view import StudyView
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.progress import SearchProgress
from kdsearch.tuning.rungs import Rungs

ROOT = Path(__file__).parents[1]
EPOCHS = 3
SPACE = {
    "temperature": Float(0.25, 8, log=True),
    "alpha": Float(1e-3, 3, log=True),
    "w_adv": Float(0.1, 10, log=True),
    "lr": Float(5e-5, 2e-3, log=True),
}
Seconds = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--tpe", type=int, nargs="*", default=None, help="sizes to try TPE at")
    parser.add_argument("--whole", type=int, nargs="*", default=[], help="sizes of searches")
    parser.add_argument("--bucket", help="s3://..., to open runs there as well")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found: dict[str, Seconds] = {}
    for size in options.sizes:
        for part, seconds in parts(size).items():
            found.setdefault(part, {})[str(size)] = seconds
        if options.bucket:
            for part, seconds in bucket(options.bucket, size).items():
                found.setdefault(part, {})[str(size)] = seconds
    for size in options.sizes if options.tpe is None else options.tpe:
        found.setdefault("suggestion (TPE)", {})[str(size)] = tpe(size)
    for size in options.whole:
        found.setdefault("a whole search", {})[str(size)] = whole(size)
    show(found)
    if options.plot:
        draw(found, options.plot)


def parts(size: int) -> Seconds:
    """Seconds of each part over a whole search of so many trials."""
    path = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        return _parts(RunFolder(path / "run"), size)
    finally:
        shutil.rmtree(path)


def _parts(folder: RunFolder, size: int) -> Seconds:
    clock = Clock()
    study = Study(SPACE, SearchSettings(num_samples=size, sampler="random"), [])
    ledger, rungs = new_ledger(study, folder, [], size), new_rungs()
    for _ in range(size):
        with clock("suggestion (random)"):
            suggestion = ledger.study.ask()
        with clock("record"):
            ledger.start(suggestion)
        stopped, history = False, []
        for epoch in range(1, EPOCHS + 1):
            auc = value(suggestion.params, epoch)
            history.append(EpochReport(epoch, {"loss": 0.5}, 0.001, auc, auc))
            with clock("record"):
                folder.trial(suggestion.number).write_history(history)
                ledger.report(
                    suggestion.number,
                    {"epoch": epoch, "epochs": EPOCHS, "best_so_far": auc, "seconds": 0.001},
                )
            with clock("scheduling"):
                stopped = epoch < EPOCHS and rungs.lags(suggestion.number, epoch, auc)
            if stopped:
                break
        with clock("record"):
            ledger.finish(suggestion.number, "stopped" if stopped else "completed")
    with clock("opening"):
        records = folder.records()
    with clock("resume"):
        again = Study(SPACE, SearchSettings(num_samples=size), records)
        new_ledger(again, folder, records, size)
        new_rungs().refill(records)
    with clock("leaderboard"):
        leaderboard(records, list(SPACE)).to_csv(index=False)
    with clock("live study"):
        view = StudyView(folder, SPACE, print)
        view.open(records)
        view.close()
    return clock.seconds


def bucket(url: str, size: int) -> Seconds:
    """Seconds to open a finished search in a bucket, and of as many bare requests beside it."""
    folder = RunFolder(parse_path(f"{url}/{uuid.uuid4().hex}"))

    def write(number: int) -> None:
        record = TrialRecord(number, "completed", {"lr": 1e-3}, {1: 0.5})
        folder.trial(number).write_history([EpochReport(1, {"loss": 0.5}, 0.001, 0.5, 0.5)])
        folder.trial(number).write_record(record)

    def read(number: int) -> bytes:
        return (folder.trials / str(number) / "trial.json").read_bytes()

    clock = Clock()
    with ThreadPoolExecutor(READERS) as threads:
        list(threads.map(write, range(size)))
        with clock("opening (bucket)"):
            records = folder.records()
        with clock("one listing alone (bucket)"):
            folder.trial_files()
        with clock("one GET per trial alone (bucket)"):
            list(threads.map(read, range(size)))
    assert sum(record.finished for record in records) == size
    return clock.seconds


def tpe(size: int) -> float:
    """Seconds of TPE's last ten suggestions, as if all had cost as much."""
    random = Study(SPACE, SearchSettings(num_samples=size, sampler="random"), [])
    records: list[TrialRecord] = []
    for _ in range(size):
        params = random.ask().params
        number = len(records)
        records.append(TrialRecord(number, "completed", params, {1: value(params, 1)}))
    study = Study(SPACE, SearchSettings(num_samples=size, sampler="tpe"), records)
    started = time.perf_counter()
    for _ in range(10):
        study.ask()
    return (time.perf_counter() - started) / 10 * size


def whole(size: int) -> float:
    """Seconds of a search through Ray Tune, as a user starts it."""
    path = Path(tempfile.mkdtemp(prefix="scale-"))
    space = {
        "method": "trivial:Trivial",
        "data": {"source": "simulated", "simulated": {"patients": 6, "beats": 900}},
        "teacher": {"epochs": 1},
        "student": {"epochs": EPOCHS},
        "space": {
            name: {"loguniform": [dimension.low, dimension.high]}
            for name, dimension in SPACE.items()
        },
        "search": {"num_samples": size, "sampler": "random"},
        "confirm": {"top": 0},
        "resources": {"device": "cpu"},
    }
    (path / "space.yaml").write_text(yaml.safe_dump(space))
    command = [sys.executable, str(ROOT / "run_search.py"), "--space", str(path / "space.yaml")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    environment |= {"KDSEARCH_CACHE": str(path / "cache"), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    try:
        subprocess.run(
            [*command, "--runs-dir", str(path / "runs")],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - started
    finally:
        shutil.rmtree(path)


def value(params: dict[str, Any], epoch: int) -> float:
    distance = abs(math.log(params["temperature"])) + abs(math.log(params["lr"] / 1e-3))
    return 0.5 + 0.4 / (1 + distance) + 0.01 * epoch


def new_ledger(
    study: Study, folder: RunFolder, records: list[TrialRecord], size: int
) -> Ledger:
    progress = SearchProgress(Console(quiet=True), size, records)
    return Ledger(
        study, folder, progress, records=records, keep_weights=10, seed_of=lambda number: number
    )


def new_rungs() -> Rungs:
    return Rungs(SchedulerSettings(), EPOCHS)


class Clock:
    """Sums up the seconds of each part."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}

    def __call__(self, part: str) -> _Timing:
        return _Timing(lambda seconds: self._add(part, seconds))

    def _add(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


class _Timing:
    def __init__(self, done: Callable[[float], None]) -> None:
        self._done = done

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._done(time.perf_counter() - self._started)


def show(found: dict[str, Seconds]) -> None:
    sizes = sorted({int(size) for by_size in found.values() for size in by_size})
    print(
        "| seconds per trial | " + " | ".join(f"{n:,} trials" for n in sizes) + " | grows as |"
    )
    print("|---|" + "---|" * (len(sizes) + 1))
    for part, by_size in found.items():
        cells = [f"{by_size[str(n)] / n:.2g}" if str(n) in by_size else "-" for n in sizes]
        print(f"| {part} | " + " | ".join(cells) + f" | {growth(by_size)} |")


def growth(by_size: Seconds) -> str:
    """Of the total between the smallest and the largest size."""
    sizes = sorted(by_size, key=int)
    if len(sizes) < 2:
        return "-"
    ratio = by_size[sizes[-1]] / by_size[sizes[0]]
    return f"n^{math.log(ratio) / math.log(int(sizes[-1]) / int(sizes[0])):.2f}"


def draw(found: dict[str, Seconds], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
    for part, by_size in found.items():
        sizes = sorted(map(int, by_size))
        axes.loglog(sizes, [by_size[str(n)] for n in sizes], marker="o", label=part)
    most = [max(b[str(n)] for b in found.values() if str(n) in b) for n in sizes]
    scale = most[0] / (sizes[0] * math.log(sizes[0]))
    limit = [scale * n * math.log(n) for n in sizes]
    axes.loglog(sizes, limit, "k--", linewidth=1, label="n log n")
    axes.set(xlabel="trials", ylabel="seconds in all", title="The harness's own cost")
    axes.grid(which="both", alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
