"""Progress as one updated line in a terminal, or as plain lines otherwise."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kdsearch.config.dimensions import Value
from kdsearch.methods.protocol import EpochReport
from kdsearch.metrics.ranking import Metric
from kdsearch.runs.study import Suggestion
from kdsearch.runs.trial_folder import TrialRecord, TrialState

PLAIN_INTERVAL_S = 30.0


class SearchProgress:
    """The progress of a search; an observer of the ledger."""

    def __init__(
        self,
        console: Console,
        total: int,
        earlier: list[TrialRecord],
        metric: Metric = "val_auc",
    ) -> None:
        """Begin with what earlier drivers finished."""
        self._metric = metric
        self._console = console
        self._total = total
        self._ended: Counter[str] = Counter(
            record.state for record in earlier if record.finished
        )
        self._before = sum(self._ended.values())
        self._params: dict[int, Mapping[str, Value]] = {r.number: r.params for r in earlier}
        self._running: dict[int, str] = {}
        self._best: tuple[float, int] = (-math.inf, -1)
        for record in earlier:
            if record.state != "failed":
                self._improve(record.number, record.value)
        self._start = time.monotonic()
        self._reached = {record.number: record.epochs for record in earlier}
        self._epochs: int | float = 0
        self._first_epoch_s: float | None = None
        self._last_line = self._start
        self._live: Live | None = None

    @property
    def in_notebook(self) -> bool:
        """Whether a table in a notebook shows the trials."""
        return self._console.is_jupyter and not self._console.quiet

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw the line for as long as the search runs."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self.line,
            console=self._console,
            refresh_per_second=2,
            transient=True,
        ):
            yield

    def started(self, suggestion: Suggestion) -> None:
        """A trial was handed to Tune."""
        self._params[suggestion.number] = suggestion.params
        self._running[suggestion.number] = "starting"

    def reported(self, record: TrialRecord, epochs: int) -> None:
        """A trial was validated: see `Observer`."""
        self._running[record.number] = f"{record.epochs:g}/{epochs}"
        # Not those that an earlier driver has trained, which are reported again.
        self._epochs += max(0, record.epochs - self._reached.get(record.number, 0))
        self._reached[record.number] = record.epochs
        if self._first_epoch_s is None:
            self._first_epoch_s = time.monotonic() - self._start
        self._improve(record.number, record.value)
        if time.monotonic() - self._last_line > PLAIN_INTERVAL_S:
            self._plain(self.line().plain)

    def ended(self, number: int, state: TrialState, reason: str) -> None:
        """A trial ended."""
        self._running.pop(number, None)
        self._ended[state] += 1
        text = f"trial {number} {state}" + (f": {reason}" if reason else "")
        self._plain(f"{text} · {self.line().plain}")

    def within(self, budget_s: float) -> str:
        """Return how much was done within a time budget."""
        ended = sum(self._ended.values()) - self._before
        said = f"the time budget of {duration(budget_s)} is used up: "
        if self._first_epoch_s is None:
            return (
                f"{said}no epoch was trained, because starting the trials alone takes longer; "
                "give a larger --time-budget"
            )
        return (
            f"{said}{ended} trials ended and {self._epochs:.10g} epochs were trained, the "
            f"first after {duration(self._first_epoch_s)}"
        )

    def line(self) -> Text:
        """Everything on one line."""
        done = sum(self._ended.values())
        parts = [f"{done}/{self._total} trials", f"{len(self._running)} running"]
        parts += [
            f"{self._ended[state]} {word}"
            for state, word in (("stopped", "stopped early"), ("failed", "failed"))
            if self._ended[state]
        ]
        here = done - self._before
        if here >= 2:
            left_s = (time.monotonic() - self._start) / here * (self._total - done)
            parts.append(f"about {duration(left_s)} left")
        # Last, because a narrow terminal cuts the end off.
        if self._best[1] >= 0:
            value, number = self._best
            params = " ".join(
                f"{key}={one:.3g}" if isinstance(one, float) else f"{key}={one}"
                for key, one in self._params.get(number, {}).items()
            )
            parts.append(f"best {self._metric} {value:.4f} (trial {number}: {params})")
        return Text(" · ".join(parts), overflow="ellipsis", no_wrap=True)

    def _improve(self, number: int, value: float) -> None:
        if value > self._best[0]:
            self._best = (value, number)

    def _plain(self, text: str) -> None:
        self._last_line = time.monotonic()
        if not self._console.is_terminal and not self.in_notebook:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


# Shows an epoch of a teacher: a report, the number of epochs in all, and which teacher of
# several it is.
ShowEpoch = Callable[[EpochReport, int, int], None]


@contextmanager
def teacher_progress(console: Console, members: int = 1) -> Iterator[ShowEpoch]:
    """A bar for each teacher's training, one step an epoch, that appears with the first."""
    with _bar(console, "{task.fields[name]}") as bar:
        tasks: dict[int, TaskID] = {}

        def on_epoch(report: EpochReport, epochs: int, member: int) -> None:
            name = f"teacher {member + 1} of {members}" if members > 1 else "teacher"
            text = f"val_auc {report.val_auc:.4f}"
            if not console.is_terminal:
                console.print(
                    f"{name} epoch {report.epoch}/{epochs}: {text}",
                    highlight=False,
                    markup=False,
                )
                return
            if member not in tasks:
                tasks[member] = bar.add_task(text, total=epochs, name=name)
            bar.update(tasks[member], completed=report.epoch, description=text)

        yield on_epoch


@contextmanager
def confirmation_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for the confirmation, one step for each network trained again."""
    with _bar(console, "confirmation") as bar:
        task = bar.add_task("", total=None)

        def on_done(text: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal:
                console.print(
                    f"confirmation {done}/{total}: {text}", highlight=False, markup=False
                )

        yield on_done


def _bar(console: Console, name: str) -> Progress:
    return Progress(
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def duration(seconds: float) -> str:
    """Return a time span in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
