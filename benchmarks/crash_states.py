"""Resume a search from disks as a crash may leave them, and compare it with what was promised.

    python benchmarks/crash_states.py --states 100000

Records every write, sync, rename, removal and new folder of small searches: one through Ray
that is extended after its end, and others in this process that die, are resumed and extended.
After each operation it makes disks that a power cut may leave there, and opens each with the
code that resumes; `tests/storage/crash_states.py` says what may be lost. It crashes again in a
part of these resumes. Disks that are equal count once.

Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
STORAGE = TESTS / "storage"
sys.path[:0] = [str(STORAGE), str(TESTS / "e2e")]

from resumed import Explored, explore  # noqa: E402
from searches import record  # noqa: E402
from watched_disk import Operation, Plan, read_record  # noqa: E402
from workplace import SPACE  # noqa: E402

CHANGES = {
    "method: faulty:FaultyBeatGan": "method: beatgan",
    "retries: 2": "retries: 2, keep_weights: 2",
    "top: 0": "top: 1, seeds: 2",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--without-ray", action="store_true", help="leave out the search by Ray"
    )
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    records = []
    if not options.without_ray:
        records.append(("through Ray", 1, recorded_through_ray()))
    for seed in range(options.seed, options.seed + 3):
        for students in (1, 3):
            name = f"{students} a process, seed {seed}"
            records.append((name, students, recorded_here(seed, students)))
    return explored(records, options.states, options.processes, options.seed)


def recorded_through_ray() -> list[Operation]:
    work = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    try:
        (work / "disk").mkdir()
        space = SPACE
        for old, new in CHANGES.items():
            space = space.replace(old, new)
        (work / "kd.yaml").write_text(space)
        plan = Plan((str(work / "disk"),), str(work / "record"))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "KDSEARCH_CACHE": str(work / "disk" / "cache"),
            "TMPDIR": str(work),
            "PYTHONPATH": f"{TESTS.parent}:{STORAGE}",
            **plan.environment(),
        }
        command = [
            *(sys.executable, str(STORAGE / "recorded_search.py"), "--quiet"),
            *("--space", str(work / "kd.yaml"), "--runs-dir", str(work / "disk" / "runs")),
        ]
        for more in ([], ["--resume", "--num-samples", "8"]):
            subprocess.run(
                [*command, *more], env=environment, check=True, stdout=subprocess.DEVNULL
            )
        return read_record(work / "record")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def recorded_here(seed: int, students: int) -> list[Operation]:
    work = Path(tempfile.mkdtemp(prefix="k"))
    try:
        return record(work, seed=seed, students=students, life=150 + 100 * seed)
    finally:
        shutil.rmtree(work)


def explored(
    records: list[tuple[str, int, list[Operation]]], states: int, processes: int, seed: int
) -> int:
    """Open the states in some processes; print a table and return the exit status."""
    started, before, broken = time.monotonic(), children_cpu_seconds(), Counter[str]()
    # About a third of them are equal; those of a second crash are a quarter.
    share = 1.5 * states / sum(len(operations) for _, _, operations in records)
    print("| search | operations | crash points | disks | of them after a second crash |")
    print("|---|---|---|---|---|")
    total = 0
    with multiprocessing.Pool(processes) as pool:
        for name, students, operations in records:
            tasks = [
                (operations, share * len(operations) / processes, seed, students, n, processes)
                for n in range(processes)
            ]
            parts = pool.starmap(part, tasks)
            opened = sum(p.states + p.twice for p in parts)
            total += opened
            print(
                f"| {name} | {len(operations)} | {sum(p.points for p in parts)} "
                f"| {opened:,} | {sum(p.twice for p in parts):,} |",
                flush=True,
            )
            for p in parts:
                broken.update(f"{name}: after operation {at}: {text}" for at, text in p.broken)
    seconds = time.monotonic() - started
    spent = children_cpu_seconds() - before
    print(
        f"\n{total:,} disks opened in {seconds:.0f} s by {processes} processes "
        f"({spent:.0f} s of CPU time); promises broken: {sum(broken.values())}"
    )
    for text, count in broken.most_common(20):
        print(f"BROKEN {count} times: {text}")
    return 1 if broken else 0


def children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def part(
    operations: list[Operation], count: float, seed: int, students: int, nth: int, of: int
) -> Explored:
    logging.disable(logging.WARNING)
    # Little here is in cycles, and looking for them takes a part of the time.
    gc.set_threshold(100_000, 20, 20)
    found = explore(operations, count=int(count), seed=seed, students=students, part=(nth, of))
    found.distinct = set()
    return found


if __name__ == "__main__":
    sys.exit(main())
