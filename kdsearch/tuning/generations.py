"""Generations: the best student of a search teaches the students of the next search.

runs/<name>/
  search.yaml          the configuration of all generations
  generations/<n>/     the run folder of each generation
  descent.json         the line of descent and its verdict
  leaderboard.csv      the trials of all generations
  best/                the best student of the generation that is the result
  report.html          the line of descent, and the report of that generation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kdsearch.analysis.leaderboard import leaderboard_of_generations
from kdsearch.data import cache_dir, load_dataset
from kdsearch.errors import ConfigError
from kdsearch.evaluation.descent import (
    Generation,
    describe_descent,
    is_better,
    read_generation,
)
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.confirm import seeds
from kdsearch.tuning.request import Request, check_resume


def search_generations(request: Request, perform: Callable[[Request], object]) -> None:
    """Run or resume the searches of all generations, one after the other.

    Args:
        perform: Runs or resumes one search to its end and writes its report.

    Raises:
        ConfigError: A live Optuna study can belong to one search only.
        UserError, SearchFailed, StorageFailed: As of one search.
    """
    if request.optuna_storage is not None:
        raise ConfigError(
            "--optuna-storage: each of several generations has a study of its own, in "
            "generations/<number>/study.journal; leave the flag out"
        )
    check_resume(request)
    folder, config = request.folder, request.config
    planned = config.search.generations
    with folder.lock():
        folder.write_config(config.as_dict(), request.overrides)
        line: list[Generation] = []
        for number in range(1, planned + 1):
            child = _request(request, line[-1].folder if line else None, number)
            _say(request, f"generation {number} of {planned}")
            perform(child)
            if not child.folder.concluded:
                _say(request, f"generation {number} is not finished; rerun with --resume")
                return
            # The data are in the cache by now.
            dataset = load_dataset(config.data, cache_dir())
            metric = config.search.metric
            line.append(read_generation(child.folder, number, seeds(config), dataset, metric))
            descent = describe_descent(line, seeds(config), dataset, planned)
            folder.write_descent(descent, line[descent["result"] - 1].folder)
            trials = {one.number: one.folder.records(metric) for one in line}
            table = leaderboard_of_generations(
                trials, list(config.searched()), config.search.cost_objectives, metric
            )
            folder.write_leaderboard(table.to_csv(index=False))
            if number > 1 and not is_better(line[-1], line[-2]):
                break
        _say(request, str(descent["ended"]))


def _request(request: Request, before: RunFolder | None, number: int) -> Request:
    """Return the request for a generation, which the best student before it teaches."""
    changes: dict[str, object] = {"search.generations": 1}
    if before is not None:
        changes["teacher.from"] = str(before.best)
    config = request.config.overridden(changes, request.config.origin)
    folder = request.folder.generation_folder(number)
    resume = folder.exists()
    return replace(request, config=config, overrides={}, folder=folder, resume=resume)


def _say(request: Request, text: str) -> None:
    request.console.print(text, highlight=False, soft_wrap=True, markup=False)
