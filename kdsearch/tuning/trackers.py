"""Trackers that a search reports to while it runs.

A tracker follows the run's trials, not Tune's, which are new at every resume. Each tracker
looks up which epochs of a trial it has, so that none is reported twice. A tracker that fails is
left out from then on; the search continues without it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from kdsearch.analysis.tensorboard import (
    TrialEvents,
    final_metrics,
    trial_folder,
    write_columns,
)
from kdsearch.config.dimensions import Value
from kdsearch.config.space_file import Config
from kdsearch.errors import ConfigError, UserError
from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialState
from kdsearch.tuning.ledger import Observer

logger = logging.getLogger(__name__)
KNOWN = ("tensorboard", "mlflow", "wandb")
# How long the end of a trial waits for its upload to W&B.
UPLOAD_TIMEOUT_S = 300
RUN_TAG, TRIAL_TAG = "kdsearch.run", "trial_name"


@dataclass(frozen=True)
class Shown:
    """A trial as trackers show it.

    Attributes:
        number: In the run.
        id: The same in every resume of the run, and different from every other run's.
        params: Its searched settings.
    """

    number: int
    id: str
    params: dict[str, Value]

    @property
    def name(self) -> str:
        """Shown to people; sorts by number."""
        return f"trial-{self.number:03d}"


class Tracker(Protocol):
    """One program that shows trials."""

    name: str

    def begin(self, trial: Shown) -> int:
        """A trial starts or goes on.

        Returns:
            How many of its epochs the tracker has from an earlier start.
        """

    def epoch(self, trial: Shown, report: EpochReport) -> None:
        """An epoch that the tracker does not have."""

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """A trial ended."""

    def close(self) -> None:
        """The search ends or pauses; some trials may not have ended."""


class Tracking:
    """Tells every tracker what it does not know yet; an observer of the ledger."""

    def __init__(
        self, folder: RunFolder, trackers: Sequence[Tracker], say: Callable[[str], None]
    ) -> None:
        """Nothing is told before the first trial starts."""
        self._folder = folder
        self._trackers = list(trackers)
        self._say = say
        self._run = folder.identity() if trackers else ""
        self._trials: dict[int, Shown] = {}
        self._told: dict[tuple[Tracker, int], int] = {}

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""
        number = suggestion.number
        trial = Shown(number, f"{self._run}-{number}", dict(suggestion.params))
        self._trials[number] = trial
        for tracker in list(self._trackers):
            with self._left_out_if_it_fails(tracker):
                self._told[tracker, number] = tracker.begin(trial)

    def reported(self, number: int, epoch: int, epochs: int, best_so_far: float) -> None:
        """A trial finished an epoch."""
        self._catch_up(number, epoch)

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended."""
        trial = self._trials.pop(number)
        history = self._history(number)
        for tracker in list(self._trackers):
            with self._left_out_if_it_fails(tracker):
                tracker.end(trial, state, reason, history)

    def close(self) -> None:
        """The search ends or pauses."""
        for tracker in list(self._trackers):
            with self._left_out_if_it_fails(tracker):
                tracker.close()

    def _catch_up(self, number: int, epoch: int) -> None:
        history = self._history(number)[:epoch]
        for tracker in list(self._trackers):
            with self._left_out_if_it_fails(tracker):
                for report in history[self._told[tracker, number] :]:
                    tracker.epoch(self._trials[number], report)
                    self._told[tracker, number] = report.epoch

    def _history(self, number: int) -> list[EpochReport]:
        # Every epoch is on disk before it is reported.
        return self._folder.trial(number).history() if self._trackers else []

    @contextmanager
    def _left_out_if_it_fails(self, tracker: Tracker) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Whatever a server or its client comes up with.
            logger.warning("%s fails", tracker.name, exc_info=True)
            first = (str(error).splitlines() or [type(error).__name__])[0]
            self._say(f"{tracker.name}: {first}; it is left out from here on")
            self._trackers.remove(tracker)


class Observers:
    """Several observers of one ledger."""

    def __init__(self, *observers: Observer) -> None:
        """They are told in this order."""
        self._observers = observers

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""
        for observer in self._observers:
            observer.started(suggestion)

    def reported(self, number: int, epoch: int, epochs: int, best_so_far: float) -> None:
        """A trial finished an epoch."""
        for observer in self._observers:
            observer.reported(number, epoch, epochs, best_so_far)

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended."""
        for observer in self._observers:
            observer.ended(number, state, reason)


def open_trackers(wanted: Sequence[str], folder: RunFolder, config: Config) -> list[Tracker]:
    """The trackers that ``NAME`` or ``NAME=WHERE`` stand for.

    Raises:
        UserError: There is none of this name, it is not installed, or does not answer.
    """
    return [_open(text, folder, config) for text in dict.fromkeys(wanted)]


def _open(text: str, folder: RunFolder, config: Config) -> Tracker:
    name, _, where = text.partition("=")
    makers: Mapping[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(Path(where or "tensorboard"), folder, config),
        "mlflow": lambda: Mlflow(where or None, folder),
        "wandb": lambda: WeightsAndBiases(where or "kdsearch", folder),
    }
    if name not in makers:
        raise ConfigError(f"--track: expected one of {', '.join(KNOWN)}, but found {text!r}")
    try:
        return makers[name]()
    except ImportError as error:
        raise UserError(
            f"--track {name}: not installed ({error}); pip install 'kdsearch[{name}]'"
        ) from None
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--track {text}: {first}") from error


class TensorBoard:
    """Event files, as ``analyze.py --tensorboard`` writes them, epoch by epoch."""

    name = "tensorboard"

    def __init__(self, place: Path, folder: RunFolder, config: Config) -> None:
        """Say what the columns of its table are."""
        place.mkdir(parents=True, exist_ok=True)
        searched = config.searched().items()
        write_columns(place, {key: dim.candidates()[0] for key, dim in searched})
        self._place = place / folder.path.name
        self._events: dict[int, TrialEvents] = {}

    def begin(self, trial: Shown) -> int:
        """A trial's file is begun anew, and then has every epoch once."""
        self._events[trial.number] = TrialEvents(trial_folder(self._place, trial.number))
        return 0

    def epoch(self, trial: Shown, report: EpochReport) -> None:
        """Its figures and the terms of its loss."""
        self._events[trial.number].add([report])

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """A row in the table of hyperparameters."""
        events = self._events.pop(trial.number)
        events.end({**trial.params, "state": state}, final_metrics(history))

    def close(self) -> None:
        """Every epoch is written already."""


