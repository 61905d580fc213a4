"""A trial's folder: the record of the trial, its epochs, and its checkpoint.

trials/<number>/
  trial.json     number, settings, state, reason, seed; written when the trial begins and ends,
                 then with the best value so far by epoch: all of a finished trial's record
  metrics.jsonl  a line per report: an epoch, or a part of one
  last.pt        the student's state after the last report, with the trial's settings; removed
                 when the trial ends
  best.pt        weights of the best report; kept for the best trials
  error.txt      reason why the last attempt failed, until the driver has read it

The folder is the only record of a trial. Everything else is derived from it:
the leaderboard, Optuna's study, ASHA's rungs, the report.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from kdsearch.config.dimensions import Value
from kdsearch.errors import RunError
from kdsearch.files.atomic import (
    DamagedFile,
    load_state,
    remove,
    remove_leftovers,
    save_arrays,
    save_state,
    sync,
    write_json,
    write_text,
)
from kdsearch.files.bucket import Place
from kdsearch.files.reading import read_arrays, reading
from kdsearch.methods.protocol import EpochReport, State
from kdsearch.metrics.ranking import Metric
from kdsearch.runs.driver_lock import read_generation

TrialState = Literal["completed", "stopped", "failed", "running"]
RECORD, METRICS, LAST, BEST = "trial.json", "metrics.jsonl", "last.pt", "best.pt"
ERROR = "error.txt"


class Superseded(Exception):
    """Another driver has taken over the run; this worker belongs to a dead one."""


@dataclass(frozen=True)
class TrialRecord:
    """The record of a trial, as its folder has it.

    Attributes:
        number: Number of the trial in its search, from 0.
        state: ``running`` also where a killed search left it, and where its files are damaged.
        params: The searched values.
        curve: Best value of the search's metric so far, by epoch; the first ones may be
            fractions.
        seconds: Training time of all its epochs.
        reason: Why it failed, or what is damaged, or an empty text.
        order: How many trials had finished before it; None until it finishes.
        seed: Seed of its weights and mini-batches.
        began: When its first training began, in ISO format.
        ended: When it finished.
        repeats: How many suggestions for it were not taken, as they repeated an earlier trial.
        costs: What scoring costs, where the search has costs as objectives or limits.
        refused: Suggestions for it that were not taken, as they break a limit.
    """

    number: int
    state: TrialState
    params: dict[str, Value]
    curve: Mapping[int | float, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    order: int | None = None
    seed: int | None = None
    began: str = ""
    ended: str = ""
    repeats: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    refused: list[dict[str, Value]] = field(default_factory=list)

    @property
    def epochs(self) -> int | float:
        """Epochs trained."""
        return max(self.curve, default=0)

    @property
    def value(self) -> float:
        """Best value of the search's metric of any epoch; NaN before the first."""
        return max(self.curve.values(), default=float("nan"))

    @property
    def best_epoch(self) -> int | float:
        """The first epoch that reached the best value; 0 before the first."""
        return min((e for e, value in self.curve.items() if value == self.value), default=0)

    @property
    def finished(self) -> bool:
        """Whether the trial has ended."""
        return self.state != "running"


