"""The trials as an Optuna study that other programs read while the search runs.

A view: rewritten at every start from the trials' folders and updated with every event. Nothing
is read from it. A separate thread writes it, so that a slow or unreachable server neither
blocks nor ends the search.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial

from kdsearch.config.dimensions import Dimension
from kdsearch.errors import ConfigError
from kdsearch.files.atomic import write_text
from kdsearch.metrics.ranking import Metric
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.optuna_internals import ids, storage_and_id
from kdsearch.runs.study import Suggestion, distributions, frozen_trial
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.texts import redact

logger = logging.getLogger(__name__)

JOURNALS, DATABASES = (".log", ".journal"), (".db", ".sqlite", ".sqlite3")
SQLITE, POSTGRES = "sqlite:///", ("postgresql", "postgres")
POSTGRES_DRIVER = "postgresql+psycopg"
# The study's attribute that names its run.
OWNER = "kdsearch run"
# A server that has not answered for so long is given up.
TIMEOUT_S = 10.0


class ForeignStudy(Exception):
    """The storage holds a study of this name that is not ours to replace."""


@dataclass(frozen=True)
class OptunaTarget:
    """Where a study is written: a journal file, or a database by its SQLAlchemy URL.

    Attributes:
        file: The file, or None for a server.
        url: The database's URL, or an empty text for a journal.
    """

    file: Path | None
    url: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> OptunaTarget:
        """Read ``FILE.log``, ``FILE.db`` or a URL.

        Raises:
            ConfigError: It is none of them, or its driver is not installed.
        """
        if "://" not in text:
            file = Path(text).expanduser()
            if file.suffix in JOURNALS:
                return cls(file, "")
            if file.suffix in DATABASES:
                return cls(file, f"{SQLITE}{file}")
        elif text.startswith(SQLITE):
            return cls(Path(text.removeprefix(SQLITE)), text)
        else:
            scheme, _, rest = text.partition("://")
            url = f"{POSTGRES_DRIVER}://{rest}" if scheme in POSTGRES else text
            if _is_database(url):
                return cls(None, url)
        raise ConfigError(
            f"--optuna-storage: expected FILE.log, FILE.db, {SQLITE}FILE or "
            f"postgresql://user@host/database, but found {redact(text)!r}"
        )

    @property
    def is_in_a_run(self) -> bool:
        """Whether it is the live view in some run's folder."""
        file = self.file
        named = file is not None and file.name == "study.journal"
        return file is not None and named and file.with_name("search.yaml").exists()

    def __str__(self) -> str:
        return redact(self.url) if self.url else str(self.file)

    def open(self) -> BaseStorage:
        """Open the storage; it is created where there is none.

        Raises:
            Exception: Any of Optuna, SQLAlchemy or the driver.
        """
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.url:
            return JournalStorage(JournalFileBackend(str(self.file)))
        arguments: dict[str, Any] = {}
        if self.file is not None:
            arguments = {"timeout": TIMEOUT_S}
        elif self.url.startswith(POSTGRES_DRIVER):
            arguments = {"connect_timeout": int(TIMEOUT_S)}
        options = {"pool_pre_ping": True, "connect_args": arguments}
        return RDBStorage(self.url, engine_kwargs=options)


def _is_database(url: str) -> bool:
    import sqlalchemy  # noqa: PLC0415

    try:
        sqlalchemy.make_url(url).get_dialect().import_dbapi()
    except ImportError as error:
        raise ConfigError(
            f"--optuna-storage: {redact(url)} needs a driver ({error}); for "
            "PostgreSQL: pip install 'kdsearch[postgres]'"
        ) from None
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return False
    return True


