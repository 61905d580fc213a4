"""Read earlier runs for a search that learns from them."""

from __future__ import annotations

from dataclasses import replace

from kdsearch.config.dimensions import Dimension, Fixed, Searched, Value
from kdsearch.config.space_file import Config
from kdsearch.errors import ConfigError
from kdsearch.files.bucket import parse_path
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.learned import Learned
from kdsearch.runs.study import sound
from kdsearch.runs.trial_folder import curve_of
from kdsearch.tuning.request import stored_config


def learn_from(path: str, config: Config) -> Learned:
    """Take over the finished trials of an earlier run.

    Where it maximised another metric than this search, its trials count with this metric.

    Raises:
        UserError: There is no run, or it does not search what ``config`` searches.
    """
    folder = RunFolder.existing(parse_path(path))
    earlier = stored_config(folder)
    searched = config.searched()
    for key, dimension in searched.items():
        _check_kind(key, dimension, earlier, path)
    metric = config.search.metric
    judged_again = metric if metric != earlier.search.metric else None
    records = [sound(record, earlier.space) for record in folder.records(earlier.search.metric)]
    trials, left_out = [], 0
    for record in records:
        if record.state not in ("completed", "stopped"):
            continue
        settings = earlier.student_settings(record.params).model_dump(mode="json")
        try:
            params = {key: d.canonical(settings[key]) for key, d in searched.items()}
        except ValueError:
            left_out += 1
            continue
        curve = record.curve
        if judged_again:
            history = folder.trial(record.number).history()
            curve = curve_of([r for r in history if r.epoch <= record.epochs], metric)
        if curve:
            # Limits there, and costs at another width, say nothing here.
            trials.append(replace(record, params=params, curve=curve, costs={}, refused=[]))
        else:
            left_out += 1
    return Learned(str(folder.path.resolve()), tuple(trials), left_out, judged_again)


def _check_kind(key: str, dimension: Searched, earlier: Config, path: str) -> None:
    """A setting that is fixed in the earlier run has a value in each of its trials, too."""
    there: Dimension | Value | None = earlier.space.get(key, earlier.student.get(key))
    if there is None:
        raise ConfigError(f"search.learn_from: {path} has no setting '{key}'")
    searched_there = isinstance(there, Dimension) and not isinstance(there, Fixed)
    if searched_there and type(there) is not type(dimension):
        raise ConfigError(
            f"search.learn_from: {path} searches another kind of '{key}': "
            f"{type(there).__name__.lower()}, here {type(dimension).__name__.lower()}"
        )