class _Stored(BaseModel):
    """The content of ``trial.json``.

    The curve and the seconds are those of a finished trial; an unfinished one has its epochs in
    ``metrics.jsonl`` alone. The curve has pairs of the epoch and the best so far.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    number: int
    params: dict[str, bool | int | float | str]
    state: TrialState
    curve: list[tuple[int | float, float]] | None = None
    seconds: float | None = None
    reason: str = ""
    order: int | None = None
    seed: int | None = None
    began: str = ""
    ended: str = ""
    repeats: int = 0
    costs: dict[str, float | int] = {}
    refused: list[dict[str, bool | int | float | str]] = []


@dataclass(frozen=True)
class Checkpoint:
    """Where an unfinished trial can continue.

    Attributes:
        state: The student's own state, for `Stack.put_in`.
        history: Every report up to here.
    """

    state: State
    history: list[EpochReport]


class TrialFolder:
    """The files of one trial."""

    def __init__(
        self,
        path: Place,
        generation_file: Place,
        generation: str | None = None,
        params: dict[str, Value] | None = None,
    ) -> None:
        """Name a trial's folder; nothing is read or created.

        Args:
            generation_file: Holds the token of the driver that has the run.
            generation: The token of the driver that this writes for; None to read only.
            params: The searched values, kept in each checkpoint.
        """
        self.path = path
        self.error_file = path / ERROR
        self.best_file = path / BEST
        self._last_file = path / LAST
        self._metrics_file = path / METRICS
        self._record_file = path / RECORD
        self._generation_file = generation_file
        self._generation = generation
        self._params = params

    def write_record(self, record: TrialRecord) -> None:
        """Write ``trial.json``."""
        values = {name: getattr(record, name) for name in _Stored.model_fields}
        if record.finished:
            # Without reports that the worker wrote after the decision that ended the trial.
            values["curve"] = sorted(record.curve.items())
        else:
            values |= {"curve": None, "seconds": None}
        write_json(self._record_file, _Stored(**values).model_dump())

    def record(self, metric: Metric = "val_auc") -> TrialRecord:
        """Read the record of the trial.

        A trial whose ``trial.json`` is missing or damaged is unfinished, with the damage as its
        reason.

        Args:
            metric: The search's, by which the epochs of an unfinished trial are judged.
        """
        number = int(self.path.name)
        try:
            stored = _Stored.model_validate_json(self._record_file.read_bytes())
            if stored.number != number:
                raise ValueError(f"it belongs to trial {stored.number}")
            plain = stored.model_dump(exclude={"curve", "seconds"})
            if stored.state != "running":
                if stored.curve is None or stored.seconds is None:
                    raise ValueError("curve and seconds: missing")
                return TrialRecord(**plain, curve=dict(stored.curve), seconds=stored.seconds)
        except FileNotFoundError:
            plain = {"number": number, "state": "running", "reason": "trial.json is missing"}
        except ValueError as error:
            reason = f"trial.json is damaged: {in_one_line(error)}"
            plain = {"number": number, "state": "running", "reason": reason}
        history = self.history()
        return TrialRecord(
            **{"params": {}, **plain},
            curve=curve_of(history, metric),
            seconds=sum(report.seconds for report in history),
        )

    def history(self) -> list[EpochReport]:
        """Read every report whose line is whole, in order."""
        try:
            lines = self._metrics_file.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        reports: list[EpochReport] = []
        for line in lines:
            report = _parse(line)
            # No whole epoch is left out.
            last = reports[-1].epoch if reports else 0
            if report is None or not last < report.epoch <= int(last) + 1:
                break
            reports.append(report)
        return reports

    def write_history(self, history: list[EpochReport]) -> None:
        """Write the lines of all reports.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.check_generation()
        write_text(self._metrics_file, "".join(json.dumps(asdict(r)) + "\n" for r in history))

    def write_best(self, weights: State) -> None:
        """Write the weights of the best report so far.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.check_generation()
        save_state(self.best_file, weights)

    def remove_best(self) -> None:
        """Remove weights that do not belong to the best report.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.check_generation()
        remove(self.best_file)

    def write_checkpoint(self, reports: int, state: State) -> None:
        """Write the state after a report whose line, and weights if the best, are written.

        A report counts once the checkpoint has it: what a kill left of a later one is written
        again.

        Args:
            reports: How many reports there are up to this one.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.check_generation()
        checkpoint = {"reports": reports, "state": state, "params": self._params}
        save_state(self._last_file, checkpoint)

    def check_generation(self) -> None:
        """Raise `Superseded` if a newer driver owns the run."""
        if self._generation not in (None, read_generation(self._generation_file)):
            raise Superseded(f"{self.path}: a newer search has taken over this run")

    def checkpoint(self) -> Checkpoint | None:
        """Read the newest state, if it is whole and all its reports are known."""
        try:
            last = load_state(self._last_file)
        except (FileNotFoundError, DamagedFile):
            return None
        history = self.history()[: last["reports"]]
        if len(history) < last["reports"]:
            return None
        return Checkpoint(last["state"], history)

    def checkpoint_params(self) -> dict[str, Value] | None:
        """Read the trial's settings from its checkpoint, for a trial without ``trial.json``."""
        if self.checkpoint() is None:
            return None
        params: dict[str, Value] | None = load_state(self._last_file).get("params")
        return params

    def best_weights(self) -> State:
        """Read the weights of the best report.

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

    def clear(self) -> None:
        """Remove everything, for a trial that begins again."""
        for name in (RECORD, METRICS, LAST, BEST, ERROR):
            (self.path / name).unlink(missing_ok=True)
        remove_leftovers(self.path)
        if isinstance(self.path, Path):
            # Before a record of other settings is there: the old checkpoint is not its own.
            sync(self.path)

    def write_error(self, reason: str) -> None:
        """Write why a try failed, for the driver to read.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.check_generation()
        write_text(self.error_file, reason)

    def take_error(self) -> str:
        """Read and remove why the last try failed; empty if the worker left no reason."""
        try:
            reason = self.error_file.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return ""
        remove(self.error_file)
        return reason


