"""Run random histories of a search, each to its end, and check what was promised.

    python benchmarks/histories.py --examples 10000

A history is a sequence of: a report, stop, failure or end of a trial; a lost worker, packer or
driver; a power cut; a failing disk; a second driver; a signal; a resume; more trials; a moved
folder; a damaged file. `tests/storage/histories.py` says what is real and what is checked.

Prints the number of histories and events. If a promise was broken, it exits with 1 and prints
the shortest history that it found.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import ClassVar

STORAGE = Path(__file__).parents[1] / "tests" / "storage"
sys.path.insert(0, str(STORAGE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=20, help="at most so many events in each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    started = time.monotonic()
    each = -(-options.examples // options.processes)
    tasks = [
        (each, options.steps, options.seed * 1000 + number)
        for number in range(options.processes)
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        results = pool.starmap(run, tasks)
    events: Counter[str] = Counter()
    for counted, _ in results:
        events.update(counted)
    print("| event | times |")
    print("|---|---|")
    for name, count in events.most_common():
        print(f"| {name} | {count:,} |")
    broken = [text for _, text in results if text]
    print(
        f"\n{events['begin']:,} histories, {sum(events.values()):,} events in "
        f"{time.monotonic() - started:.0f} s by {options.processes} processes; "
        f"promises broken: {len(broken)}"
    )
    for text in broken:
        print(text)
    return 1 if broken else 0


def run(examples: int, steps: int, seed: int) -> tuple[Counter[str], str]:
    """Run some histories; return how often each event happened, and a failure's text."""
    # The tests' module of this name, which comes first in the path.
    from histories import History  # type: ignore[attr-defined]  # noqa: PLC0415
    from hypothesis import HealthCheck, settings  # noqa: PLC0415
    from hypothesis import seed as seeded  # noqa: PLC0415
    from hypothesis.stateful import run_state_machine_as_test  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    events: Counter[str] = Counter()

    @seeded(seed)
    class Counted(History):  # type: ignore[misc]
        counted: ClassVar[Counter[str]] = events

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Counted, settings=chosen)
    except BaseException:  # noqa: BLE001
        return events, traceback.format_exc()
    return events, ""


if __name__ == "__main__":
    sys.exit(main())
