"""Write runs as TensorBoard event files: curves, hyperparameters, final metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from kdsearch.analysis.run import Run
from kdsearch.config.dimensions import Value
from kdsearch.errors import RunError
from kdsearch.files.atomic import write_text
from kdsearch.files.bucket import Place
from kdsearch.methods.protocol import EpochReport
from kdsearch.metrics.ranking import Metric

# The suffix of our own files, which are replaced; other files are kept.
SUFFIX = ".kdsearch"
EVENTS = f"events.out.tfevents.*{SUFFIX}"
# A file in a run's folder of events: which run it shows.
OWNER = "kdsearch-run.txt"
# What the table of hyperparameters shows of a trial; test figures only of the finalists.
FINAL = (
    "final/val_auc",
    "final/val_ap",
    "final/best_epoch",
    "final/epochs",
    "final/seconds",
    "final/test_auc",
    "final/test_ap",
)


class TrialEvents:
    """The event file of one network; what an earlier one left in its folder is replaced."""

    def __init__(self, folder: Path) -> None:
        """Open the file.

        Raises:
            OSError: The folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(EVENTS):
            earlier.unlink()
        self._writer = SummaryWriter(str(folder), flush_secs=5, filename_suffix=SUFFIX)
        self._step = 0

    def add(self, history: Iterable[EpochReport]) -> None:
        """Write more reports; their number is the step."""
        for report in history:
            self._step += 1
            for name, value in figures(report).items():
                self._writer.add_scalar(name, value, self._step)
        self._writer.flush()

    def end(self, params: Mapping[str, Value], metrics: Mapping[str, float]) -> None:
        """Write hyperparameters and final metrics, and close the file."""
        _, begin, end = hparams(dict(params), dict(metrics))
        for summary in (begin, end):
            self._writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.close()


def run_folder(folder: Path, run: Place) -> Path:
    """Make the folder for a run's events: its name, or more of its path if that is taken.

    Raises:
        OSError: The folder cannot be written.
        RunError: Every part of the path is taken, by other runs or by files of others.
    """
    full = str(run.resolve())
    parts = [part for part in full.split("/") if part]
    for count in range(1, len(parts) + 1):
        chosen = folder.joinpath(*parts[-count:])
        owner = chosen / OWNER
        if not chosen.exists() or owner.is_file():
            if owner.is_file() and owner.read_text() != full:
                continue
            chosen.mkdir(parents=True, exist_ok=True)
            write_text(owner, full)
            return chosen
    raise RunError(f"{folder}: has other files where the events of {run} belong")


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of a trial's events; TensorBoard sorts by name."""
    return folder / f"trial-{number:03d}"


def final_metrics(history: Iterable[EpochReport], metric: Metric) -> dict[str, float]:
    """The first of `FINAL`, of the best epoch; empty before an epoch."""
    epochs = list(history)
    if not epochs:
        return {}
    best = max(epochs, key=lambda report: report.value(metric))
    seconds = sum(report.seconds for report in epochs)
    figures = (best.val_auc, best.val_ap, best.epoch, epochs[-1].epoch, seconds)
    return dict(zip(FINAL, figures, strict=False))


def write_columns(folder: Path, params: Mapping[str, Value]) -> None:
    """Write the columns of the table of hyperparameters, once for all trials.

    TensorBoard takes the first such entry that it finds and shows no other column.

    Args:
        params: Every searched setting with some value of it.
    """
    for earlier in folder.glob(EVENTS):
        earlier.unlink()
    metrics = dict.fromkeys(FINAL, 0.0)
    columns, _, _ = hparams({**params, "state": ""}, metrics)
    writer = SummaryWriter(str(folder), filename_suffix=SUFFIX)
    writer.file_writer.add_summary(columns)
    writer.close()


def write_tensorboard(runs: Sequence[Run], folder: Path) -> None:
    """Write runs, whatever state their searches are in; each has a folder in ``folder``.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = [record.params for run in runs for record in run.records]
    write_columns(folder, {key: value for params in known for key, value in params.items()})
    for run in runs:
        _write_run(run, run_folder(folder, run.path))


def _write_run(run: Run, folder: Path) -> None:
    """Write a folder of events for each trial and one for the teacher."""
    best = run.best
    for record in run.records:
        history = run.folder.trial(record.number).history()
        metrics = final_metrics(history, run.metric)
        if best is not None and best.trial == record.number and "test" in best.metrics:
            metrics |= _test_metrics(best.metrics["test"])
        shown: dict[str, Value] = {**record.params, "state": record.state}
        _write(trial_folder(folder, record.number), history, shown, metrics)
    if run.teacher:
        history = [EpochReport(**report) for report in run.teacher.get("history", ())]
        # Whatever the search's metric: a teacher serves searches by either.
        metrics = final_metrics(history, "val_auc")
        if run.metrics:
            metrics |= _test_metrics(run.metrics["teacher"]["test"])
        _write(folder / "teacher", history, {"state": "teacher"}, metrics)


def _write(
    folder: Path,
    history: list[EpochReport],
    params: Mapping[str, Value],
    metrics: Mapping[str, float],
) -> None:
    events = TrialEvents(folder)
    events.add(history)
    events.end(params, metrics)


def _test_metrics(test: Mapping[str, Any]) -> dict[str, float]:
    return dict(zip(FINAL[-2:], (test["roc_auc"], test["average_precision"]), strict=True))


def figures(report: EpochReport) -> dict[str, float]:
    """Return what is shown of an epoch: validation figures, seconds and losses."""
    losses = {f"loss/{name}": value for name, value in report.losses.items()}
    return {
        "val_auc": report.val_auc,
        "val_ap": report.val_ap,
        "seconds": report.seconds,
        **losses,
    }
