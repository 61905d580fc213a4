"""Teachers that exist already: recognised by their content, checked before training."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.config.space_file import BUILT_IN, Config, load_method, read_yaml
from kdsearch.config.teacher_source import TeacherSource
from kdsearch.data.beats import Dataset
from kdsearch.errors import ConfigError, DataError, RunError
from kdsearch.files.atomic import DamagedFile, load_state
from kdsearch.files.bucket import Place, parse_path
from kdsearch.files.reading import read_arrays, reading
from kdsearch.files.tensors import load_tensors
from kdsearch.methods.protocol import SCORES, Compute, Method, Published, State, Teachable
from kdsearch.metrics.ranking import rank
from kdsearch.student.student import CARD, MODEL, Student, load_student
from kdsearch.teachers.detectors import detector_scores, make_detector
from kdsearch.teachers.kinds import (
    PARTS,
    TABLE,
    Part,
    ensemble,
    gives,
    part_scores,
    table,
    tensors_in,
)

RECIPE = 1
UNKNOWN = "what it was trained on is unknown"
EXPECTED = (
    "expected a BeatGAN generator, a kdsearch run folder, its best/ or teacher.pt, or an .npz "
    "with 'scores'"
)


@dataclass(frozen=True)
class Source:
    """One teacher that exists, as it was read; independent of the data.

    Attributes:
        kind: A description for reports.
        name: Its path or class, for messages.
        content: SHA-256 of its content.
        gives: What it gives to students of the searched method.
        state: Weights of the searched method, or None.
        scores: Of all beats of the data source, or None.
        student: A student of another method, or None.
        detector: Class and options, or None.
        trained_on: A description of its data; empty if that is unknown.
    """

    kind: str
    name: str
    content: str
    gives: frozenset[str]
    state: State | None = None
    scores: NDArray[np.float32] | None = None
    student: Student | None = None
    detector: tuple[str, dict[str, Any]] | None = None
    trained_on: str = ""


@dataclass(frozen=True)
class Existing:
    """A teacher that exists, checked on some data.

    Attributes:
        fingerprint: SHA-256 of its content and of the data.
        state: See `kdsearch.teachers.kinds`.
        val_auc: On the validation beats.
        val_ap: Likewise.
        origin: For ``teacher.json``.
    """

    fingerprint: str
    state: State
    val_auc: float
    val_ap: float
    origin: dict[str, Any]


def read_sources(config: Config) -> list[Source]:
    """Read all teachers that a configuration names, and check that they can teach.

    Raises:
        UserError: One cannot be read or used, or does not give what a target needs.
    """
    source, method = config.teacher_source, config.method
    if source.detector is not None:
        if config.foreign:
            raise RunError(
                f"{config.origin}: teacher.detector: {source.detector} is named by a run "
                "folder and is not imported; resume with --space and your own space file"
            )
        make_detector(source.detector, source.options)
        content = _sha256(json.dumps([source.detector, source.options], default=str).encode())
        found = [
            Source(
                f"detector {source.detector}",
                source.detector,
                content,
                frozenset({SCORES}),
                detector=(source.detector, source.options),
            )
        ]
    else:
        found = [_read(parse_path(path), source, config) for path in source.paths]
    given = frozenset.intersection(*(one.gives for one in found))
    what = found[0].name if len(found) == 1 else f"the ensemble of {len(found)} teachers"
    check_needs(config, given - ({"weights"} if len(found) > 1 else set()), what)
    if len(found) == 1 and found[0].state is not None and isinstance(method, Teachable):
        for student in _students(config):
            try:
                method.check_start(found[0].state, student)
            except ValueError as error:
                raise ConfigError(f"{config.origin}: {error}") from None
    return found


def check_needs(config: Config, given: frozenset[str], what: str) -> None:
    """Refuse students that need something that their teacher does not give.

    Raises:
        ConfigError: Names it, and what the teacher gives.
    """
    method = config.method
    if not isinstance(method, Teachable):
        if given == {SCORES}:
            raise ConfigError(
                f"{config.origin}: teacher: method {config.method_name!r} has no "
                "'targets_of_scores', and cannot learn from scores alone"
            )
        return
    for student in _students(config):
        missing = method.needs(student) - given
        if missing:
            target = getattr(student, "target", None)
            whose = f"target {target!r}" if target else f"method {config.method_name!r}"
            raise ConfigError(
                f"{config.origin}: teacher: {whose} needs {_listed(missing)}, but {what} gives "
                f"{_listed(given)}"
            )


def content_of(sources: Sequence[Source]) -> str:
    """Return the SHA-256 of the content of all teachers; paths do not change it."""
    return (
        sources[0].content
        if len(sources) == 1
        else _sha256("".join(source.content for source in sources).encode())
    )


def realise(
    sources: Sequence[Source], config: Config, dataset: Dataset, compute: Compute, cache: Path
) -> Existing:
    """Check the teachers on the data, and combine several as an ensemble.

    Args:
        cache: Keeps the scores of detectors.

    Raises:
        UserError: A teacher does not fit the data, or ranks normal beats above abnormal ones.
    """
    states = [_state(source, config.method, dataset, compute, cache) for source in sources]
    qualities = [
        _quality(state, config.method, dataset, compute, source.name)
        for source, state in zip(sources, states, strict=True)
    ]
    state, (val_auc, val_ap) = states[0], qualities[0]
    if len(states) > 1:
        state = ensemble(states, config.method, dataset.training.train, compute)
        name = " + ".join(source.name for source in sources)
        val_auc, val_ap = _quality(state, config.method, dataset, compute, name)
    content = content_of(sources)
    identity = {
        "existing": RECIPE,
        "content": content,
        "scores": [_sha256_of(s) for s in states if s["method"] == TABLE],
        "data": dataset.fingerprint,
        "precision": compute.precision,
    }
    return Existing(
        fingerprint=_sha256(json.dumps(identity, sort_keys=True).encode()),
        state=state,
        val_auc=val_auc,
        val_ap=val_ap,
        origin={
            "kind": " + ".join(source.kind for source in sources),
            "from": [source.name for source in sources],
            "content": content,
            "gives": sorted(gives(state, config.method)),
            "note": "; ".join(dict.fromkeys(_note(source) for source in sources)),
        },
    )


def _note(source: Source) -> str:
    if source.detector is not None:
        return "fitted on the training beats"
    return f"trained on {source.trained_on}" if source.trained_on else UNKNOWN


def _read(path: Place, source: TeacherSource, config: Config) -> Source:
    if path.is_dir():
        folder = path / "best" if (path / "best").is_dir() else path
        if (path / "search.yaml").exists() and folder == path:
            raise RunError(
                f"{path}: this search has no best student yet; finish it with --resume"
            )
        return _student(folder, config)
    if not path.is_file():
        raise ConfigError(f"teacher.from: {path}: no such file or folder")
    if path.name == MODEL:
        return _student(path.parent, config)
    content = path.read_bytes()
    body = memoryview(content)[32:]
    if hashlib.sha256(body).digest() == content[:32]:
        return _weights(load_state(path), "kdsearch teacher", path, config)
    if _is_npz(content):
        return _table(content, path)
    return _published(content, path, source, config)


def _student(folder: Place, config: Config) -> Source:
    """Read the best student of an earlier search, also of another method."""
    try:
        state = load_tensors(folder / MODEL)
    except FileNotFoundError:
        raise RunError(f"teacher.from: {folder}: no {MODEL} in it; {EXPECTED}") from None
    except DamagedFile as error:
        raise RunError(f"teacher.from: {error}") from None
    if state.get("method") == config.method.name:
        found = _weights(state, "student of an earlier search", folder, config)
        return replace(found, trained_on=_trained_on(folder))
    # Of another built-in method, which teaches by its scores alone.
    method = str(state.get("method"))
    if method not in BUILT_IN:
        raise ConfigError(
            f"teacher.from: {folder}: a student of the method {method!r}, whose code is not "
            "imported from there; name that method in 'method', or give its scores as an .npz"
        )
    return Source(
        f"student of an earlier search, method {method}",
        str(folder),
        _sha256_of(state),
        frozenset({SCORES}),
        student=load_student(folder),
        trained_on=_trained_on(folder),
    )


def _trained_on(folder: Place) -> str:
    """Return the description of the data in a student's card; empty if there is none."""
    raw = read_yaml(folder / CARD)
    data = raw.get("data") if isinstance(raw, dict) else None
    return str(data.get("description", "")) if isinstance(data, dict) else ""


