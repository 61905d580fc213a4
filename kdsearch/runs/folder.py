"""The run folder: this module and `trial_folder` define the location of every file.

runs/<name>/
  search.yaml        the resolved configuration, and what the command line overrides in it
  learned.json       the trials of earlier runs that the sampler learns from, if there are any
  teacher.json       fingerprints, seconds, metrics of the teacher and of its data
  teacher.pt         the teacher's weights: a resume needs no cache
  trials/<number>/   the record of each trial, see `kdsearch.runs.trial_folder`
  confirm/<name>/<seed>/  metrics.jsonl, scores.npz and result.json of a configuration that
                     was trained again
  best/              model.safetensors, config.yaml, README.md (its model card), metrics.json,
                     validation.npz: the student for use
  evaluation.npz     best student and teacher on validation and test beats, and examples
  costs.json         parameters, operations and time per beat, by trial and of the teacher
  verdict.json       result of the confirmation of the best trials
  report.html        everything on one page that opens without a network
  leaderboard.csv    a row per trial
  generations/<n>/   the run folder of each generation; descent.json, their result
  study.journal      the trials as an Optuna study, for optuna-dashboard; a view
  search.log         the log
  .stop/             requests of ``kdsearch stop``, see `kdsearch.runs.stop_requests`

It may be in a bucket. Then study.journal and search.log are on the driver's machine, in its
cache, because objects cannot be appended to; the log is copied into the bucket.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from kdsearch.config.dimensions import Value
from kdsearch.errors import ConfigError, RunError
from kdsearch.files.atomic import (
    make_folder,
    names_in_folders,
    put_folder,
    remove,
    save_arrays,
    save_state,
    sync,
    sync_folders,
    write_bytes,
    write_json,
    write_text,
)
from kdsearch.files.bucket import CONNECTIONS, BucketPath, Place
from kdsearch.files.cache import cache_dir
from kdsearch.files.reading import read_arrays, reading
from kdsearch.files.tensors import save_tensors
from kdsearch.methods.protocol import State
from kdsearch.metrics.ranking import Metric
from kdsearch.runs.derived import SHAPES
from kdsearch.runs.driver_lock import Claim, DriverLock, claims_on, log_copied, refused
from kdsearch.runs.learned import Learned, from_json, to_json
from kdsearch.runs.trial_folder import (
    Confirmation,
    TrialFolder,
    TrialRecord,
    in_one_line,
    is_trial,
)

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Folders read at the same time: each file in a bucket takes a request.
READERS = CONNECTIONS
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunFolder:
    """One search and its files."""

    def __init__(self, path: Place) -> None:
        """Name a run folder; nothing is read or created."""
        self.path = path
        if isinstance(path, BucketPath):
            # Where a driver on this machine keeps what it cannot append to in a bucket.
            name = hashlib.sha256(path.url.encode()).hexdigest()[:16]
            local = cache_dir() / "drivers" / name
        else:
            local = path
        self._local = local
        self._driver_lock: DriverLock | None = None
        self.config_file = path / "search.yaml"
        self.learned_file = path / "learned.json"
        self.teacher_file = path / "teacher.json"
        self.teacher_weights = path / "teacher.pt"
        self.study_file = local / "study.journal"
        self.report_file = path / "report.html"
        self.costs_file = path / "costs.json"
        self.verdict_file = path / "verdict.json"
        self.evaluation_file = path / "evaluation.npz"
        self.leaderboard_file = path / "leaderboard.csv"
        self.log_file = local / "search.log"
        self.trials = path / "trials"
        self.best = path / "best"
        self.descent_file = path / "descent.json"
        self.confirmations = path / "confirm"
        self.scratch = local / ".tune"
        self._generation_file = path / ".generation"
        self._unfinished_file = path / ".unfinished"
        self._temporary_file = local / ".temporary"
        self._identity_file = path / ".id"

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
        return self.config_file.exists() or self.trials.is_dir()

    @contextmanager
    def lock(self, say: Callable[[str], None] = logger.info) -> Iterator[None]:
        """Keep every other driver out, those of other machines as well.

        Args:
            say: Called with a line if another driver may be dead, and is waited for.

        Raises:
            RunError: Another search runs here, or the folder cannot be written.
        """
        try:
            make_folder(self._local)
            # Released by the system when this process dies.
            file_lock = FileLock(self._local / ".lock").acquire(timeout=0)
            # What an earlier driver wrote is read and shown from now on: a power cut must not
            # undo what a kill left unsynced.
            sync(self._local.parent)
            sync_folders(self._local)
        except Timeout:
            claims: dict[str, Claim] = {}
            with suppress(OSError):
                claims = claims_on(self.path)
            raise refused(self.path, claims) from None
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror or error}"
            ) from None
        with file_lock, ExitStack() as stack:
            self._driver_lock = DriverLock(self.path, self._local, say)
            stack.enter_context(self._driver_lock.held())
            if isinstance(self.path, BucketPath):
                target = self.path / self.log_file.name
                stack.enter_context(log_copied(self.log_file, target, self._driver_lock))
            yield

    def check_ours(self) -> None:
        """Raise an OSError if another driver has taken the run over."""
        if self._driver_lock is not None:
            self._driver_lock.check()

    @property
    def generation(self) -> str:
        """The token of this driver, without which its workers cannot write epochs."""
        if self._driver_lock is None:
            raise RuntimeError("only the driver that holds the lock has a token")
        return self._driver_lock.token

    def write_config(self, config: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Write the resolved configuration, and the keys that the command line overrides."""
        self.check_ours()
        text = yaml.safe_dump({**config, "overrides": overrides}, sort_keys=False)
        write_text(self.config_file, text)

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

    def read_derived(self, path: Place) -> dict[str, Any]:
        """Read a JSON file that is made from the trials; empty if there is none.

        Raises:
            RunError: It is damaged.
        """
        if not path.exists():
            return {}
        content = self.read_json(path)
        try:
            SHAPES[path.name].validate_python(content)
        except ValidationError as error:
            raise RunError(f"{path}: damaged: {in_one_line(error)}") from None
        return content

    def write_learned(self, learned: list[Learned]) -> None:
        """Write ``learned.json``: what the sampler learns from earlier runs."""
        self.check_ours()
        write_text(self.learned_file, to_json(learned))

    def read_learned(self) -> list[Learned] | None:
        """Read ``learned.json``; None if there is none.

        Raises:
            RunError: It is damaged.
        """
        try:
            content = self.learned_file.read_bytes()
        except FileNotFoundError:
            return None
        return from_json(content, str(self.learned_file))

    def write_teacher(self, weights: State, description: dict[str, Any]) -> None:
        """Keep the teacher, weights first: a description promises that they are there."""
        self.check_ours()
        save_state(self.teacher_weights, weights)
        write_json(self.teacher_file, description)

    def write_leaderboard(self, text: str) -> None:
        """Write ``leaderboard.csv``."""
        self.check_ours()
        write_text(self.leaderboard_file, text)

    def write_verdict(self, verdict: dict[str, Any]) -> None:
        """Write ``verdict.json``."""
        self.check_ours()
        write_json(self.verdict_file, verdict)

    def write_evaluation(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write ``evaluation.npz``."""
        self.check_ours()
        save_arrays(self.evaluation_file, arrays)

    def read_evaluation(self, parse: Callable[[Mapping[str, NDArray[Any]]], T]) -> T | None:
        """Read ``evaluation.npz``; None if there is none.

        Args:
            parse: Converts the arrays to the result; raises KeyError, TypeError or ValueError
                if they do not fit.

        Raises:
            RunError: The file is damaged.
        """
        if not self.evaluation_file.exists():
            return None
        with reading(self.evaluation_file, "a readable evaluation", RunError):
            return parse(read_arrays(io.BytesIO(self.evaluation_file.read_bytes())))

    def write_costs(self, costs: dict[str, Any]) -> None:
        """Write ``costs.json``: what scoring costs, by trial and of the teacher."""
        self.check_ours()
        write_json(self.costs_file, costs)

    def write_best(
        self,
        weights: State,
        config: dict[str, Any],
        metrics: dict[str, Any],
        validation: Mapping[str, NDArray[Any]],
        readme: str = "",
    ) -> None:
        """Write ``best/``, and replace the folder as a whole.

        In a bucket files are replaced one by one, the metrics last: with them all are there.

        Args:
            validation: The student's ``scores`` of the validation beats and whether each is
                ``abnormal``, from which another threshold can be chosen.
            readme: The model card.
        """
        self.check_ours()
        text = yaml.safe_dump(config, sort_keys=False)
        if isinstance(self.best, BucketPath):
            remove(self.best / "metrics.json")
            _write_best(self.best, weights, text, metrics, validation, readme)
            return
        beside = self.best.with_name(".best.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        _write_best(beside, weights, text, metrics, validation, readme)
        put_folder(beside, self.best)

    def generation_folder(self, number: int) -> RunFolder:
        """The run folder of one generation of a search."""
        return RunFolder(self.path / "generations" / str(number))

    def generation_folders(self) -> list[RunFolder]:
        """The run folders of all generations that were begun, in order."""
        found: list[RunFolder] = []
        while (following := self.generation_folder(len(found) + 1)).config_file.exists():
            found.append(following)
        return found

    def write_descent(self, descent: dict[str, Any], result: RunFolder) -> None:
        """Keep the line of descent, and a copy of the best student of its result."""
        self.check_ours()
        # The metrics come last and promise the rest.
        names = sorted((f.name for f in result.best.iterdir()), key="metrics.json".__eq__)
        for name in names:
            write_bytes(self.best / name, (result.best / name).read_bytes())
        write_json(self.descent_file, descent)

    @property
    def concluded(self) -> bool:
        """Whether everything derived from the trials is up to date."""
        return (self.best / "metrics.json").exists() and not self._unfinished_file.exists()

    def begin_work(self) -> None:
        """Mark everything derived from the trials as out of date, until `end_work`."""
        self.check_ours()
        write_text(self._unfinished_file, "")

    def end_work(self) -> None:
        """Mark everything derived from the trials as up to date."""
        self.check_ours()
        remove(self._unfinished_file)

    def identity(self) -> str:
        """Return what tells this run from others of its name, also after a move."""
        try:
            known = self._identity_file.read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            known = ""
        if not known:
            known = uuid.uuid4().hex[:12]
            try:
                write_text(self._identity_file, known)
            except OSError:  # Another user's run: its path is its name.
                known = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:12]
        return known

    def remember_temporary(self, path: str) -> None:
        """Keep the path of this driver's temporary folder, for its successor to remove."""
        write_text(self._temporary_file, path)

    def remembered_temporary(self) -> str:
        """The path that a killed driver left behind, or an empty text."""
        try:
            return self._temporary_file.read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def forget_temporary(self) -> None:
        """Forget the temporary folder, which is removed."""
        self._temporary_file.unlink(missing_ok=True)

    def trial_files(self) -> dict[int, set[str]]:
        """Return the names of the files of each trial, by the trial's number, in order."""
        found: dict[int, set[str]] = {}
        for trial, name in names_in_folders(self.trials):
            if trial.isdecimal() and trial == str(int(trial)):
                found.setdefault(int(trial), set()).add(name)
        return {number: found[number] for number in sorted(found) if is_trial(found[number])}

    def records(self, metric: Metric = "val_auc") -> list[TrialRecord]:
        """Read the record of each trial, by number; ``metric`` is the search's."""
        trials = [self.trial(number) for number in self.trial_files()]
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(lambda trial: trial.record(metric), trials))

    def trial(
        self,
        number: int,
        generation: str | None = None,
        params: dict[str, Value] | None = None,
    ) -> TrialFolder:
        """The folder of one trial; writing epochs to it needs the driver's generation."""
        path = self.trials / str(number)
        return TrialFolder(path, self._generation_file, generation, params)

    def confirmation(self, name: str, seed: int, generation: str | None = None) -> Confirmation:
        """The folder of one configuration trained again with one seed."""
        path = self.confirmations / name / str(seed)
        return Confirmation(path, TrialFolder(path, self._generation_file, generation))


def _write_best(
    folder: Place,
    weights: State,
    config: str,
    metrics: dict[str, Any],
    validation: Mapping[str, NDArray[Any]],
    readme: str,
) -> None:
    save_tensors(folder / "model.safetensors", weights)
    write_text(folder / "config.yaml", config)
    write_text(folder / "README.md", readme)
    save_arrays(folder / "validation.npz", validation)
    write_json(folder / "metrics.json", metrics)
