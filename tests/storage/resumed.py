"""Open what a crash left with the code that resumes, and compare it with what was promised."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from crash_states import Disk, Tree
from executor import no_repetition
from watched_disk import Operation, Plan, watched

from kdsearch.config.space_file import Config
from kdsearch.errors import UserError
from kdsearch.runs import driver_lock
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.stop_requests import StopRequests
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.tuning.finish import missing_results
from kdsearch.tuning.request import stored_config
from kdsearch.tuning.search import open_trials, read_trials
from kdsearch.tuning.teacher import read_teacher
from kdsearch.tuning.temporary import remove_abandoned
from kdsearch.tuning.workers.training import Training
from kdsearch.tuning.workers.trial import trial_seed

RUN = "disk/runs/kd"
# A second crash is tried after this share of the states, with so many states.
TWICE_SHARE, TWICE = 0.03, 12
# Among the operations of a resume: from here on, its user may see the trials that it read.
READ = ("mark", "read", None)


@dataclass
class Told:
    """What the user has been told, and what programs have written, up to an operation.

    Attributes:
        finished: Each trial's record.
        reported: Each trial's last epoch.
        written: Every content that a file ever had under its own name.
        lines: Every line of metrics, by trial.
    """

    finished: dict[int, TrialRecord] = field(default_factory=dict)
    reported: dict[int, int] = field(default_factory=dict)
    teacher: str = ""
    complete: bool = False
    written: dict[str, set[bytes]] = field(default_factory=dict)
    lines: dict[int, set[bytes]] = field(default_factory=dict)

    def apply(self, operation: Operation, disk: Disk) -> None:
        """Take note of an operation that the disk has done already."""
        match operation:
            case ("mark", "ended", record):
                self.finished[record["number"]] = TrialRecord(**record)
            case ("mark", "reported", (number, epoch)):
                self.reported[number] = max(epoch, self.reported.get(number, 0))
            case ("mark", "teacher", fingerprint):
                self.teacher = fingerprint
            case ("mark", "driver", _):
                self.complete = False
            case ("mark", "complete", _):
                self.complete = True
            case ("rename", _, path):
                content = disk.content(path)
                if content is not None:
                    self.written.setdefault(path, set()).add(content)
                    if path.endswith("metrics.jsonl") and "/trials/" in path:
                        number = int(path.split("/")[-2])
                        self.lines.setdefault(number, set()).update(content.split(b"\n"))

    def saw(self, records: Sequence[TrialRecord]) -> Told:
        """What a user knows who has seen these records too."""
        seen = {record.number: record for record in records if record.finished}
        return replace(self, finished=self.finished | seen)


class Nobody:
    def started(self, suggestion: Suggestion) -> None: ...
    def reported(self, record: TrialRecord, epochs: int) -> None: ...
    def ended(self, number: int, state: TrialState, reason: str) -> None: ...


class Serial:
    """A pool without threads, whose start takes longer than the rest."""

    def __init__(self, _: int) -> None: ...
    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *_: object) -> None: ...

    map = staticmethod(map)


class Opener:
    """A folder in memory that is given one state after the other.

    Args:
        students: Students that a process trained side by side: with more than one, a
            checkpoint may be one epoch older than the last report.
    """

    def __init__(self, students: int = 1) -> None:
        memory = Path("/dev/shm")
        self._path = Path(tempfile.mkdtemp(prefix="k", dir=memory if memory.is_dir() else None))
        self._there: dict[str, object] = {}
        self._lag = 0 if students == 1 else 1
        self._configs: dict[bytes, Config] = {}
        self._whole: set[int] = set()
        self.operations: list[Operation] = []
        self.records: list[TrialRecord] = []

    def close(self) -> None:
        shutil.rmtree(self._path)

    def put(self, tree: Tree) -> None:
        """Make the folder equal to a tree."""
        gone = [path for path in self._there if path not in tree]
        for path in sorted(gone, reverse=True):
            self._remove(path)
        for path in sorted(tree):
            content, there = tree[path], self._there.get(path, 0)
            if there is content or (isinstance(content, bytes) and there == content):
                continue
            if path in self._there and (content is None or there is None):
                self._remove(path)
            if content is None:
                (self._path / path).mkdir(exist_ok=True)
            else:
                (self._path / path).write_bytes(content)
            self._there[path] = content

    def _remove(self, path: str) -> None:
        full = self._path / path
        if self._there[path] is None:
            shutil.rmtree(full, ignore_errors=True)
        else:
            full.unlink(missing_ok=True)
        del self._there[path]

    def violations(self, tree: Tree, told: Told) -> list[str]:
        """Resume from a state, up to the first training; return the promises that are broken.

        What the resume writes is in `operations`, and the trials that it found in `records`.
        """
        self.put(tree)
        self.operations, self.records = [], []
        plan = Plan((str(self._path / "disk"),))
        with watched(plan, self.operations.append) as disk:
            disk.syncs = False
            try:
                found = [*self._resume(RunFolder(self._path / RUN), tree, told)]
            except UserError as error:
                found = [f"refused: {error}"]
            except Exception as error:  # noqa: BLE001
                found = [f"failed: {type(error).__name__}: {error}"]
        self._forget_touched()
        return found

    def _forget_touched(self) -> None:
        for operation in self.operations:
            for path in (part for part in operation[1:3] if isinstance(part, str)):
                if path.startswith("disk/"):
                    full = self._path / path
                    self._there.pop(path, None)
                    if full.is_dir():
                        self._there[path] = None
                    elif full.exists():
                        self._there[path] = object()

    def _resume(self, folder: RunFolder, tree: Tree, told: Told) -> Iterator[str]:
        if not folder.exists():
            if told.finished or told.reported or told.teacher:
                yield "the run is lost"
            return
        for path, content in tree.items():
            name = path.rpartition("/")[2]
            ours = content is not None and not name.endswith((".tmp", ".lock", ".rename"))
            if ours and content not in told.written.get(path, {content}):
                yield f"{path}: it is there, but not as it was written"
        config = self._config(folder)
        with folder.lock():
            remove_abandoned(folder)
            self.records = records = read_trials(folder, config, lambda _: None)
            self.operations.append(READ)
            yield from self._check_finished(records, told)
            yield from self._check_results(folder, config, records, tree, told)
            # A search that has said it is complete ends here.
            if not told.complete:
                yield from self._continue(folder, config, records, told)
            for _, *paths in self.operations:
                for number in told.finished:
                    own = f"{RUN}/trials/{number}"
                    if {f"{own}/trial.json", f"{own}/metrics.jsonl"} & {*map(str, paths)}:
                        yield f"the resume writes files of the finished trial {number}"

    def _continue(
        self, folder: RunFolder, config: Config, records: Sequence[TrialRecord], told: Told
    ) -> Iterator[str]:
        folder.begin_work()
        searcher, _ = open_trials(folder, config, records, Nobody(), StopRequests(folder))
        for _ in [*searcher._unfinished]:
            trial: Any = searcher.suggest(str(len(searcher._running)))
            number, params = trial["number"], trial["params"]
            training = Training(
                config.student_settings(params),
                seed=trial_seed(config, number),
                folder=folder.trial(number, folder.generation, params),
            )
            yield from self._check_unfinished(number, training, told)
            if training.folder.error_file.exists():
                yield f"trial {number} keeps the reason of an earlier try"

    def _config(self, folder: RunFolder) -> Config:
        """Read ``search.yaml``; the same bytes are parsed once."""
        content = folder.config_file.read_bytes() if folder.config_file.exists() else b""
        if content not in self._configs:
            self._configs[content] = stored_config(folder)
        return self._configs[content]

    def _check_finished(self, records: Sequence[TrialRecord], told: Told) -> Iterator[str]:
        found = {r.number: r for r in records}
        if len(found) != len(records):
            yield "a trial is counted twice"
        for number, expected in told.finished.items():
            if number not in found:
                yield f"finished trial {number} is lost"
            elif found[number] != expected:
                yield f"finished trial {number} is {found[number]}, not {expected}"
        orders = [r.order for r in records if r.finished]
        if len(set(orders)) != len(orders):
            yield f"two trials ended at once: {orders}"

    def _check_unfinished(self, number: int, training: Training, told: Told) -> Iterator[str]:
        lines = [json.dumps(asdict(report)).encode() for report in training.history]
        if not set(lines) <= told.lines.get(number, set()):
            yield f"trial {number} goes on from epochs that it never had"
        least = told.reported.get(number, 0) - self._lag
        if number not in told.finished and len(lines) < least:
            yield f"trial {number} goes on from epoch {len(lines)}, not {least}"

    def _check_results(
        self,
        folder: RunFolder,
        config: Config,
        records: Sequence[TrialRecord],
        tree: Tree,
        told: Told,
    ) -> Iterator[str]:
        yield from self._check_weights(folder, config, records, tree)
        around = {
            path: content
            for path, content in tree.items()
            if not path.startswith(f"{RUN}/trials/") and not path.endswith((".tmp", ".lock"))
        }
        key = hash((frozenset(around.items()), told.teacher, told.complete, len(records)))
        if key in self._whole:
            return
        if told.teacher and read_teacher(folder) is None:
            yield "the teacher is lost"
        if told.complete:
            if not folder.concluded:
                yield "the results are lost"
            confirmed = folder.verdict_file.exists()
            if missing := missing_results(folder, config, config.trials, confirmed=confirmed):
                yield f"lost results: {missing}"
        self._whole.add(key)

    def _check_weights(
        self, folder: RunFolder, config: Config, records: Sequence[TrialRecord], tree: Tree
    ) -> Iterator[str]:
        kept = sorted(
            (r for r in records if r.finished and r.state != "failed"),
            key=lambda r: (-r.value, r.number),
        )[: max(config.search.keep_weights, config.confirm.top)]
        for record in kept:
            trial = folder.trial(record.number)
            content = tree.get(f"{RUN}/trials/{record.number}/best.pt")
            key = hash((content, record.best_epoch))
            # Without any it is trained again if it is needed: a better one has failed.
            if content is None or key in self._whole:
                continue
            weights = trial.best_weights()
            if weights.get("epoch", record.best_epoch) != record.best_epoch:
                yield f"trial {record.number} has the weights of epoch {weights['epoch']}"
            self._whole.add(key)


@dataclass
class Explored:
    """What was tried, and the promises that were broken, with the operation before."""

    points: int = 0
    states: int = 0
    twice: int = 0
    distinct: set[int] = field(default_factory=set)
    broken: list[tuple[int, str]] = field(default_factory=list)


def explore(
    operations: Sequence[Operation],
    *,
    count: int,
    seed: int = 0,
    students: int = 1,
    part: tuple[int, int] = (0, 1),
    until: str | None = None,
) -> Explored:
    """Open states of the disk that a crash may leave; equal ones count once.

    Args:
        operations: Of one or several drivers.
        count: About how many are made, without those of a second crash.
        part: Which of how many parts of the crash points.
        until: A text; end with the first broken promise that has it.
    """
    explored, disk, told = Explored(), Disk(), Told()
    opener = Opener(students)
    per_point = math.ceil(count * part[1] / len(operations))
    try:
        with (
            mock.patch("kdsearch.runs.folder.ThreadPoolExecutor", Serial),
            mock.patch("kdsearch.tuning.ledger.ThreadPoolExecutor", Serial),
            mock.patch.object(driver_lock, "_repeated", no_repetition),
        ):
            for index, operation in enumerate(operations):
                disk.apply(operation)
                told.apply(operation, disk)
                if index % part[1] != part[0]:
                    continue
                if until is not None and any(until in text for _, text in explored.broken):
                    break
                explored.points += 1
                chance = random.Random(seed * 1_000_003 + index)
                for nth, tree in enumerate(disk.states(chance, per_point)):
                    if not _open(explored, opener, tree, told, index):
                        continue
                    if nth == 0 and chance.random() < TWICE_SHARE:
                        # A kill, and a power cut in the resume.
                        after = copy.deepcopy(disk)
                        _crash_again(explored, opener, after, told, index, chance)
                    elif chance.random() < TWICE_SHARE:
                        after = Disk.of(tree)
                        _crash_again(explored, opener, after, told, index, chance)
    finally:
        opener.close()
    return explored


def _open(explored: Explored, opener: Opener, tree: Tree, told: Told, index: int) -> bool:
    key = hash(frozenset(tree.items()))
    if key in explored.distinct:
        return False
    explored.distinct.add(key)
    explored.states += 1
    explored.broken += [(index, text) for text in opener.violations(tree, told)]
    return True


def _crash_again(
    explored: Explored,
    opener: Opener,
    disk: Disk,
    told: Told,
    index: int,
    chance: random.Random,
) -> None:
    """Crash in the resume, too; once it has read the trials, its user has seen them."""
    resume, records, left = list(opener.operations), opener.records, TWICE
    told = replace(told, written={})
    for operation in resume:
        disk.apply(operation)
        if operation == READ:
            told = told.saw(records)
        if chance.random() < TWICE / max(TWICE, len(resume)):
            for again in disk.states(chance, 1 + left // 4):
                key = hash(frozenset(again.items()))
                if key not in explored.distinct and left > 0:
                    left -= 1
                    explored.distinct.add(key)
                    explored.twice += 1
                    found = opener.violations(again, told)
                    explored.broken += [(index, f"second crash: {text}") for text in found]
