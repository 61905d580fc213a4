"""The command ``search``, which is ``run_search.py``: run or resume a search."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from argcomplete.completers import FilesCompleter

from kdsearch.cli.command import Command, completed, say
from kdsearch.config.shipped import shipped_spaces
from kdsearch.errors import speaking_of
from kdsearch.extras import needs
from kdsearch.files.bucket import parse_path

EXAMPLES = """\
--space kd
--space mitbih_cpu --data path/to/mitdb
--space kd --resume
--space kd --num-samples 48 --resume
--space kd --set student.width=16 --set "space.lr={loguniform: [1e-5, 1e-3]}"
--space search_spaces/mitbih.yaml --address auto --name fold0
"""


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
    add("--name", help="name of the run; default: the name of the space file")
    add(
        "--runs-dir",
        type=parse_path,
        default=Path("runs"),
        metavar="DIR",
        help="folder of runs, or s3://bucket/path or gs://bucket/path; default: runs",
    )
    add(
        "--data",
        metavar="SOURCE",
        help="a folder of WFDB records, an .npz, a folder of BeatGAN arrays, 'mitbih' to "
        "download, or 'simulated'; replaces the space file's source",
    )
    add(
        "--teacher",
        metavar="PATH",
        help="a teacher that exists: a BeatGAN checkpoint, a run folder, or an .npz of scores; "
        "replaces the space file's",
    )
    add(
        "--num-samples",
        type=int,
        metavar="N",
        help="total number of trials, also after a resume",
    )
    add("--max-concurrent", type=int, metavar="N", help="maximum number of concurrent trials")
    add("--time-budget", type=float, metavar="S", help="seconds after which the search pauses")
    add("--address", help="Ray cluster to use, for example 'auto'; default: this machine")
    add(
        "--optuna-storage",
        metavar="URL",
        help="where to write the live Optuna study; default: study.journal in the run folder: "
        "FILE.log, FILE.db or postgresql://user@host/database",
    )
    add(
        "--track",
        action="append",
        default=[],
        metavar="TRACKER",
        help="report to a tracker while the search runs: tensorboard[=DIR], mlflow[=URI] or "
        "wandb[=PROJECT]; may be repeated",
    )
    add("--seed", type=int, help="seed of the suggestions and of every student")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a key of the space file, for example student.width=16; may be repeated",
    )
    add(
        "--resume",
        nargs="?",
        choices=("auto",),
        const=True,
        default=False,
        help="continue or extend this run; 'auto' also starts it if there is none",
    )
    add("--dry-run", action="store_true", help="only print the configuration and its cost")
    add("--quiet", action="store_true", help="print only the leaderboard, no progress")


def _spaces(prefix: str, **_: object) -> list[str]:
    return [*shipped_spaces(), *FilesCompleter(("yaml", "yml"))(prefix)]


def _search(options: argparse.Namespace) -> int:
    # Torch and Ray take seconds to import, so the command line is parsed first.
    with needs("search", "a search"):
        from rich.console import Console  # noqa: PLC0415

        from kdsearch.analysis.summary import summarise  # noqa: PLC0415
        from kdsearch.analysis.terminal import Screen  # noqa: PLC0415
        from kdsearch.api import perform  # noqa: PLC0415
        from kdsearch.config.space_file import load_space  # noqa: PLC0415
        from kdsearch.runs.folder import RunFolder  # noqa: PLC0415
        from kdsearch.tuning.request import FLAGS, make_request  # noqa: PLC0415

    folder = RunFolder.named(options.runs_dir, options.name or options.space.stem)
    request = make_request(
        load_space(options.space),
        {name: getattr(options, name) for name in FLAGS},
        folder,
        resume=options.resume,
        address=options.address,
        console=Console(stderr=True, quiet=options.quiet),
        optuna_storage=options.optuna_storage,
        track=options.track,
        settings=options.set,
    )
    if options.dry_run:
        return _dry_run(request)
    say(summarise([perform(request)], screen=Screen.of(sys.stdout)), clean=True)
    return 0


def _dry_run(request: Any) -> int:
    from kdsearch.data import cache_dir, load_dataset  # noqa: PLC0415
    from kdsearch.tuning.memory_needed import check_memory  # noqa: PLC0415
    from kdsearch.tuning.plan import describe_plan  # noqa: PLC0415
    from kdsearch.tuning.search import resolve_driver_compute  # noqa: PLC0415
    from kdsearch.tuning.trackers import check_trackers  # noqa: PLC0415

    config = request.config
    check_trackers(request.track)
    if request.address is None:
        check_memory(config)
    dataset = load_dataset(config.data, cache_dir())
    with speaking_of(config.data.unit):
        compute = resolve_driver_compute(request)
        say(describe_plan(config, dataset, compute, cache_dir()))
    return 0


SEARCH = Command(
    name="search",
    summary="search the settings of a student (same as run_search.py)",
    description="Search the settings with which a student learns best from its teacher.",
    examples=EXAMPLES,
    arguments=_arguments,
    run=_search,
)
