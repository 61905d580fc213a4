"""What the end of a search takes: from the last training step to the prompt.

    python benchmarks/end.py --data path/to/mitdb

Fold 0 of MIT-BIH with all validation and test beats, BeatGAN at width 32, untrained weights and
one trial without a confirmation. Prints the seconds for the results and for the report: with
a new teacher in a new process, with the same teacher, whose scores are in the cache then, and
with another new teacher.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import torch

from kdsearch import load_space
from kdsearch.analysis.report import write_html
from kdsearch.analysis.run import open_run
from kdsearch.data import cache_dir, load_dataset
from kdsearch.methods.device import use_threads
from kdsearch.methods.protocol import Compute, EpochReport, State, Task
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.finish import write_results
from kdsearch.tuning.teacher import Teacher
from kdsearch.tuning.workers.trial import TrialInputs

COMPUTE = Compute("cpu", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="mitbih", help="as of run_search.py")
    options = parser.parse_args()
    config = load_space("mitbih").replace(
        data={"source": options.data},
        # Needs no targets, which a search has by then.
        student={"target": "none"},
        search={"num_samples": 1},
        confirm={"top": 0},
    )
    dataset = load_dataset(config.data, cache_dir())
    # What no result is calculated from.
    few = replace(dataset.training, train=dataset.training.train[:6400])
    dataset = replace(dataset, training=few)
    task = Task(few, COMPUTE)

    def weights(seed: int) -> State:
        stack = config.method.teacher_stack(config.teacher, task)
        stack.put_in(0, config.teacher, seed=seed)
        return stack.weights(0)

    history = [EpochReport(1, {}, 1.0, 0.9, 0.5)]
    new, other = (Teacher(uuid4().hex, weights(0), history, found=True) for _ in range(2))
    params = {key: dim.candidates()[0] for key, dim in config.searched().items()}
    record = TrialRecord(0, "completed", params, {1: 0.9})
    beats = f"{len(few.validation.x):,} validation and {len(dataset.test.x):,} test beats"
    print(f"{beats}, {torch.get_num_threads()} threads")
    # As in a search, which gets the teacher before.
    use_threads(torch.get_num_threads())
    print("| | results | report |\n|---|---|---|")
    work = Path(tempfile.mkdtemp())
    try:
        rows = {"new process": new, "same teacher": new, "another teacher": other}
        for name, teacher in rows.items():
            folder = RunFolder(work / name)
            folder.write_config(config.as_dict(), {})
            folder.trial(0).write_record(record)
            folder.trial(0).write_best(weights(1))
            inputs = TrialInputs(
                config, folder.path, "", replace(task, teacher=teacher.weights), 1
            )
            began = time.perf_counter()
            write_results(folder, [record], [], dataset, teacher, inputs, print)
            written = time.perf_counter()
            write_html(open_run(folder.path), work / f"{name}.html")
            shown = time.perf_counter()
            print(f"| {name} | {written - began:.1f} s | {shown - written:.1f} s |", flush=True)
    finally:
        shutil.rmtree(work)
        for teacher in (new, other):
            shutil.rmtree(cache_dir() / "teachers" / teacher.fingerprint, ignore_errors=True)


if __name__ == "__main__":
    main()
