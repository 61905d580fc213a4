"""Report a running search to trackers: TensorBoard, MLflow, Weights & Biases.

They show the trials of the run folder, not Tune's, which are new with every resume. Each
tracker checks which epochs of a trial it already has, so that none is entered twice. A tracker
that fails is not used again; no result is lost.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdsearch.analysis.tensorboard import (
    TrialEvents,
    figures,
    final_metrics,
    run_folder,
    trial_folder,
    write_columns,
)
from kdsearch.config.dimensions import Value
from kdsearch.config.space_file import Config
from kdsearch.errors import ConfigError, UserError
from kdsearch.files.bucket import Place
from kdsearch.methods.protocol import EpochReport
from kdsearch.metrics.ranking import Metric
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState
from kdsearch.texts import one_line
from kdsearch.tuning.ledger import Observer

logger = logging.getLogger(__name__)
KNOWN = ("tensorboard", "mlflow", "wandb")
# How long the start of a trial waits for W&B.
INIT_TIMEOUT_S = 60
# How long the end of a trial waits for its upload to W&B.
UPLOAD_TIMEOUT_S = 300
RUN_TAG, TRIAL_TAG = "kdsearch.run", "trial_name"
MILLISECONDS = 1000


@dataclass(frozen=True)
class Shown:
    """A trial as trackers show it.

    Attributes:
        trial_id: The same in every resume of the run, and different from every other run's.
    """

    number: int
    trial_id: str
    params: Mapping[str, Value]

    @property
    def name(self) -> str:
        """Sorted by number."""
        return f"trial-{self.number:03d}"


class Tracker(Protocol):
    """One program that shows trials."""

    name: str

    def begin(self, trial: Shown) -> int:
        """A trial starts or goes on.

        Returns:
            How many of its epochs the tracker has from an earlier start.
        """

    def epoch(self, trial: Shown, report: EpochReport, step: int) -> None:
        """A report that the tracker does not have; its number is the step."""

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """A trial ended."""

    def close(self) -> None:
        """End this start of the search; some trials may not have ended."""


class Tracking:
    """Reports to every tracker what it does not have yet; an observer of the ledger."""

    def __init__(
        self, folder: RunFolder, trackers: Sequence[Tracker], say: Callable[[str], None]
    ) -> None:
        """Nothing is reported before the first trial starts."""
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
            params=dict(suggestion.params),
        )
        self._trials[number] = trial
        for tracker in list(self._trackers):
            with self._left_out_if_it_fails(tracker):
                self._told[tracker, number] = tracker.begin(trial)

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """A trial was validated: see `Observer`."""
        number, reports = record.number, len(record.curve)
        history = self._history(number)[:reports]
        for tracker in list(self._trackers):
            with self._left_out_if_it_fails(tracker):
                for step in range(self._told[tracker, number], len(history)):
                    tracker.epoch(self._trials[number], history[step], step + 1)
                    self._told[tracker, number] = step + 1

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

    def _history(self, number: int) -> list[EpochReport]:
        # Every epoch is on disk before it is reported.
        return self._folder.trial(number).history() if self._trackers else []

    @contextmanager
    def _left_out_if_it_fails(self, tracker: Tracker) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Any exception of a server or its client.
            logger.warning("%s fails", tracker.name, exc_info=True)
            said = one_line(str(error)) or type(error).__name__
            self._say(f"{tracker.name}: {said}; this search no longer reports to it")
            self._trackers.remove(tracker)


def register_best(
    folder: RunFolder, trackers: Sequence[Tracker], say: Callable[[str], None]
) -> None:
    """Give the best student to each tracker that keeps models: MLflow."""
    for tracker in trackers:
        if isinstance(tracker, Mlflow):
            try:
                trial = int(folder.read_derived(folder.best / "metrics.json")["trial"])
                tracker.register(folder.best, trial)
            except Exception as error:
                logger.warning("%s takes no model", tracker.name, exc_info=True)
                said = one_line(str(error)) or type(error).__name__
                say(f"{tracker.name}: the best student is not registered: {said}")


class Observers:
    """Several observers of one ledger."""

    def __init__(self, *observers: Observer) -> None:
        """Keep the observers, which are called in this order."""
        self._observers = observers

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""
        for observer in self._observers:
            observer.started(suggestion)

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """A trial was validated: see `Observer`."""
        for observer in self._observers:
            observer.reported(record, epochs)

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


def check_trackers(wanted: Sequence[str]) -> None:
    """Refuse what `open_trackers` would refuse, and create nothing.

    Raises:
        UserError: As `open_trackers`.
    """
    for text in dict.fromkeys(wanted):
        name, where = _parse(text)
        with _explained(text):
            if name == "mlflow":
                Mlflow.check(where)
            elif name == "wandb":
                WeightsAndBiases.check()


def _parse(text: str) -> tuple[str, str]:
    name, _, where = text.partition("=")
    if name not in KNOWN:
        raise ConfigError(f"--track: expected one of {', '.join(KNOWN)}, but found {text!r}")
    return name, where


@contextmanager
def _explained(text: str) -> Iterator[None]:
    name = text.partition("=")[0]
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--track {name}: not installed ({error}); pip install 'kdsearch[{name}]'"
        ) from None
    except Exception as error:  # noqa: BLE001
        # Not `from error`: its text may hold a password, which a UserError replaces.
        said = one_line(str(error)) or type(error).__name__
        raise UserError(f"--track {text}: {said}") from None


def _open(text: str, folder: RunFolder, config: Config) -> Tracker:
    name, where = _parse(text)
    with _explained(text):
        if name == "tensorboard":
            return TensorBoard(Path(where or "tensorboard"), folder, config)
        if name == "mlflow":
            return Mlflow(where, folder, config.search.metric)
        return WeightsAndBiases(where or "kdsearch", folder, config.search.metric)


class TensorBoard:
    """Event files, as ``analyze.py --tensorboard`` writes them, epoch by epoch."""

    name = "tensorboard"

    def __init__(self, target: Path, folder: RunFolder, config: Config) -> None:
        """Write the columns of its table."""
        target.mkdir(parents=True, exist_ok=True)
        searched = config.searched().items()
        write_columns(target, {key: dim.candidates()[0] for key, dim in searched})
        self._metric = config.search.metric
        self._folder = run_folder(target, folder.path)
        self._events: dict[int, TrialEvents] = {}

    def begin(self, trial: Shown) -> int:
        """Start a trial's file again, so that it has every epoch once."""
        self._events[trial.number] = TrialEvents(trial_folder(self._folder, trial.number))
        return 0

    def epoch(self, trial: Shown, report: EpochReport, step: int) -> None:
        """Its figures and the terms of its loss."""
        self._events[trial.number].add([report])

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """A row in the table of hyperparameters."""
        events = self._events.pop(trial.number)
        events.end({**trial.params, "state": state}, final_metrics(history, self._metric))

    def close(self) -> None:
        """Every epoch is written already."""