@dataclass(frozen=True)
class Confirmation:
    """One configuration trained again with one seed.

    Attributes:
        training: Its epochs and where to continue, as of a trial.
    """

    path: Place
    training: TrialFolder

    def result(self) -> dict[str, Any] | None:
        """Read the result; None while the training is unfinished or the file is damaged."""
        try:
            result = json.loads((self.path / "result.json").read_bytes())
            if "reason" not in result:
                figures = result["best_epoch"], result["epochs"], result["seconds"]
                if not all(isinstance(figure, int | float) for figure in figures):
                    return None
                self.scores()
        except (FileNotFoundError, ValueError, KeyError, TypeError, RunError):
            return None
        return dict(result)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the result, after the scores: if it is there, they are, too.

        Raises:
            Superseded: A newer driver owns the run.
        """
        self.training.check_generation()
        write_json(self.path / "result.json", result)

    def scores(self) -> dict[str, NDArray[np.float32]]:
        """Read the scores of the validation and the test beats, each of shape (n,).

        Raises:
            RunError: They are missing or damaged.
        """
        path = self.path / "scores.npz"
        with reading(path, "readable scores", RunError):
            arrays = read_arrays(io.BytesIO(path.read_bytes()))
            return {name: arrays[name] for name in ("validation", "test")}

    def write_scores(self, scores: dict[str, NDArray[np.float32]]) -> None:
        """Write the scores."""
        save_arrays(self.path / "scores.npz", scores)


def curve_of(history: Sequence[EpochReport], metric: Metric) -> dict[int | float, float]:
    """Return the curve of a record."""
    best_so_far = accumulate((report.value(metric) for report in history), max)
    return dict(zip((report.epoch for report in history), best_so_far, strict=True))


def is_trial(names: Collection[str]) -> bool:
    """Return whether files of these names are a trial's."""
    return not {RECORD, METRICS, LAST, BEST}.isdisjoint(names)


def now() -> str:
    """Return the time as a record holds it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def in_one_line(error: ValueError) -> str:
    """Return what is wrong with a file, without what it is."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return " ".join(str(error).split())


def _parse(line: bytes) -> EpochReport | None:
    try:
        report = EpochReport(**json.loads(line))
    except (ValueError, TypeError):
        return None
    figures = (report.epoch, report.val_auc, report.val_ap, report.seconds)
    return report if all(isinstance(figure, int | float) for figure in figures) else None
