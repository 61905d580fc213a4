"""Check whether a request is compatible with the content of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from kdsearch.config.space_file import (
    Config,
    ConfirmSettings,
    parse_config,
    parse_yaml,
    read_yaml,
)
from kdsearch.data.settings import DataSettings
from kdsearch.data.sources import resolved_paths
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import trials_in_all
from kdsearch.runs.study_view import OptunaTarget

# The key that a flag of the command line, or an argument of `kdsearch.search`, overrides.
FLAGS = {
    "data": "data.source",
    "num_samples": "search.num_samples",
    "max_concurrent": "search.max_concurrent",
    "time_budget": "search.time_budget_s",
    "seed": "search.seed",
    "teacher": "teacher.from",
}


# Keys that name code to import: on a resume they count only if the user gives them again.
FOREIGN = {"teacher", "teacher.detector", "teacher.options"}


@dataclass(frozen=True)
class Request:
    """What a command line or a notebook asks for.

    Attributes:
        config: The resolved search, overrides included.
        overrides: Values that replace the space file's, by key; a resume applies them again.
        folder: Where it runs.
        resume: Continue the run that is there; otherwise refuse it.
        address: A Ray cluster, or None for this machine alone.
        console: Where progress goes; a quiet one draws nothing.
        optuna_storage: Where the live Optuna study is written; None for ``study.journal`` in
            the run folder.
        track: Trackers that are told while it runs, ``NAME`` or ``NAME=WHERE``.
    """

    config: Config
    overrides: dict[str, Any]
    folder: RunFolder
    resume: bool
    address: str | None
    console: Console
    optuna_storage: OptunaTarget | None = None
    track: tuple[str, ...] = ()


def make_request(  # noqa: PLR0913
    space: Config,
    given: Mapping[str, Any],
    folder: RunFolder,
    *,
    resume: bool | Literal["auto"],
    address: str | None,
    console: Console,
    optuna_storage: str | None = None,
    track: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Request:
    """Return a request for a search of ``space``; a resume keeps the overrides of its start.

    Args:
        given: Values by the names of `FLAGS`; None if a flag is not given.
        resume: ``auto`` continues a run that exists and starts one that does not.
        settings: ``KEY=VALUE``, each of which replaces a key of the space file.

    Raises:
        ConfigError: A flag breaks a rule.
    """
    try:
        str(folder.path.resolve()).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"--runs-dir: the path of a run must be UTF-8, but found {folder.path.resolve()}"
        ) from None
    if resume == "auto":
        resume = folder.exists()
    overrides = {FLAGS[name]: value for name, value in given.items() if value is not None}
    labels = {key: f"--{name}".replace("_", "-") for name, key in FLAGS.items()}
    for text in settings:
        key, value = _setting(text)
        if key in overrides:
            raise ConfigError(f"--set {key}: this key is already set by another flag")
        overrides[key] = value
        labels[key] = f"--set {key}"
    own = set(overrides)
    if resume:
        stored = stored_overrides(folder)
        overrides = {k: v for k, v in stored.items() if k not in overrides} | overrides
    config = space
    if overrides:
        named = ", ".join(labels.get(key, f"--set {key}") for key in overrides)
        # What a run folder says may be another person's, and imports nothing from there.
        foreign = folder.path if "method" in overrides.keys() - own else None
        config = space.overridden(overrides, f"{space.origin} with {named}", foreign=foreign)
    if FOREIGN & overrides.keys() - own:
        config = replace(config, foreign=True)
    config = replace(
        config,
        data=resolved_paths(config.data),
        teacher_source=config.teacher_source.resolved(),
    )
    # A resume from another folder has to find the same data and the same teacher.
    for key, path in (
        ("data.source", config.data.source),
        ("data.patients", config.data.patients),
        ("teacher.from", config.teacher_source.as_plain().get("from")),
        ("teacher.discriminator", config.teacher_source.discriminator),
    ):
        if key in overrides:
            overrides[key] = path
    if resume and "data.source" not in overrides:
        config = replace(config, data=_as_at_the_start(config.data, folder))
    target = None if optuna_storage is None else OptunaTarget.parse(optuna_storage)
    if target is not None and target.is_in_a_run:
        raise ConfigError(f"--optuna-storage: {target} is a run's own study; name another file")
    return Request(config, overrides, folder, resume, address, console, target, tuple(track))


def _setting(text: str) -> tuple[str, object]:
    """Return the key and the value of ``KEY=VALUE``; the value is YAML, as in the file."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"--set: expected KEY=VALUE, such as student.width=16, but found {text!r}"
        )
    return key, parse_yaml(value, f"--set {key}")