class Mlflow:
    """A run of MLflow's per trial, in an experiment per search."""

    name = "mlflow"

    @staticmethod
    def check(uri: str) -> None:
        """Raise an exception where the store is none that MLflow knows, or does not answer."""
        from mlflow import MlflowClient, get_tracking_uri  # noqa: PLC0415

        uri = uri or get_tracking_uri()
        # A local store is created when it is opened.
        if uri.partition(":")[0] not in ("sqlite", "file", uri):
            MlflowClient(uri).search_experiments(max_results=1)

    def __init__(self, uri: str, folder: RunFolder, metric: Metric = "val_auc") -> None:
        """Find or make the experiment.

        Args:
            uri: Of the store; empty for MLflow's own default, or ``MLFLOW_TRACKING_URI``.
            metric: By which the best epoch of a trial is chosen.
        """
        self._metric = metric
        from mlflow import MlflowClient  # noqa: PLC0415

        # It would log every table that it makes in a new store.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client = MlflowClient(uri or None)
        self._run = folder.identity()
        name = self._name = f"kdsearch-{folder.path.name}"
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(name)
        )
        self._ids: dict[int, str] = {}

    def begin(self, trial: Shown) -> int:
        """A trial that is resumed keeps its run, and the epochs in it."""
        run_id = self._find(trial.name)
        if run_id is not None:
            self._ids[trial.number] = run_id
            self._client.update_run(run_id, status="RUNNING")
            history = self._client.get_metric_history(run_id, "val_auc")
            return max((metric.step for metric in history), default=0)
        tags = {RUN_TAG: self._run, TRIAL_TAG: trial.name}
        run = self._client.create_run(self._experiment, run_name=trial.name, tags=tags)
        self._ids[trial.number] = run.info.run_id
        for name, value in trial.params.items():
            self._client.log_param(run.info.run_id, name, value)
        return 0

    def epoch(self, trial: Shown, report: EpochReport, step: int) -> None:
        """Its figures and the terms of its loss."""
        self._log(trial, figures(report), step)

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """The trial's state as a tag: MLflow has no word for what was stopped early."""
        final = final_metrics(history, self._metric).items()
        self._log(
            trial, {n.replace("final/", "final_"): v for n, v in final}, step=len(history)
        )
        run_id = self._ids.pop(trial.number)
        self._client.set_tag(run_id, "state", state)
        if reason:
            self._client.set_tag(run_id, "reason", reason)
        self._client.set_terminated(run_id, "FAILED" if state == "failed" else "FINISHED")

    def close(self) -> None:
        """A trial that did not end keeps running, until a resume continues it."""

    def register(self, best: Place, trial: int) -> None:
        """Register the best student as a model, logged in the run of its trial.

        A student that needs the moments of its beats is none: a model takes beats alone.
        """
        from kdsearch.student.student import load_student  # noqa: PLC0415

        with warnings.catch_warnings(
            action="ignore"
        ):  # MLflow wants type hints of its own kind
            from kdsearch.tuning.mlflow_model import log_student  # noqa: PLC0415

        run_id = self._find(Shown(trial, "", {}).name)
        if run_id is None or load_student(best).card.input.context != "none":
            return
        log_student(best, uri=self._client.tracking_uri, run_id=run_id, name=self._name)

    def _find(self, trial: str) -> str | None:
        """The run of a trial of this search, if there is one."""
        found = self._client.search_runs(
            [self._experiment],
            f"tags.`{RUN_TAG}` = '{self._run}' and tags.{TRIAL_TAG} = '{trial}'",
        )
        return str(found[0].info.run_id) if found else None

    def _log(self, trial: Shown, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415

        now = int(time.time() * MILLISECONDS)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._ids[trial.number], metrics)


