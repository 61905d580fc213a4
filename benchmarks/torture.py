"""Kill one search at many random moments, resume it each time, and compare it with the promise.

    python benchmarks/torture.py --kills 100
    python benchmarks/torture.py --kills 100 --max-concurrent 1
    python benchmarks/torture.py --kills 20 --signal TERM

The search starts small and is extended whenever it is complete, until it has been killed often
enough; then it is left alone to end. A second search of as many trials is never interrupted.
What is checked:

- every trial that was finished before a kill is the same afterwards, to the last digit;
- the search ends with exactly as many trials as were asked for, each of them finished once;
- a kill costs a trial, and the teacher, at most the epoch that was running: no epoch is
  computed again whose successor had been computed before;
- of all epochs that were computed, at most 5 % were computed twice;
- with one trial at a time both searches have the same leaderboard, byte for byte, without its
  seconds;
- with two trials at a time, each trial has the settings that a search would suggest that has
  seen the same trials end; where both searches have seen the same, these are equal.

With ``--signal TERM`` every interruption is a SIGTERM with 30 s of grace, as a pre-empted
machine sends it, and no epoch may be computed twice.

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
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

TESTS = Path(__file__).parents[1] / "tests" / "e2e"
sys.path.insert(0, str(TESTS))

from workplace import SPACE, Workplace, kill_all  # noqa: E402

from kdsearch.config.space_file import Config  # noqa: E402
from kdsearch.runs.folder import RunFolder  # noqa: E402
from kdsearch.runs.study import Study  # noqa: E402
from kdsearch.runs.trial_folder import TrialRecord  # noqa: E402
from kdsearch.tuning.request import stored_config  # noqa: E402

TEACHER_EPOCHS = 45
STEP = 20
GRACE_S = 30
AT_MOST_TWICE = 0.05
KINDS = ("kill -9 of the driver", "kill -9 of all", "SIGTERM", "SIGINT")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--max-concurrent", type=int, choices=(1, 2), default=2)
    parser.add_argument("--signal", choices=("TERM",), help="nothing but this one, with grace")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    # A shell's background job ignores Ctrl-C, and what it starts would as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folders = [Path(tempfile.mkdtemp(prefix="k", dir="/tmp")) for _ in range(4)]
    interrupted, whole = Workplace(*folders[:2]), Workplace(*folders[2:])
    try:
        kinds = ("SIGTERM",) if options.signal else KINDS
        torture = Torture(interrupted, whole, options.max_concurrent, kinds)
        return torture.run(options.kills)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


class Torture:
    def __init__(
        self, place: Workplace, whole: Workplace, at_a_time: int, kinds: Sequence[str]
    ) -> None:
        space = SPACE.replace("epochs: 2,", f"epochs: {TEACHER_EPOCHS},")
        space = space.replace("epochs: 5", "epochs: 9")
        for workplace in (place, whole):
            workplace.space.write_text(space.replace("retries: 2", "startup_trials: 4"))
        place.environment |= {"FAULTY_PAUSE_S": "0.15", "KDSEARCH_GRACE_S": str(GRACE_S)}
        self.place = place
        self.whole = whole
        self.at_a_time = at_a_time
        self.kinds = kinds
        self.target = STEP
        self.delay = 0.0
        # After how many lines of the log of epochs each kill came, and its moment.
        self.kills: list[tuple[int, str]] = []
        self.moments: Counter[tuple[str, str]] = Counter()
        self.finished: dict[int, TrialRecord] = {}
        self.broken: list[str] = []

    def run(self, kills: int) -> int:
        start = time.monotonic()
        while len(self.kills) < kills:
            self.once()
        process = self.start()
        _, err = process.communicate(timeout=1200)
        if process.returncode != 0:
            self.broken.append(f"the last resume failed: {err}")
        self.compare()
        self.check_end()
        seconds = time.monotonic() - start
        same = self.against_the_whole()
        self.report(seconds, same)
        return 1 if self.broken else 0

    def start(self) -> subprocess.Popen[str]:
        return self.place.start(*self.flags(), "--quiet", "--resume", "auto")

    def flags(self) -> list[str]:
        return [f"--num-samples={self.target}", f"--max-concurrent={self.at_a_time}"]

    def once(self) -> None:
        """Start or resume, wait for the chosen moment, kill."""
        process, before = self.start(), self.epochs()
        self.wait(process, before)
        if process.poll() is not None:
            self.ended(process)
            return
        moment, kind = self.moment(before), random.choice(self.kinds)
        self.kill(process, kind)
        self.moments[moment, kind] += 1
        self.kills.append((self.epochs(), moment))
        self.compare()
        print(f"kill {len(self.kills)}: {kind}, {moment}", flush=True)

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
        more = random.choice((1, 2, 5, 10, 20, 40) if self.teacher_done() else (1, 5, 10))
        wait_until(lambda: process.poll() is not None or self.epochs() >= before + more, 600)
        self.delay = random.choice((0, 0.005, 0.02, 0.1, 0.3))
        wait_until(lambda: process.poll() is not None, self.delay)

    def kill(self, process: subprocess.Popen[str], kind: str) -> None:
        if kind == "kill -9 of all":
            kill_all(process)
            return
        signals = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
        process.send_signal(signals.get(kind, signal.SIGKILL))
        started = time.monotonic()
        # A busy machine may need long to end Ray; what never ends is a fault.
        process.communicate(timeout=900)
        seconds = time.monotonic() - started
        if len(self.kinds) == 1 and seconds > GRACE_S:
            self.broken.append(f"{kind}: ended after {seconds:.0f} s, later than {GRACE_S} s")
        elif seconds > 60:
            print(f"{kind}: ended after {seconds:.0f} s", flush=True)

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
        return len(self.log())

    def log(self) -> list[tuple[int, int, int]]:
        """Trial, epoch and process of each epoch computed; trial -1 is the teacher."""
        log = self.place.path / "epochs.log"
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        fields = [[int(text) for text in line.split()] for line in lines]
        return [(trial, epoch, process) for trial, epoch, _, process in fields]

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

    def twice(self) -> Counter[str]:
        """How many epochs were computed twice, by the moment of the kill that cost them."""
        costs: Counter[str] = Counter()
        last: dict[int, tuple[int, int, int]] = {}
        for line, (trial, epoch, process) in enumerate(self.log()):
            before, its_line, its_process = last.get(trial, (0, 0, 0))
            if epoch == before and process != its_process:
                costs[next((m for at, m in self.kills if at > its_line), "no kill")] += 1
            elif epoch != before + 1:
                self.broken.append(f"trial {trial}: epoch {epoch} comes after epoch {before}")
            last[trial] = epoch, line, process
        return costs

    def against_the_whole(self) -> str:
        """Compare the search with one that was never interrupted, and say what is the same."""
        done = self.whole.search(*self.flags(), "--quiet")
        if done.returncode != 0:
            self.broken.append(f"the uninterrupted search failed: {done.stderr}")
            return ""
        if self.at_a_time == 1:
            if decisions(self.place.run) != decisions(self.whole.run):
                self.broken.append("the leaderboards differ")
            return f"leaderboards of {self.target} trials compared byte for byte"
        ours, theirs = self.records(), RunFolder(self.whole.run).records()
        config = stored_config(RunFolder(self.place.run))
        self.broken += [
            f"trial {record.number}: not the settings that its history suggests"
            for record in ours
            if record.params != suggested(record, ours, config)
        ]
        alike = [
            a.number
            for a, b in zip(ours, theirs, strict=True)
            if seen(a, ours) == seen(b, theirs)
        ]
        self.broken += [
            f"trial {number}: other settings after the same history"
            for number in alike
            if ours[number].params != theirs[number].params
        ]
        return (
            f"settings of {len(ours)} trials suggested again from the trials that had ended "
            f"before, and of {len(alike)} compared with those of the uninterrupted search"
        )

    def report(self, seconds: float, same: str) -> None:
        moments = sorted({moment for moment, _ in self.moments})
        costs = self.twice()
        log = self.log()
        share = sum(costs.values()) / len(log)
        if share > (0 if len(self.kinds) == 1 else AT_MOST_TWICE):
            self.broken.append(f"{100 * share:.1f} % of the epochs were computed twice")
        print(f"\n| kill | {' | '.join(moments)} |")
        print(f"|---|{'---|' * len(moments)}")
        for kind in self.kinds:
            print(f"| {kind} | {' | '.join(str(self.moments[m, kind]) for m in moments)} |")
        print(f"| epochs that they cost | {' | '.join(str(costs[m]) for m in moments)} |")
        print(
            f"\n{len(self.kills)} kills in {seconds / 60:.0f} min; "
            f"{self.target} trials asked for, {len(self.records())} there, "
            f"{sum(r.finished for r in self.records())} finished; "
            f"{len(log)} epochs computed, {sum(costs.values())} of them twice "
            f"({100 * share:.1f} %); {same}; promises broken: {len(self.broken)}"
        )
        for line in self.broken:
            print(f"BROKEN: {line}")


def damaged(record: TrialRecord) -> bool:
    return record.state == "running" and bool(record.reason)


def decisions(run: Path) -> str:
    """The leaderboard without its seconds."""
    table = pd.read_csv(run / "leaderboard.csv", dtype=str)
    return table.drop(columns="seconds").to_csv(index=False)


def seen(trial: TrialRecord, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """What had ended when a trial was suggested, in the order of endings, without times."""
    ended = [r for r in records if r.ended <= trial.began]
    ended.sort(key=lambda record: record.order or 0)
    return [TrialRecord(r.number, r.state, r.params, r.curve) for r in ended]


def suggested(
    trial: TrialRecord, records: Sequence[TrialRecord], config: Config
) -> dict[str, object]:
    """Settings that a search suggests which has seen the same trials end."""
    ended = {record.number for record in seen(trial, records)}
    earlier = [
        record
        if record.number in ended
        else TrialRecord(record.number, "running", record.params)
        for record in records[: trial.number]
    ]
    return dict(Study(config.space, config.search, earlier).ask().params)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