def _as_at_the_start(data: DataSettings, folder: RunFolder) -> DataSettings:
    """Data that are not found, as from another current directory: where the run found them."""
    if Path(data.source).exists() or not folder.config_file.exists():
        return data
    raw = read_yaml(folder.config_file)
    stored = raw.get("data") if isinstance(raw, dict) else None
    source = stored.get("source") if isinstance(stored, dict) else None
    return data.changed(source=source) if isinstance(source, str) else data


def check_resume(request: Request) -> None:
    """Refuse to mix two searches in one folder.

    Raises:
        RunError: The folder holds a search and ``--resume`` was not given, or holds another
            one, or holds none and it was given. Names what differs.
    """
    folder, exists = request.folder, request.folder.exists()
    if request.resume and not exists:
        raise RunError(f"{folder.path}: nothing to resume; leave out --resume to start")
    if not request.resume and exists:
        raise RunError(
            f"{folder.path}: this run exists already; continue it with --resume, or choose "
            "another --name"
        )
    if not exists:
        return
    old, new = _identity(stored_config(folder)), _identity(request.config)
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key):
            raise RunError(
                f"{folder.path} holds a search with {key}={old.get(key)!r}, not "
                f"{new.get(key)!r}: resume it with its own file and flags, or choose another "
                "--name"
            )


def confirmation_request(folder: RunFolder, console: Console) -> Request:
    """The request that confirms a finished search and does nothing else.

    Raises:
        RunError: The search is not finished.
    """
    config = stored_config(folder)
    if config.search.generations > 1:
        raise RunError(
            f"{folder.path}: each generation is confirmed already; for more, name one of them, "
            f"such as {folder.generation_folder(1).path}"
        )
    records = folder.records()
    total = trials_in_all(config.search.num_samples, config.points, records)
    if len(records) != total or not all(r.finished for r in records):
        raise RunError(
            f"{folder.path}: the search is not finished; finish it with --resume first"
        )
    if config.confirm.top == 0:
        config = replace(config, confirm=ConfirmSettings())
    return Request(config, stored_overrides(folder), folder, True, None, console)


def stored_overrides(folder: RunFolder) -> dict[str, Any]:
    """Return the overrides of the run's start by key; empty before it."""
    if not folder.config_file.exists():
        return {}
    raw = read_yaml(folder.config_file)
    overrides = raw.get("overrides") if isinstance(raw, dict) else None
    return {str(k): v for k, v in overrides.items()} if isinstance(overrides, dict) else {}


def stored_config(folder: RunFolder) -> Config:
    """The resolved configuration that a run was started with.

    Raises:
        UserError: ``search.yaml`` is missing or damaged.
    """
    raw = read_yaml(folder.config_file)
    if not isinstance(raw, dict):
        raise RunError(
            f"{folder.config_file}: damaged; put it back with the space file that this run "
            "was started with"
        )
    raw.pop("overrides", None)
    return parse_config(raw, str(folder.config_file), foreign=folder.path)


def _identity(config: Config) -> dict[str, Any]:
    """What two searches must share to be one, flat; amounts and machines may differ.

    Where the data and the teacher are is not part of it, since they may have moved; their
    content is compared when they are read.
    """
    plain = config.as_dict()
    paths = {
        ("data", "source"),
        ("data", "patients"),
        ("teacher", "from"),
        ("teacher", "discriminator"),
    }
    free = {"num_samples", "max_concurrent", "time_budget_s", "retries", "keep_weights"}
    # What was learned at the start is kept, and earlier runs may have moved since.
    free |= {"learn_from", "generations"}
    flat: dict[str, Any] = {"method": plain["method"]}
    for section in ("data", "teacher", "student", "space", "search", "scheduler"):
        for key, value in plain[section].items():
            if (section, key) not in paths and key not in free:
                flat[f"{section}.{key}"] = value
    return flat
