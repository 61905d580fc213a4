"""Kill one search at many random moments, resume it each time, and compare it with the promise.

    python benchmarks/torture.py --kills 100

The search starts small and is extended whenever it is complete, until it has been killed often
enough; then it is left alone to end. What is checked:

- every trial that was finished before a kill is the same afterwards, to the last digit;
- the search ends with exactly as many trials as were asked for, each of them finished once;
- of all epochs that were computed, few were computed twice.

Prints a table of the kills by the moment that they fell into, and exits with 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "e2e"
sys.path.insert(0, str(TESTS))

from workplace import SPACE, Workplace, kill_all  # noqa: E402

from kdsearch.runs.folder import RunFolder  # noqa: E402
from kdsearch.runs.trial_folder import TrialRecord  # noqa: E402

TEACHER_EPOCHS = 45
STEP = 6
KINDS = ("kill -9 of the driver", "kill -9 of all", "SIGTERM", "SIGINT")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    path, temporary = (Path(tempfile.mkdtemp(prefix="k", dir="/tmp")) for _ in range(2))
    try:
        return Torture(Workplace(path, temporary)).run(options.kills)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


class Torture:
    def __init__(self, place: Workplace) -> None:
        space = SPACE.replace("epochs: 2,", f"epochs: {TEACHER_EPOCHS},")
        place.space.write_text(space.replace("epochs: 5", "epochs: 9"))
        place.environment["FAULTY_PAUSE_S"] = "0.4"
        self.place = place
        self.target = STEP
        self.delay = 0.0
        self.moments: Counter[tuple[str, str]] = Counter()
        self.finished: dict[int, TrialRecord] = {}
        self.broken: list[str] = []

    def run(self, kills: int) -> int:
        start = time.monotonic()
        while sum(self.moments.values()) < kills:
            self.once()
        process = self.start()
        _, err = process.communicate(timeout=1200)
        if process.returncode != 0:
            self.broken.append(f"the last resume failed: {err}")
        self.compare()
        self.check_end()
        self.report(time.monotonic() - start)
        return 1 if self.broken else 0

    def start(self) -> subprocess.Popen[str]:
        flags = ["--num-samples", str(self.target), "--quiet"]
        if (self.place.run / "search.yaml").exists():
            flags.append("--resume")
        return self.place.start(*flags)

    def once(self) -> None:
        """Start or resume, wait for the chosen moment, kill."""
        process, before = self.start(), self.epochs()
        self.wait(process, before)
        if process.poll() is not None:
            self.ended(process)
            return
        moment, kind = self.moment(before), random.choice(KINDS)
        kill(process, kind)
        self.moments[moment, kind] += 1
        self.compare()
        print(f"kill {sum(self.moments.values())}: {kind}, {moment}", flush=True)

    def ended(self, process: subprocess.Popen[str]) -> None:
        if process.returncode == 0:
            self.target += STEP
        else:
            _, err = process.communicate()
            self.broken.append(f"status {process.returncode}: {err}")
            print(f"BROKEN: {err}", flush=True)

    def wait(self, process: subprocess.Popen[str], before: int) -> None:
        """Until a random time after the start, or until just after some epoch."""
        self.delay = 1.0
        if random.random() < 0.2:
            wait_until(lambda: process.poll() is not None, random.uniform(0, 9))
            return
        more = random.choice((1, 1, 2, 3, 5, 8, 12) if self.teacher_done() else (1, 2, 3))
        wait_until(lambda: process.poll() is not None or self.epochs() >= before + more, 60)
        self.delay = random.choice((0, 0.005, 0.02, 0.1, 0.3))
        wait_until(lambda: process.poll() is not None, self.delay)

    def moment(self, before: int) -> str:
        if self.epochs() == before:
            return "before the first epoch of this start"
        if not self.teacher_done():
            return "in the teacher's training"
        if self.delay <= 0.02:
            return "as an epoch is written"
        left = self.target - sum(record.finished for record in self.records())
        return "in the last two trials" if left <= 2 else "in the middle of the trials"

    def teacher_done(self) -> bool:
        return (self.place.run / "teacher.json").exists()

    def epochs(self) -> int:
        log = self.place.path / "epochs.log"
        return log.read_text().count("\n") if log.exists() else 0

    def records(self) -> list[TrialRecord]:
        records = RunFolder(self.place.run).records()
        self.broken += [f"trial {r.number}: {r.reason}" for r in records if damaged(r)]
        return records

    def compare(self) -> None:
        """Nothing that was finished may have changed."""
        now = {record.number: record for record in self.records()}
        for number, record in self.finished.items():
            if now.get(number) != record:
                self.broken.append(f"trial {number} was {record} and is {now.get(number)}")
        self.finished |= {n: record for n, record in now.items() if record.finished}

    def check_end(self) -> None:
        records = self.records()
        if [record.number for record in records] != list(range(self.target)):
            self.broken.append(f"{len(records)} trials in place of {self.target}")
        self.broken += [
            f"trial {r.number} is {r.state}: {r.reason}"
            for r in records
            if r.state not in ("completed", "stopped")
        ]

    def report(self, seconds: float) -> None:
        moments = sorted({moment for moment, _ in self.moments})
        print(f"\n| kill | {' | '.join(moments)} |")
        print(f"|---|{'---|' * len(moments)}")
        for kind in KINDS:
            print(f"| {kind} | {' | '.join(str(self.moments[m, kind]) for m in moments)} |")
        computed = self.place.epochs()
        total, twice = sum(computed.values()), sum(c - 1 for c in computed.values())
        print(
            f"\n{sum(self.moments.values())} kills in {seconds / 60:.0f} min; "
            f"{self.target} trials asked for, {len(self.records())} there, "
            f"{sum(r.finished for r in self.records())} finished; "
            f"{total} epochs computed, {twice} of them twice ({100 * twice / total:.1f} %); "
            f"promises broken: {len(self.broken)}"
        )
        for line in self.broken:
            print(f"BROKEN: {line}")


def damaged(record: TrialRecord) -> bool:
    return record.state == "running" and bool(record.reason)


def kill(process: subprocess.Popen[str], kind: str) -> None:
    if kind == "kill -9 of all":
        kill_all(process)
        return
    signals = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
    process.send_signal(signals.get(kind, signal.SIGKILL))
    started = time.monotonic()
    # A busy machine may need long to end Ray; what never ends is a fault.
    process.communicate(timeout=900)
    if (seconds := time.monotonic() - started) > 60:
        print(f"{kind}: ended after {seconds:.0f} s", flush=True)


def wait_until(condition: object, seconds: float) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
