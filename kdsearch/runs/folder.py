"""The run folder: the only module that knows what lies where in it.

runs/<name>/
  search.yaml        the resolved configuration and the flags that it was started with
  teacher.json       fingerprints, seconds, metrics of the teacher and of its data
  teacher.pt         the teacher's weights: a resume needs no cache
  study.journal      the study: every trial, parameter, epoch and fate; the one truth
  study.json         in its place where the study lies in a database: which one, no password
  evaluation.npz     best student and teacher on validation and test beats, and examples
  costs.json         parameters, operations and time per beat, by trial and of the teacher
  verdict.json       what the confirmation says of the best trials
  report.html        everything on one page that opens without a network
  leaderboard.csv    a row per trial
  search.log         what was logged
  trials/<number>/   trial.json (parameters and fate, a second source beside the study),
                     metrics.jsonl, last.pt (to go on) and best.pt (to score with)
  confirm/<name>/<seed>/  metrics.jsonl, scores.npz and result.json of a configuration that
                     was trained again
  best/              model.pt, config.yaml, metrics.json: what a user takes away

It may lie in a bucket. Then study.journal and search.log lie on the driver's machine, below
its cache, and the bucket has copies; everything else is written into the bucket at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from kdsearch.files.bucket import BucketPath, Place
from kdsearch.runs.driver_lock import BucketRun
from kdsearch.files.cache import cache_dir
from kdsearch.errors import ConfigError, RunError
from kdsearch.files.atomic import (
    DamagedFile,
    load_state,
    remove_leftovers,
    save_state,
    whole_file,
    write_json,
    write_text,
)
from kdsearch.methods.protocol import EpochReport, State
from kdsearch.config.dimensions import Value

T = TypeVar("T")

JOURNAL, LOG = "study.journal", "search.log"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Superseded(Exception):
    """Another driver has taken over the run; this worker belongs to a dead one."""


class RunFolder:
    """One search and its files."""

    def __init__(self, path: Place) -> None:
        """Name a run folder; nothing is read or created."""
        self.path = path
        local = _driver_folder(path) if isinstance(path, BucketPath) else path
        self._local = local
        self._bucket_run: BucketRun | None = None
        self.config_file = path / "search.yaml"
        self.teacher_file = path / "teacher.json"
        self.teacher_weights = path / "teacher.pt"
        self.study_file = local / JOURNAL
        self.database_file = path / "study.json"
        self.report_file = path / "report.html"
        self.costs_file = path / "costs.json"
        self.verdict_file = path / "verdict.json"
        self.evaluation_file = path / "evaluation.npz"
        self.leaderboard_file = path / "leaderboard.csv"
        self.log_file = local / LOG
        self.trials = path / "trials"
        self.best = path / "best"
        self.confirmations = path / "confirm"
        self.scratch = local / ".tune"
        self._generation_file = path / ".generation"
        self._unfinished_file = path / ".unfinished"
        self._temporary_file = local / ".temporary"
        self._tracked_file = path / ".tracked"

    @classmethod
    def named(cls, runs_dir: Place, name: str) -> RunFolder:
        """The run ``name``, which cannot lie outside ``runs_dir``.

        Raises:
            ConfigError: The name is not a plain one.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--name: letters, digits, '.', '_' and '-' are allowed, the first being a "
                f"letter or digit, but found {name!r}"
            )
        return cls(runs_dir / name)

    @classmethod
    def existing(cls, path: Place) -> RunFolder:
        """A run folder to read.

        Raises:
            RunError: ``path`` is none.
        """
        folder = cls(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder")
        if not folder.config_file.is_file():
            raise RunError(f"{path}: not a run folder, it has no {folder.config_file.name}")
        return folder

    def exists(self) -> bool:
        """Whether a search was started here."""
        return self.config_file.exists() or self.has_journal()

    def has_journal(self) -> bool:
        """Whether a journal keeps the study."""
        return (self.path / JOURNAL).exists()

    def own_journal(self) -> Path | None:
        """The journal, for readers of the study.

        None where a database holds the study, and in a bucket, which has but a copy.
        """
        elsewhere = isinstance(self.path, BucketPath) or self.database() is not None
        return None if elsewhere else self.study_file

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other driver out; released by the system when this process dies.

        A bucket has a lock of its own, since this one holds on one machine.

        Raises:
            RunError: Another search runs here, or the folder cannot be written.
        """
        try:
            self._local.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._local / ".lock").acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path}: another search is running in this folder; wait for it, or "
                "choose another --name"
            ) from None
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror or error}"
            ) from None
        with lock, ExitStack() as stack:
            if isinstance(self.path, BucketPath):
                self._bucket_run = BucketRun(self.path, self._local, (JOURNAL, LOG))
                stack.enter_context(self._bucket_run.held())
            yield

    def check_ours(self) -> None:
        """Make sure that no other driver has taken the run from us, as one can in a bucket.

        Raises:
            OSError: One has.
        """
        if self._bucket_run is not None:
            self._bucket_run.check()

    def write_config(self, config: dict[str, Any], flags: dict[str, Any]) -> None:
        """Keep the resolved configuration and the flags of the command line."""
        text = yaml.safe_dump({**config, "flags": flags}, sort_keys=False)
        write_text(self.config_file, text)

    def write_database(self, url: str, study: str) -> None:
        """Keep in which database the study lies, and under which name."""
        write_json(self.database_file, {"url": url, "study": study})

    def database(self) -> tuple[str, str] | None:
        """Which database holds the study, and its name there; None where a journal does.

        Raises:
            RunError: The note of it is damaged.
        """
        if not self.database_file.exists():
            return None
        content = self.read_json(self.database_file)
        try:
            return str(content["url"]), str(content["study"])
        except KeyError as error:
            raise RunError(f"{self.database_file}: damaged: it has no {error}") from None

    def read_json(self, path: Place) -> dict[str, Any]:
        """Read one of the run's JSON files.

        Raises:
            RunError: It is missing or damaged.
        """
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            raise RunError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise RunError(f"{path}: damaged: expected keys and values")
        return content

    def write_teacher(self, weights: State, description: dict[str, Any]) -> None:
        """Keep the teacher, weights first: a description promises that they are there."""
        save_state(self.teacher_weights, weights)
        write_json(self.teacher_file, description)

    def write_leaderboard(self, text: str) -> None:
        """Keep the leaderboard as CSV."""
        write_text(self.leaderboard_file, text)

    def write_verdict(self, verdict: dict[str, Any]) -> None:
        """Keep what the confirmation says."""
        write_json(self.verdict_file, verdict)

    def write_evaluation(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep scores, truth and example beats."""
        with whole_file(self.evaluation_file) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def read_evaluation(self, parse: Callable[[Mapping[str, NDArray[Any]]], T]) -> T | None:
        """Read what `write_evaluation` kept; None where there is nothing.

        Args:
            parse: Makes of the arrays what is returned; raises KeyError, TypeError or
                ValueError where they are not what it needs.

        Raises:
            RunError: The file is damaged.
        """
        if not self.evaluation_file.exists():
            return None
        try:
            content = io.BytesIO(self.evaluation_file.read_bytes())
            with np.load(content, allow_pickle=False) as archive:
                return parse(dict(archive))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise RunError(f"{self.evaluation_file}: cannot be read: {error}") from None

    def write_costs(self, costs: dict[str, Any]) -> None:
        """Keep what scoring costs, by trial and of the teacher."""
        write_json(self.costs_file, costs)

    def write_best(
        self, weights: State, config: dict[str, Any], metrics: dict[str, Any]
    ) -> None:
        """Put together what a user takes away, and swap it in as one.

        In a bucket nothing can be swapped; the metrics come last there and stand for it all.
        """
        text = yaml.safe_dump(config, sort_keys=False)
        if isinstance(self.best, BucketPath):
            (self.best / "metrics.json").unlink(missing_ok=True)
            _write_best(self.best, weights, text, metrics)
            return
        beside = self.best.with_name(".best.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        _write_best(beside, weights, text, metrics)
        shutil.rmtree(self.best, ignore_errors=True)
        beside.rename(self.best)

    def next_generation(self) -> int:
        """Begin a new driver's time: workers of earlier ones may write no longer."""
        generation = self._generation() + 1
        write_text(self._generation_file, f"{generation}\n")
        return generation

    def _generation(self) -> int:
        try:
            return int(self._generation_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    @property
    def concluded(self) -> bool:
        """Whether everything derived from the study stands for all that is in it."""
        return (self.best / "metrics.json").exists() and not self._unfinished_file.exists()

    def begin_work(self) -> None:
        """What is derived from the study is out of date from now on, however this ends."""
        write_text(self._unfinished_file, "")

    def end_work(self) -> None:
        """What is derived from the study is up to date."""
        self._unfinished_file.unlink(missing_ok=True)

    def write_tracked_as(self, name: str) -> None:
        """Keep under which name trackers know this run."""
        write_text(self._tracked_file, name)

    def tracked_as(self) -> str:
        """The name under which trackers know this run, or an empty text."""
        try:
            return self._tracked_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def remember_temporary(self, name: str) -> None:
        """Keep the name of this driver's temporary folder, for its successor to remove."""
        write_text(self._temporary_file, name)

    def remembered_temporary(self) -> str:
        """The name that a killed driver left behind, or an empty text."""
        try:
            return self._temporary_file.read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def forget_temporary(self) -> None:
        """This driver has cleaned up behind itself."""
        self._temporary_file.unlink(missing_ok=True)

    def trial_numbers(self) -> list[int]:
        """Numbers of the trials that have a folder, in order."""
        if not self.trials.is_dir():
            return []
        return sorted(int(p.name) for p in self.trials.iterdir() if p.name.isdecimal())

    def trial(self, number: int, generation: int | None = None) -> TrialFolder:
        """The folder of one trial; writing to it needs the driver's generation."""
        return TrialFolder(self, self.trials / str(number), generation)

    def confirmation(self, name: str, seed: int, generation: int | None = None) -> Confirmation:
        """The folder of one configuration trained again with one seed."""
        path = self.confirmations / name / str(seed)
        return Confirmation(path, TrialFolder(self, path, generation))


@dataclass(frozen=True)
class Checkpoint:
    """Where an unfinished trial can go on.

    Attributes:
        state: The student's own state, for `Stack.put_in`.
        history: The report of every epoch up to here.
    """

    state: State
    history: list[EpochReport]


@dataclass(frozen=True)
class Note:
    """What the driver notes of a trial beside the study, from which a lost study is rebuilt.

    Attributes:
        params: The searched values.
        state: The trial's fate, ``running`` before it is known.
        reason: Why it failed, or an empty text.
    """

    params: dict[str, Value]
    state: str
    reason: str = ""


class TrialFolder:
    """What one trial leaves on disk: its epochs, where to go on, and its best weights."""

    def __init__(self, run: RunFolder, path: Place, generation: int | None) -> None:
        """Name a trial's folder; nothing is read or created."""
        self.path = path
        self.error_file = self.path / "error.txt"
        self.best_file = self.path / "best.pt"
        self._last_file = self.path / "last.pt"
        self._metrics_file = self.path / "metrics.jsonl"
        self._note_file = self.path / "trial.json"
        self._run = run
        self._generation = generation

    def write_note(self, note: Note) -> None:
        """Keep the driver's own note of the trial, a second source beside the study."""
        write_json(self._note_file, asdict(note))

    def note(self) -> Note | None:
        """The driver's note; None where there is none that can be read."""
        try:
            return Note(**json.loads(self._note_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def history(self) -> list[EpochReport]:
        """Every epoch whose line is whole, in order."""
        try:
            lines = self._metrics_file.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        reports: list[EpochReport] = []
        for line in lines:
            report = _parse(line)
            if report is None or report.epoch != len(reports) + 1:
                break
            reports.append(report)
        return reports

    def write(
        self, report: EpochReport, history: list[EpochReport], state: State, best: State | None
    ) -> None:
        """Write one epoch: its line, the best weights if it is the best, the state to go on.

        The state comes last: an epoch counts as kept once the state names it, and whatever
        a kill left of a later one is written again.

        Args:
            report: The epoch just trained.
            history: The epochs before it.
            state: The student's state after it.
            best: The student's weights, if no epoch before was as good.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.write_history([*history, report])
        if best is not None:
            self.write_best(best)
        self.write_checkpoint(report.epoch, state)

    def write_history(self, history: list[EpochReport]) -> None:
        """Write the lines of all epochs.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self._check_generation()
        write_text(self._metrics_file, "".join(json.dumps(asdict(r)) + "\n" for r in history))

    def write_best(self, weights: State) -> None:
        """Write the weights of the best epoch so far."""
        save_state(self.best_file, weights)

    def write_checkpoint(self, epoch: int, state: State) -> None:
        """Write the state after an epoch whose line, and weights if the best, are written.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self._check_generation()
        save_state(self._last_file, {"epoch": epoch, "state": state})

    def checkpoint(self) -> Checkpoint | None:
        """The newest state that is whole and whose epochs are all known; None to begin anew."""
        try:
            last = load_state(self._last_file)
        except (FileNotFoundError, DamagedFile):
            return None
        history = self.history()[: last["epoch"]]
        if len(history) < last["epoch"]:
            return None
        return Checkpoint(last["state"], history)

    def best_weights(self) -> State:
        """The weights of the best epoch.

        Raises:
            RunError: They are missing or damaged.
        """
        try:
            return load_state(self.best_file)
        except FileNotFoundError:
            raise RunError(f"{self.best_file}: no such file") from None
        except DamagedFile as error:
            raise RunError(str(error)) from None

    def reduce(self, *, keep_weights: bool) -> None:
        """Remove what a finished trial does not need."""
        self._last_file.unlink(missing_ok=True)
        if not keep_weights:
            self.best_file.unlink(missing_ok=True)
        remove_leftovers(self.path)

    def write_error(self, reason: str) -> None:
        """Keep why a try failed, for the driver to tell."""
        write_text(self.error_file, reason)

    def take_error(self) -> str:
        """Read why the last try failed, once; empty where the worker died without a word."""
        try:
            reason = self.error_file.read_text()
        except FileNotFoundError:
            return ""
        self.error_file.unlink(missing_ok=True)
        return reason

    def _check_generation(self) -> None:
        if self._generation is not None and self._run._generation() != self._generation:
            raise Superseded(f"{self._run.path}: a newer search has taken over this run")


@dataclass(frozen=True)
class Confirmation:
    """One configuration trained again with one seed.

    Attributes:
        training: Its epochs and where to go on, as of a trial.
    """

    path: Place
    training: TrialFolder

    def result(self) -> dict[str, Any] | None:
        """What came of it; None while it is not finished."""
        try:
            result: dict[str, Any] = json.loads((self.path / "result.json").read_text())
        except (OSError, ValueError):
            return None
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """Keep what came of it; written last, it stands for the scores as well."""
        write_json(self.path / "result.json", result)

    def scores(self) -> dict[str, NDArray[np.float32]]:
        """Scores of the validation and the test beats, each of shape (n,).

        Raises:
            RunError: They are missing or damaged.
        """
        path = self.path / "scores.npz"
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                return {name: archive[name] for name in ("validation", "test")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None

    def write_scores(self, scores: dict[str, NDArray[np.float32]]) -> None:
        """Keep the scores."""
        with whole_file(self.path / "scores.npz") as file:
            np.savez_compressed(file, **scores)  # type: ignore[arg-type]


def _write_best(folder: Place, weights: State, config: str, metrics: dict[str, Any]) -> None:
    save_state(folder / "model.pt", weights)
    write_text(folder / "config.yaml", config)
    write_json(folder / "metrics.json", metrics)


def _driver_folder(path: BucketPath) -> Path:
    """Where a driver on this machine keeps what it cannot append to in a bucket."""
    name = hashlib.sha256(path.url.encode()).hexdigest()[:16]
    return cache_dir() / "drivers" / name


def _parse(line: bytes) -> EpochReport | None:
    try:
        return EpochReport(**json.loads(line))
    except (ValueError, TypeError):
        return None
