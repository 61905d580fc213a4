"""The command lines: parse, call, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdsearch.errors import ConfigError, Interrupted, SearchFailed, StorageFailed, UserError

SEARCH_EXAMPLES = """examples:
  python run_search.py --space search_spaces/kd.yaml
  python run_search.py --space search_spaces/mitbih_cpu.yaml --data path/to/mitdb
  python run_search.py --space search_spaces/kd.yaml --resume
  python run_search.py --space search_spaces/kd.yaml --num-samples 48 --resume
  python run_search.py --space search_spaces/mitbih.yaml --address auto --name fold0
"""
ANALYZE_EXAMPLES = """examples:
  python analyze.py runs/kd
  python analyze.py runs/kd --top 5 --format markdown
  python analyze.py runs/kd --state stopped --sort seconds
  python analyze.py runs/kd runs/random
  python analyze.py runs/kd --html report.html --plots figures
"""


def search_command(arguments: Sequence[str] | None = None) -> int:
    """``run_search.py``: run or resume a search, print its leaderboard."""
    return guarded(lambda: _search(_search_parser().parse_args(arguments)))


def analyze_command(arguments: Sequence[str] | None = None) -> int:
    """``analyze.py``: print the leaderboard of one or several runs."""
    return guarded(lambda: _analyze(_analyze_parser().parse_args(arguments)))


def guarded(command: Callable[[], int]) -> int:
    """Answer what the user can mend in one line; a traceback is a bug of ours."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SearchFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(
            f"{interrupted}: stopped; every finished epoch is kept, go on with --resume",
            file=sys.stderr,
        )
        return 128 + interrupted.signum
    except StorageFailed as error:
        print(
            f"error: {error}; make room and go on with --resume, nothing finished is lost",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2


def _print(text: str) -> None:
    """Print to a reader who may have seen enough, as ``head`` has after ten lines."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _search_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_search.py",
        description="Search the settings with which a student learns best from its teacher.",
        epilog=SEARCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--space", type=Path, required=True, metavar="FILE", help="the space file (YAML)")
    add("--name", help="name of the run; the space file's name where nothing is said")
    add("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    add(
        "--data",
        metavar="SOURCE",
        help="a folder of WFDB records, an .npz, a folder of BeatGAN arrays, 'mitbih' to "
        "download, or 'simulated'; replaces the space file's source",
    )
    add("--num-samples", type=int, metavar="N", help="trials in all, also after a resume")
    add("--max-concurrent", type=int, metavar="N", help="trials at a time")
    add("--time-budget", type=float, metavar="S", help="seconds after which the search pauses")
    add("--address", help="Ray cluster to use, for example 'auto'; default: this machine")
    add("--seed", type=int, help="seed of suggestions and students")
    add("--resume", action="store_true", help="go on with this run, or extend it")
    add("--dry-run", action="store_true", help="print the configuration and its cost only")
    add("--quiet", action="store_true", help="no progress, just the leaderboard")
    return parser


def _analyze_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analyze.py",
        description="The leaderboard of one or several runs, finished or not.",
        epilog=ANALYZE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="a run folder")
    add("--top", type=int, metavar="N", help="only the first N rows")
    add("--sort", metavar="COLUMN", help="sort by a column, best or largest first")
    add("--state", action="append", help="only trials in this state; may be repeated")
    add(
        "--confirm",
        action="store_true",
        help="train the best trials again with new seeds first, if that is still to be done",
    )
    add("--format", choices=("table", "csv", "markdown", "json"), default="table")
    add("--html", type=Path, metavar="FILE", help="write the report as one page, offline")
    add("--plots", type=Path, metavar="DIR", help="write its pictures for a paper")
    add("--plot-format", choices=("png", "svg"), default="png", help="default: png")
    return parser


def _search(options: argparse.Namespace) -> int:
    # Torch and Ray take seconds to import: not before the command line is known to be right.
    from rich.console import Console  # noqa: PLC0415

    from kdsearch.run_folder import RunFolder  # noqa: PLC0415
    from kdsearch.tuning.launch import search  # noqa: PLC0415
    from kdsearch.tuning.resume import Request, stored_flags  # noqa: PLC0415

    folder = RunFolder.named(options.runs_dir, options.name or options.space.stem)
    flags = _given_flags(options)
    if options.resume:
        flags = stored_flags(folder) | flags
    config = _with_flags(options.space, flags)
    console = Console(stderr=True, quiet=options.quiet)
    if options.dry_run:
        return _dry_run(config)
    request = Request(config, flags, folder, options.resume, options.address, console)
    search(request)
    _keep_report(folder)
    return _analyze(_analyze_parser().parse_args([str(folder.path)]))


def _keep_report(folder: Any) -> None:
    """Write the report of a search; one that finds no room is said, and costs no result."""
    from kdsearch.report import write_html  # noqa: PLC0415
    from kdsearch.summary import read_run  # noqa: PLC0415

    try:
        write_html(read_run(folder.path), folder.report_file)
    except OSError as error:
        reason = error.strerror or error
        print(f"no report: {folder.report_file}: {reason}; try --html", file=sys.stderr)
    else:
        print(f"report: {folder.report_file}", file=sys.stderr)


FLAGS = ("data", "num_samples", "max_concurrent", "time_budget", "seed")


def _given_flags(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in FLAGS}
    return {name: value for name, value in given.items() if value is not None}


def _with_flags(space: Path, flags: dict[str, Any]) -> Any:
    """The space file with the flags in place of what it says, checked like the file."""
    from kdsearch.config import parse_config, read_yaml  # noqa: PLC0415

    raw = read_yaml(space)
    config = parse_config(raw, str(space))
    if not flags:
        return config
    changed = config.as_dict()
    if "data" in flags:
        changed["data"]["source"] = flags["data"]
    names = {"time_budget": "time_budget_s"}
    for name in ("num_samples", "max_concurrent", "time_budget", "seed"):
        if name in flags:
            changed["search"][names.get(name, name)] = flags[name]
    given = ", ".join(f"--{name}" for name in flags).replace("_", "-")
    return parse_config(changed, f"{space} with {given}")


def _dry_run(config: Any) -> int:
    from kdsearch.data import cache_dir, load_dataset  # noqa: PLC0415
    from kdsearch.tuning.launch import resolve_teacher_compute  # noqa: PLC0415
    from kdsearch.tuning.plan import describe_plan  # noqa: PLC0415

    dataset = load_dataset(config.data, cache_dir())
    compute = resolve_teacher_compute(config)
    _print(describe_plan(config, dataset, compute, cache_dir()))
    return 0


def _confirm(run: Path) -> None:
    """Confirm a finished search by its own stored configuration."""
    from rich.console import Console  # noqa: PLC0415

    from kdsearch.run_folder import RunFolder  # noqa: PLC0415
    from kdsearch.tuning.launch import search  # noqa: PLC0415
    from kdsearch.tuning.resume import confirmation_request  # noqa: PLC0415

    search(confirmation_request(RunFolder.existing(run), Console(stderr=True)))


def _analyze(options: argparse.Namespace) -> int:
    from kdsearch.summary import summarise  # noqa: PLC0415

    if options.confirm:
        for run in options.runs:
            _confirm(run)
    text = summarise(
        options.runs,
        top=options.top,
        sort=options.sort,
        states=options.state,
        form=options.format,
    )
    _print(text)
    if options.html or options.plots:
        _report(options)
    return 0


def _report(options: argparse.Namespace) -> None:
    """The page and the pictures; where they are goes to people, not into a pipe."""
    from kdsearch.report import write_html, write_plots  # noqa: PLC0415
    from kdsearch.summary import read_run  # noqa: PLC0415

    if len(options.runs) > 1:
        raise ConfigError(f"--html and --plots: take one run, but found {len(options.runs)}")
    run = read_run(options.runs[0])
    if options.html:
        write_html(run, options.html)
        print(f"report: {options.html}", file=sys.stderr)
    if options.plots:
        for path in write_plots(run, options.plots, options.plot_format):
            print(f"picture: {path}", file=sys.stderr)