class WeightsAndBiases:
    """A run of W&B's per trial, in a group per search."""

    name = "wandb"

    @staticmethod
    def check() -> Any:
        """Return the mode of W&B.

        Raises:
            ValueError: There is no key, and ``WANDB_MODE`` asks for one.
        """
        import wandb  # noqa: PLC0415

        mode = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        if mode not in ("offline", "disabled") and not wandb.login(prompt=False):
            raise ValueError(
                "no API key found: set WANDB_API_KEY, run 'wandb login', or set "
                "WANDB_MODE=offline"
            )
        return mode

    def __init__(self, project: str, folder: RunFolder, metric: Metric = "val_auc") -> None:
        """Check that there is a key, or that ``WANDB_MODE`` is ``offline``."""
        self._metric = metric
        self._mode = self.check()
        self._project = project
        self._group = folder.path.name
        self._open: dict[int, Any] = {}

    def begin(self, trial: Shown) -> int:
        """A trial that is resumed keeps its id; W&B itself leaves out steps that it has."""
        import wandb  # noqa: PLC0415

        self._open[trial.number] = wandb.init(
            project=self._project,
            group=self._group,
            id=trial.trial_id,
            name=trial.name,
            config=dict(trial.params),
            mode=self._mode,
            dir=str(Path.cwd()),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_TIMEOUT_S,
                finish_timeout=UPLOAD_TIMEOUT_S,
                # Not the driver's: what is shown are trials, and these may hold secrets.
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        return 0

    def epoch(self, trial: Shown, report: EpochReport, step: int) -> None:
        """Its figures and the terms of its loss."""
        self._open[trial.number].log(figures(report), step=step)

    def end(
        self, trial: Shown, state: TrialState, reason: str, history: list[EpochReport]
    ) -> None:
        """Its state is in the run's configuration."""
        run = self._open.pop(trial.number)
        run.config.update({"state": state, "reason": reason}, allow_val_change=True)
        run.summary.update(final_metrics(history, self._metric))
        run.finish(exit_code=int(state == "failed"))

    def close(self) -> None:
        """Wait until everything is sent."""
        for run in self._open.values():
            run.finish()