def _weights(state: State, kind: str, path: Place, config: Config) -> Source:
    method = config.method
    if state.get("method") != method.name:
        raise ConfigError(
            f"teacher.from: {path}: weights of the method {state.get('method')!r}, but "
            f"{config.method_name!r} is searched; give a run folder, whose student scores beats"
        )
    return Source(kind, str(path), _sha256_of(state), gives(state, method), state=state)


def _is_npz(content: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


def _table(content: bytes, path: Place) -> Source:
    with reading(path, "a readable .npz file"):
        arrays = read_arrays(io.BytesIO(content))
    if "scores" not in arrays:
        found = ", ".join(sorted(arrays)) or "none"
        raise DataError(f"teacher.from: {path}: no array 'scores' in it (found: {found})")
    scores = arrays["scores"]
    if scores.ndim != 1 or scores.dtype.kind not in "iuf":
        raise DataError(
            f"teacher.from: {path}: 'scores' must be one number per beat, but found "
            f"{scores.dtype} of shape {scores.shape}"
        )
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32)
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(f"teacher.from: {path}: scores[{row}] is {scores[row]}, not finite")
    return Source(
        "table of scores",
        str(path),
        _sha256(scores.tobytes()),
        frozenset({SCORES}),
        scores=scores,
    )


def _published(content: bytes, path: Place, source: TeacherSource, config: Config) -> Source:
    """Read a published state dict by the first built-in method that recognises it."""
    tensors = _tensors(content, path)
    second = _discriminator_file(path, source)
    beside = {} if second is None else _tensors(second.read_bytes(), second)
    for name in BUILT_IN:
        method = load_method(name, config.origin)
        if not isinstance(method, Published):
            continue
        try:
            state = method.adopt(tensors, beside)
        except ValueError as error:
            files = path if second is None else f"{path} and {second}"
            raise ConfigError(f"teacher.from: {files}: {error}") from None
        if state is not None:
            return _weights(state, f"published checkpoint, method {name}", path, config)
    raise ConfigError(f"teacher.from: {path}: no network in it that is known; {EXPECTED}")


