"""The command ``search``, which is ``run_search.py``: run or resume a search."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from argcomplete.completers import FilesCompleter

from kdsearch.commands.command import Command, completed, say
from kdsearch.shipped import find_space, shipped_spaces

EXAMPLES = """\
--space search_spaces/kd.yaml
--space search_spaces/mitbih_cpu.yaml --data path/to/mitdb
--space search_spaces/kd.yaml --resume
--space search_spaces/kd.yaml --num-samples 48 --resume
--space mitbih --address auto --name fold0
"""
FLAGS = ("data", "num_samples", "max_concurrent", "time_budget", "seed")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    space = add(
        "--space",
        type=Path,
        required=True,
        metavar="FILE",
        help="the space file, or the name of a shipped one, such as kd",
    )
    completed(space, _spaces)
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
    add(
        "--study",
        metavar="URL",
        help="keep the study in a database, postgresql://user@host/database, and not in a "
        "journal in the run folder",
    )
    add("--seed", type=int, help="seed of suggestions and students")
    add("--resume", action="store_true", help="go on with this run, or extend it")
    add("--dry-run", action="store_true", help="print the configuration and its cost only")
    add("--quiet", action="store_true", help="no progress, just the leaderboard")


def _spaces(prefix: str, **_: object) -> list[str]:
    return [*shipped_spaces(), *FilesCompleter(("yaml", "yml"))(prefix)]


def _search(options: argparse.Namespace) -> int:
    # Torch and Ray take seconds to import: not before the command line is known to be right.
    from rich.console import Console  # noqa: PLC0415

    from kdsearch.run_folder import RunFolder  # noqa: PLC0415
    from kdsearch.summary import summarise  # noqa: PLC0415
    from kdsearch.tuning.launch import search  # noqa: PLC0415
    from kdsearch.tuning.resume import Request, stored_flags  # noqa: PLC0415

    folder = RunFolder.named(options.runs_dir, options.name or options.space.stem)
    flags = _given_flags(options)
    if options.resume:
        flags = stored_flags(folder) | flags
    config = _with_flags(find_space(options.space), flags)
    console = Console(stderr=True, quiet=options.quiet)
    if options.dry_run:
        return _dry_run(config)
    request = Request(
        config, flags, folder, options.resume, options.address, console, options.study
    )
    search(request)
    _keep_report(folder)
    say(summarise([folder.path]))
    return 0


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


def _given_flags(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in FLAGS}
    return {name: value for name, value in given.items() if value is not None}


def _dry_run(config: Any) -> int:
    from kdsearch.data import cache_dir, load_dataset  # noqa: PLC0415
    from kdsearch.tuning.launch import resolve_teacher_compute  # noqa: PLC0415
    from kdsearch.tuning.plan import describe_plan  # noqa: PLC0415

    dataset = load_dataset(config.data, cache_dir())
    compute = resolve_teacher_compute(config)
    say(describe_plan(config, dataset, compute, cache_dir()))
    return 0


SEARCH = Command(
    name="search",
    summary="search the settings of a student, as run_search.py",
    description="Search the settings with which a student learns best from its teacher.",
    examples=EXAMPLES,
    arguments=_arguments,
    run=_search,
)
