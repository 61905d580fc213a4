"""Start a search from Python, with the same code as the command line."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from kdsearch.analysis.report import write_html
from kdsearch.analysis.run import Run, open_run
from kdsearch.config.space_file import Config, load_space, parse_config
from kdsearch.errors import ConfigError, Interrupted, speaking_of
from kdsearch.files.bucket import parse_path
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning import search as launch
from kdsearch.tuning.generations import search_generations
from kdsearch.tuning.request import Request, make_request


def search(  # noqa: PLR0913
    space: Config | Mapping[str, Any] | str | os.PathLike[str],
    *,
    name: str | None = None,
    runs_dir: str | os.PathLike[str] = "runs",
    data: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    num_samples: int | None = None,
    max_concurrent: int | None = None,
    time_budget: float | None = None,
    seed: int | None = None,
    address: str | None = None,
    optuna_storage: str | None = None,
    track: Sequence[str] = (),
    resume: bool | Literal["auto"] = False,
    progress: bool = True,
) -> Run:
    """Run or resume a search until it holds ``num_samples`` trials, as ``run_search.py`` does.

    Args:
        space: From `load_space`, perhaps with `Config.replace`; or a space file, its
            content as a dict, or the name of a shipped one.
        name: Of the run; default: the space file's name.
        runs_dir: The folder of the run's folder, or ``s3://bucket/path``.
        data: Replaces the space's ``data.source``.
        teacher: A teacher that exists, in place of the space's: a BeatGAN checkpoint, a run
            folder, or an .npz of scores.
        num_samples: Trials in all, also after a resume.
        max_concurrent: Trials at a time.
        time_budget: Seconds after which the search pauses.
        seed: Of suggestions and students.
        address: A Ray cluster, for example ``auto``; None for this machine alone.
        optuna_storage: Where the live Optuna study is written: ``FILE.log``, ``FILE.db`` or the
            URL of a database; None for ``study.journal`` in the run folder.
        track: Trackers to report to while it runs: ``tensorboard``, ``mlflow``, ``wandb``, each
            perhaps with ``=`` and its target.
        resume: Continue or extend this run, which must exist; False refuses a run that exists;
            ``auto`` continues a run that exists and starts one that does not.
        progress: Print progress to standard error.

    Raises:
        UserError: An error that the caller can fix, before anything is trained.
        SearchFailed: Every trial failed, or the teacher diverged.
        StorageFailed: The run folder cannot be written; finished trials are saved.
        KeyboardInterrupt: Ctrl-C; finished trials are saved.
    """
    given = {
        "data": None if data is None else os.fspath(data),
        "teacher": None if teacher is None else os.fspath(teacher),
        "num_samples": num_samples,
        "max_concurrent": max_concurrent,
        "time_budget": time_budget,
        "seed": seed,
    }
    config = _config(space, name)
    folder = RunFolder.named(parse_path(runs_dir), name or Path(config.origin).stem)
    console = Console(stderr=True, quiet=not progress)
    request = make_request(
        config,
        given,
        folder,
        resume=resume,
        address=address,
        console=console,
        optuna_storage=optuna_storage,
        track=track,
    )
    threads = torch.get_num_threads()
    try:
        return perform(request)
    except Interrupted as interrupted:
        # The signal now has the effect that it has without a search.
        signal.raise_signal(interrupted.signum)
        raise
    finally:
        torch.set_num_threads(threads)


def perform(request: Request) -> Run:
    """Run a request to its end, and write its report.

    Raises:
        UserError, SearchFailed, StorageFailed: As `search`.
        Interrupted: A signal came; finished trials are saved.
    """
    if request.config.search.generations > 1:
        search_generations(request, perform)
    else:
        with speaking_of(request.config.data.unit):
            launch.search(request)
    run = open_run(request.folder.path)
    path = run.folder.report_file
    try:
        write_html(run, path)
    except OSError as error:
        # The results are there without it.
        said = f"no report: {path}: {error.strerror or error}; try analyze.py --html"
    else:
        said = f"report: {path}"
    request.console.print(said, highlight=False, soft_wrap=True, markup=False)
    return run


def _config(
    space: Config | Mapping[str, Any] | str | os.PathLike[str], name: str | None
) -> Config:
    if isinstance(space, Config):
        return space
    if not isinstance(space, Mapping):
        return load_space(space)
    if name is None:
        raise ConfigError(
            "a space that is no file needs a name for its run: search(..., name=)"
        )
    return parse_config(dict(space), name, beside=Path.cwd())
