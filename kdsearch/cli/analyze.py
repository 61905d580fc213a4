"""The command ``analyze``, which is ``analyze.py``: the leaderboard and the report."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.cli.command import Command, completed, say
from kdsearch.errors import ConfigError
from kdsearch.extras import needs
from kdsearch.files.bucket import parse_path

if TYPE_CHECKING:
    from kdsearch.analysis.run import Run

EXAMPLES = """\
runs/kd
runs/kd --top 5 --format markdown
runs/kd --state stopped --sort seconds
runs/kd --follow
runs/kd runs/random
runs/kd --html report.html --plots figures
runs/kd --optuna-storage journal.log --tensorboard events
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "runs",
        type=parse_path,
        nargs="+",
        metavar="RUN",
        help="a run folder or its URL",
    )
    add("--top", type=int, metavar="N", help="only the first N rows")
    sort = add("--sort", metavar="COLUMN", help="sort by a column, best or largest first")
    completed(sort, _columns)
    state = add("--state", action="append", help="only trials in this state; may be repeated")
    completed(state, _states)
    add(
        "--confirm",
        action="store_true",
        help="first train the best trials again with new seeds, if not done yet",
    )
    add(
        "--follow",
        action="store_true",
        help="show a running search until it ends, and then the leaderboard",
    )
    add("--format", choices=("table", "csv", "markdown", "json"), default="table")
    add("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    add("--plots", type=Path, metavar="DIR", help="write the report's pictures as files")
    add("--plot-format", choices=("png", "svg"), default="png", help="default: png")
    add(
        "--optuna-storage",
        metavar="FILE",
        help="write the runs for optuna-dashboard: FILE.log, FILE.db or sqlite:///FILE",
    )
    add("--tensorboard", type=Path, metavar="DIR", help="write the runs for TensorBoard")


def _columns(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the columns of the leaderboards of the runs named so far."""
    from kdsearch.runs.folder import RunFolder  # noqa: PLC0415

    columns: list[str] = []
    for run in parsed_args.runs or ():
        table = RunFolder(run).leaderboard_file.read_text(encoding="utf-8")
        columns += next(csv.reader(table.splitlines()))
    return columns


def _states(**_: object) -> tuple[str, ...]:
    from kdsearch.analysis.leaderboard import STATES  # noqa: PLC0415

    return tuple(STATES)


def _analyze(options: argparse.Namespace) -> int:
    with needs("search", "the analysis of a search"):
        from kdsearch.analysis.run import open_run  # noqa: PLC0415
        from kdsearch.analysis.summary import summarise  # noqa: PLC0415
        from kdsearch.analysis.terminal import Screen  # noqa: PLC0415

    if options.confirm:
        from rich.console import Console  # noqa: PLC0415

        from kdsearch.api import perform  # noqa: PLC0415
        from kdsearch.runs.folder import RunFolder  # noqa: PLC0415
        from kdsearch.tuning.request import confirmation_request  # noqa: PLC0415

        for run in options.runs:
            perform(confirmation_request(RunFolder.existing(run), Console(stderr=True)))
    if options.follow:
        from kdsearch.analysis.follow import follow  # noqa: PLC0415

        if len(options.runs) > 1:
            raise ConfigError(f"--follow: takes one run, but found {len(options.runs)}")
        # Of other formats only the final table is printed.
        follow(options.runs[0], sys.stdout if options.format == "table" else sys.stderr)
    runs = [open_run(path) for path in options.runs]
    text = summarise(
        runs,
        top=options.top,
        sort=options.sort,
        states=options.state,
        form=options.format,
        screen=Screen.of(sys.stdout),
    )
    say(text, clean=options.format == "table")
    if options.html or options.plots:
        _report(options, runs)
    if options.optuna_storage or options.tensorboard:
        _dashboards(options, runs)
    return 0


def _dashboards(options: argparse.Namespace, runs: list[Run]) -> None:
    """Write the runs for other programs, and print how to start these."""
    if options.optuna_storage:
        from kdsearch.analysis.optuna_storage import write_optuna  # noqa: PLC0415
        from kdsearch.runs.study_view import OptunaTarget  # noqa: PLC0415

        target = OptunaTarget.parse(options.optuna_storage)
        write_optuna(runs, target)
        print(f"Optuna study: show it with: optuna-dashboard {target}", file=sys.stderr)
    if options.tensorboard:
        from kdsearch.analysis.tensorboard import write_tensorboard  # noqa: PLC0415

        write_tensorboard(runs, options.tensorboard)
        command = f"tensorboard --logdir {options.tensorboard}"
        print(f"TensorBoard events: show them with: {command}", file=sys.stderr)


def _report(options: argparse.Namespace, runs: list[Run]) -> None:
    """Write the page and the pictures; print their paths to standard error."""
    from kdsearch.analysis.report import write_html, write_plots  # noqa: PLC0415

    if len(runs) > 1:
        raise ConfigError(f"--html and --plots: take one run, but found {len(runs)}")
    (run,) = runs
    if options.html:
        write_html(run, options.html)
        print(f"report: {options.html}", file=sys.stderr)
    if options.plots:
        for path in write_plots(run, options.plots, options.plot_format):
            print(f"picture: {path}", file=sys.stderr)


ANALYZE = Command(
    name="analyze",
    summary="print the leaderboard of one or several runs (same as analyze.py)",
    description="Print the leaderboard of one or several runs, finished or not.",
    examples=EXAMPLES,
    arguments=_arguments,
    run=_analyze,
)
