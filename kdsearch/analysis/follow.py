"""Show a running search in a terminal."""

from __future__ import annotations

import time
from collections import Counter
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kdsearch.analysis.run import Run, open_run
from kdsearch.analysis.summary import summarise
from kdsearch.analysis.terminal import Screen
from kdsearch.files.bucket import Place
from kdsearch.runs.driver_lock import LEASE_S, Claim, claims_on

INTERVAL_S = 2.0
# The most of a processor that reading the run may take.
SHARE = 0.1


def follow(path: Place, out: TextIO) -> None:
    """Show the leaderboard until the search ends or the user interrupts.

    In a terminal it is updated in place; elsewhere a line is written for each change.

    Raises:
        RunError: It is no run folder, or is damaged.
    """
    console, driver = Console(file=out), _Driver(path)
    last = ""
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                start = time.monotonic()
                run = open_run(path)
                alive = driver.alive()
                if console.is_terminal:
                    live.update(_page(run, console), refresh=True)
                elif (line := headline(run)) != last:
                    print(line, file=out, flush=True)
                    last = line
                if not alive:
                    return
                time.sleep(max(INTERVAL_S, (time.monotonic() - start) / SHARE))
    except KeyboardInterrupt:
        return


class _Driver:
    """The driver of a search, by the claim that it renews."""

    def __init__(self, path: Place) -> None:
        self._path = path
        self._claims: dict[str, Claim] = {}
        self._changed = time.monotonic()

    def alive(self) -> bool:
        """Return whether there is a claim that was renewed in time."""
        claims, now = claims_on(self._path), time.monotonic()
        if claims != self._claims:
            self._claims, self._changed = claims, now
        return bool(claims) and now - self._changed <= LEASE_S


def headline(run: Run) -> str:
    """Return how far a search is, in one line."""
    parts = []
    if run.generations:
        parts.append(f"generation {len(run.generations)}/{run.planned_generations}")
        run = run.generations[-1]
    states = Counter(record.state for record in run.records)
    best = run.best
    parts += [
        f"{len(run.records) - states['running']}/{run.planned} trials",
        f"{states['running']} running",
    ]
    if best is not None:
        parts.append(f"best {run.metric} {best.value:.4f} (trial {best.trial})")
    return " · ".join(parts)


def _page(run: Run, console: Console) -> Text:
    """The top of the summary, as much as the terminal has room for."""
    screen = Screen(console.width)
    lines = summarise([run], top=console.height, screen=screen).splitlines()
    foot = f"{headline(run)} · following {run.path}, Ctrl-C ends this"
    return Text.from_ansi("\n".join([*lines[: console.height - 2], foot]))