class Mlflow:
    """A run of MLflow's per trial, in an experiment per search."""

    name = "mlflow"

    def __init__(self, uri: str | None, folder: RunFolder) -> None:
        """Find or make the experiment.

        Args:
            uri: Of the store; None for MLflow's own default, or ``MLFLOW_TRACKING_URI``.
            folder: The experiment has its name.
        """
        import mlflow  # noqa: PLC0415

        # Otherwise it logs every table that it makes in a new store.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client = mlflow.MlflowClient(uri)
        name = f"kdsearch-{folder.path.name}"
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        self._run = folder.identity()
        self._ids: dict[int, str] = {}

    def begin(self, trial: Shown) -> int:
        """A resumed trial keeps its run and its epochs."""
        runs = self._client.search_runs(
            [self._experiment],
            f"tags.`{RUN_TAG}` = '{self._run}' and tags.{TRIAL_TAG} = '{trial.name}'",
        )
        if runs:
            self._ids[trial.number] = runs[0].info.run_id
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
        else:
            self._ids[trial.number] = self._new_run(trial)
        history = self._client.get_metric_history(self._ids[trial.number], "val_auc")
        return max((metric.step for metric in history), default=0)

    def epoch(self, trial: Shown, report: EpochReport) -> None:
        """Its figures and the terms of its loss."""
        for key, value in _figures(report).items():
            self._client.log_metric(self._ids[trial.number], key, value, step=report.epoch)

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """The state is a tag: MLflow has no status for a trial that was stopped early."""
        run = self._ids.pop(trial.number)
        for key, value in final_metrics(history).items():
            self._client.log_metric(run, key.replace("final/", "final_"), value)
        self._client.set_tag(run, "state", state)
        if reason:
            self._client.set_tag(run, "reason", reason)
        self._client.set_terminated(run, "FAILED" if state == "failed" else "FINISHED")

    def close(self) -> None:
        """A trial that did not end stays RUNNING until a resume."""

    def _new_run(self, trial: Shown) -> str:
        tags = {RUN_TAG: self._run, TRIAL_TAG: trial.name}
        run = self._client.create_run(self._experiment, run_name=trial.name, tags=tags)
        for key, value in trial.params.items():
            self._client.log_param(run.info.run_id, key, value)
        return str(run.info.run_id)


class WeightsAndBiases:
    """A run of W&B's per trial, in a group per search."""

    name = "wandb"

    def __init__(self, project: str, folder: RunFolder) -> None:
        """Check that there is a key, unless ``WANDB_MODE`` is ``offline`` or ``disabled``."""
        import wandb  # noqa: PLC0415

        online = os.environ.get("WANDB_MODE", "online") not in ("offline", "disabled")
        if online and not wandb.login(prompt=False):
            raise ConfigError(
                "no API key: run 'wandb login', or set WANDB_API_KEY or WANDB_MODE=offline"
            )
        self._init = partial(
            wandb.init,
            project=project,
            group=folder.path.name,
            resume="allow",
            settings=wandb.Settings(
                silent=True,
                console="off",
                # Several trials at a time, each a run of its own.
                reinit="create_new",
                finish_timeout=UPLOAD_TIMEOUT_S,
            ),
        )
        self._runs: dict[int, Any] = {}

    def begin(self, trial: Shown) -> int:
        """A resumed trial keeps its id; W&B itself leaves out steps that it has."""
        self._runs[trial.number] = self._init(
            id=trial.id, name=trial.name, config=dict(trial.params)
        )
        return 0

    def epoch(self, trial: Shown, report: EpochReport) -> None:
        """Its figures and the terms of its loss."""
        self._runs[trial.number].log(_figures(report), step=report.epoch)

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """The state is in the run's configuration."""
        run = self._runs.pop(trial.number)
        run.config.update({"state": state, "reason": reason}, allow_val_change=True)
        run.finish(exit_code=1 if state == "failed" else 0)

    def close(self) -> None:
        """Wait for the uploads of trials that did not end."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()


def _figures(report: EpochReport) -> dict[str, float]:
    figures = {"val_auc": report.val_auc, "val_ap": report.val_ap, "seconds": report.seconds}
    return figures | {f"loss/{name}": value for name, value in report.losses.items()}
