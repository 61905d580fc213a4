"""Trackers that a search reports to while it runs; MLflow and W&B through Ray's own callbacks.

They are told of the study's trials and not of Tune's, which come anew with every resume. Each
tracker finds out what it knows of a trial already, so that no epoch stands in it twice. One
that fails is left out from then on, and costs no result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
# How long the end of a search waits for what is still on its way to W&B.
UPLOAD_TIMEOUT_S = 300
# The key of a result by which Ray's callbacks count.
TRAINING_ITERATION = "training_iteration"
RUN_TAG, TRIAL_TAG = "kdsearch.analysis.run", "trial_name"


@dataclass(eq=False)
class Shown:
    """A trial of the study in the form in which Ray's callbacks take one of Tune's.

    Attributes:
        trial_id: The same in every resume of the run, and different from every other run's.
        config: Its settings.
        local_path: A folder in which a tracker may keep its own files.
        experiment_dir_name: Name of the run.
    """

    number: int
    trial_id: str
    config: dict[str, Value]
    local_path: str
    experiment_dir_name: str

    def __str__(self) -> str:
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
        """No more will come of this start; some trials may not have ended."""


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
        trial = Shown(
            number=number,
            trial_id=f"{self._run}-{number}",
            config=dict(suggestion.params),
            local_path=str(Path.cwd()),
            experiment_dir_name=self._folder.path.name,
        )
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
        "wandb": lambda: WeightsAndBiases(where or "kdsearch"),
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
        events.end({**trial.config, "state": state}, final_metrics(history))

    def close(self) -> None:
        """Every epoch is written already."""


class Mlflow:
    """A run of MLflow's per trial, in an experiment per search."""

    name = "mlflow"

    def __init__(self, uri: str | None, folder: RunFolder) -> None:
        """Find or make the experiment.

        Args:
            uri: Of the store; None for MLflow's own default, or ``MLFLOW_TRACKING_URI``.
        """
        import mlflow  # noqa: PLC0415
        from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415

        # It would tell of every table that it makes in a new store.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri = uri or mlflow.get_tracking_uri()
        self._run = folder.identity()
        make: Any = MLflowLoggerCallback
        self._callback = make(
            tracking_uri=uri,
            experiment_name=f"kdsearch-{folder.path.name}",
            tags={RUN_TAG: self._run},
        )
        self._callback.setup()
        self._client = mlflow.MlflowClient(uri)

    def begin(self, trial: Shown) -> int:
        """A trial that goes on keeps its run, and what stands in it."""
        found = self._client.search_runs(
            [self._callback.mlflow_util.experiment_id],
            f"tags.`{RUN_TAG}` = '{self._run}' and tags.{TRIAL_TAG} = '{trial}'",
        )
        if found:
            self._callback._trial_runs[trial] = found[0].info.run_id
            self._client.update_run(found[0].info.run_id, status="RUNNING")
        self._callback.log_trial_start(trial)
        history = self._client.get_metric_history(self._id(trial), "val_auc")
        return max((metric.step for metric in history), default=0)

    def epoch(self, trial: Shown, report: EpochReport) -> None:
        """Its figures and the terms of its loss."""
        self._callback.log_trial_result(0, trial, _figures(report))

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """The trial's state as a tag: MLflow has no word for what was stopped early."""
        best = final_metrics(history).items()
        for name, value in best:
            self._client.log_metric(self._id(trial), name.replace("final/", "final_"), value)
        self._client.set_tag(self._id(trial), "state", state)
        if reason:
            self._client.set_tag(self._id(trial), "reason", reason)
        self._callback.log_trial_end(trial, failed=state == "failed")

    def close(self) -> None:
        """What did not end stays running, until a resume goes on with it."""

    def _id(self, trial: Shown) -> str:
        return str(self._callback._trial_runs[trial])


class WeightsAndBiases:
    """A run of W&B's per trial, in a group per search."""

    name = "wandb"

    def __init__(self, project: str) -> None:
        """Check that there is a key, or that ``WANDB_MODE`` is ``offline``."""
        import wandb  # noqa: F401, PLC0415
        from ray.air.integrations.wandb import WandbLoggerCallback  # noqa: PLC0415

        make: Any = WandbLoggerCallback
        self._callback = make(project=project, upload_timeout=UPLOAD_TIMEOUT_S, resume="allow")
        self._callback.setup()
        self._open: list[Shown] = []

    def begin(self, trial: Shown) -> int:
        """A trial that goes on keeps its id; W&B itself leaves out steps that it has."""
        self._open.append(trial)
        self._callback.log_trial_start(trial)
        return 0

    def epoch(self, trial: Shown, report: EpochReport) -> None:
        """Its figures and the terms of its loss."""
        self._callback.log_trial_result(0, trial, _figures(report))

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """Its state is in the run's configuration."""
        ended = {"config": {"state": state, "reason": reason}}
        self._callback.log_trial_result(0, trial, {TRAINING_ITERATION: len(history), **ended})
        self._open.remove(trial)
        self._callback.log_trial_end(trial, failed=state == "failed")

    def close(self) -> None:
        """Wait a while for what is on its way."""
        for trial in self._open:
            self._callback.log_trial_end(trial)
        self._callback.on_experiment_end([])


def _figures(report: EpochReport) -> dict[str, Any]:
    return {
        TRAINING_ITERATION: report.epoch,
        "val_auc": report.val_auc,
        "val_ap": report.val_ap,
        "seconds": report.seconds,
        "loss": dict(report.losses),
    }