def _discriminator_file(path: Place, source: TeacherSource) -> Place | None:
    """Return the named discriminator, or ``…_D`` beside a generator ``…_G``."""
    if source.discriminator is not None:
        chosen = parse_path(source.discriminator)
        if not chosen.is_file():
            raise ConfigError(f"teacher.discriminator: {chosen}: no such file")
        return chosen
    stem, dot, suffix = path.name.rpartition(".")
    if not stem.endswith("_G"):
        return None
    beside = path.with_name(f"{stem[:-1]}D{dot}{suffix}")
    return beside if beside.is_file() else None


def _tensors(content: bytes, path: Place) -> Mapping[str, Any]:
    """Read a file of tensors; no code in it is run."""
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # torch can raise anything for a file of another kind.
    except Exception as error:  # noqa: BLE001
        wanted = re.search(r"(?:Unsupported global: )?GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and wanted:
            raise ConfigError(
                f"teacher.from: {path}: not a file of tensors alone: it needs {wanted[1]:.80}, "
                "and code that a file names is not run; save a state_dict() with torch.save"
            ) from None
        raise ConfigError(
            f"teacher.from: {path}: not a readable file of tensors; {EXPECTED}"
        ) from None
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"teacher.from: {path}: a {type(found).__name__} and no state dict; {EXPECTED}"
        )
    return found


def _state(
    source: Source, method: Method, dataset: Dataset, compute: Compute, cache: Path
) -> State:
    if source.detector is not None:
        return table(detector_scores(*source.detector, dataset, cache))
    if source.scores is not None:
        return table(_rows_of(source.scores, dataset, source.name))
    if source.student is not None:
        return table(_scores_by(source.student, dataset, source.name))
    assert source.state is not None
    try:
        method.score(source.state, dataset.training.validation.x[:1], compute)
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"teacher.from: {source.name}: does not score the beats of this data: {reason}"
        ) from None
    return source.state


def _rows_of(
    scores: NDArray[np.float32], dataset: Dataset, name: str
) -> dict[Part, NDArray[np.float32]]:
    rows = dataset.rows
    if rows is None or len(scores) != dataset.source_beats:
        raise DataError(
            f"teacher.from: {name}: 'scores' has {len(scores)} values, but the data source has "
            f"{dataset.source_beats} beats; give one per beat, in the source's order"
        )
    if len(rows.train) != len(dataset.training.train):
        raise ConfigError(
            "data.n_aug: a table of scores has none of warped copies; set n_aug to 0"
        )
    return {part: scores[getattr(rows, part)] for part in PARTS}


def _scores_by(
    student: Student, dataset: Dataset, name: str
) -> dict[Part, NDArray[np.float32]]:
    card, training = student.card.input, dataset.training
    expected = (card.all_leads, card.padded_length)
    if training.train.shape[1:] != expected:
        raise ConfigError(
            f"teacher.from: {name}: trained on beats of shape {expected}, but these have "
            f"{training.train.shape[1:]}"
        )
    return {
        "train": student.score_prepared(training.train),
        "validation": student.score_prepared(training.validation.x),
        "test": student.score_prepared(dataset.test.x),
    }


def _quality(
    state: State, method: Method, dataset: Dataset, compute: Compute, name: str
) -> tuple[float, float]:
    """Compute AUC and AP on the validation beats.

    Raises:
        ConfigError: Scores are not finite, or in the wrong direction.
    """
    validation = dataset.training.validation
    scores = part_scores(state, method, "validation", validation.x, compute)
    is_table = state["method"] == TABLE
    train = state["train"] if is_table else torch.zeros(1)
    if scores.shape != validation.abnormal.shape or not np.isfinite(scores).all():
        raise ConfigError(f"teacher: {name}: gives no finite score for each validation beat")
    if not bool(torch.isfinite(train).all()):
        raise ConfigError(f"teacher: {name}: gives no finite score for each training beat")
    ranking = rank(scores, validation.abnormal)
    auc = ranking.roc_auc()
    # A network's score has one direction, however little it has learned.
    if is_table and auc < 0.5:
        raise ConfigError(
            f"teacher: {name}: its scores rank normal validation beats above abnormal ones "
            f"(AUC {auc:.4f}); scores must be higher for abnormal beats"
        )
    return auc, ranking.average_precision()


def _students(config: Config) -> list[BaseModel]:
    return [config.student_settings(point) for point in config.corners()]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of(state: State) -> str:
    """Hash names and values: the same weights in another file are the same teacher."""
    total = hashlib.sha256()
    for name, value in tensors_in(state):
        total.update(name.encode())
        if torch.is_tensor(value):
            total.update(f"{value.dtype} {tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().numpy().tobytes())
        else:
            total.update(repr(value).encode())
    return total.hexdigest()


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