def replace_study(
    storage: BaseStorage,
    name: str,
    owner: str,
    trials: Sequence[FrozenTrial],
    metric: Metric,
) -> optuna.Study:
    """Write a study, in place of one of the same name if that is the same run's.

    Args:
        metric: The name of the trials' value.

    Raises:
        ForeignStudy: The study of this name is not this run's.
    """
    if name in optuna.get_all_study_names(storage):
        earlier = optuna.load_study(study_name=name, storage=storage)
        if earlier.user_attrs.get(OWNER) != owner:
            raise ForeignStudy(name)
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.set_user_attr(OWNER, owner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([metric])
    study.add_trials(trials)
    return study


class StudyView:
    """The live view of one run; an observer of the ledger."""

    def __init__(
        self,
        folder: RunFolder,
        space: Mapping[str, Dimension],
        say: Callable[[str], None],
        target: OptunaTarget | None = None,
        metric: Metric = "val_auc",
    ) -> None:
        """Name where the study is written; nothing is written yet.

        Args:
            say: Called with a warning if the view is lost, once.
            target: A file or database; None for ``study.journal`` of the run.
            metric: The name of the trials' value.
        """
        self._folder = folder
        self._space = space
        self._say = say
        self._target = target
        self._metric = metric
        self._name = folder.path.resolve().name
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ids: list[int] = []
        self._lost = False
        self._done = 0
        self._foreign = False
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kdsearch-view", daemon=True)

    def open(self, records: Sequence[TrialRecord]) -> None:
        """Begin to write the study.

        Raises:
            ConfigError: The storage holds another run's study of this name.
        """
        self._folder.study_file.unlink(missing_ok=True)
        # Optuna's lock on it, which a killed driver leaves, would be waited for.
        self._folder.study_file.with_name("study.journal.lock").unlink(missing_ok=True)
        if self._target is not None and self._target.is_in_a_run:
            self._refuse()
        self._tasks.put(partial(self._begin, list(records)))
        self._thread.start()
        if self._target is not None and not self._opened.wait(TIMEOUT_S):
            self._lose("no answer")
        if self._foreign:
            self._refuse()

    def started(self, suggestion: Suggestion) -> None:
        """Show a trial that begins or continues."""
        self._tasks.put(partial(self._start, suggestion))

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """Show what a trial has reached."""
        reports = len(record.curve)
        self._tasks.put(partial(self._report, record.number, reports, record.value))

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """Show the end of a trial."""
        self._tasks.put(partial(self._end, number))

    def close(self) -> None:
        """Write what is left, unless the storage has stopped answering."""
        self._tasks.put(None)
        while self._thread.is_alive() and not self._lost:
            done = self._done
            self._thread.join(TIMEOUT_S)
            if self._thread.is_alive() and self._done == done:
                self._lose("no answer")

    def _refuse(self) -> None:
        raise ConfigError(
            f"--optuna-storage: {self._target} has a study {self._name!r} that is not this "
            "run's: choose another storage, or another --name"
        )

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            where = self._target or self._folder.study_file
            text = f"{where}: {reason}; the search continues without this view"
            logger.warning(text)
            self._say(text)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._lost:
            try:
                self._folder.check_ours()
                task()
            except ForeignStudy:
                self._foreign = self._lost = True
            except Exception as error:
                # Any exception of a disk, a server or its driver.
                logger.warning("the Optuna view fails", exc_info=True)
                first = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[
                    0
                ]
                self._lose(first)
            self._done += 1
            self._opened.set()

    def _begin(self, records: list[TrialRecord]) -> None:
        by_number = {record.number: record for record in records}
        trials = [
            frozen_trial(
                by_number.get(number) or TrialRecord(number, "running", {}), self._space
            )
            for number in range(max(by_number, default=-1) + 1)
        ]
        owner = self._folder.identity()
        if self._target is None:
            # Written at once: a line of its own for each of 10,000 trials would take a minute.
            lines = _Lines()
            replace_study(JournalStorage(lines), self._name, owner, trials, self._metric)
            write_text(self._folder.study_file, "".join(f"{line}\n" for line in lines.lines))
            storage: BaseStorage = JournalStorage(
                JournalFileBackend(str(self._folder.study_file))
            )
            study = optuna.load_study(study_name=self._name, storage=storage)
        else:
            study = replace_study(self._target.open(), self._name, owner, [], self._metric)
            self._opened.set()
            for trial in trials:
                if self._lost:
                    return
                study.add_trial(trial)
                self._done += 1
        self._storage, self._study_id = storage_and_id(study)
        self._ids = ids(study)

    def _start(self, suggestion: Suggestion) -> None:
        storage = self._storage
        if suggestion.number == len(self._ids):
            record = TrialRecord(suggestion.number, "running", suggestion.params)
            trial = frozen_trial(record, self._space)
            self._ids.append(storage.create_new_trial(self._study_id, trial))
            return
        trial_id = self._ids[suggestion.number]
        known = storage.get_trial(trial_id).params
        for key, distribution in distributions(self._space).items():
            if key not in known:
                value = distribution.to_internal_repr(suggestion.params[key])
                storage.set_trial_param(trial_id, key, value, distribution)

    def _report(self, number: int, step: int, best_so_far: float) -> None:
        self._storage.set_trial_intermediate_value(self._ids[number], step, best_so_far)

    def _end(self, number: int) -> None:
        trial = frozen_trial(self._folder.trial(number).record(), self._space)
        storage, trial_id = self._storage, self._ids[number]
        for key, value in trial.user_attrs.items():
            storage.set_trial_user_attr(trial_id, key, value)
        storage.set_trial_state_values(trial_id, trial.state, trial.values)


class _Lines(BaseJournalBackend):
    """A journal in memory."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines[log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.lines += [json.dumps(log, separators=(",", ":")) for log in logs]
