"""The teacher: trained once per fingerprint and cached for all searches."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kdsearch.data.beats import Dataset, FloatArray, LabelledBeats
from kdsearch.errors import RunError, SearchFailed, TrialDiverged
from kdsearch.files.atomic import DamagedFile, load_state, save_state, write_json
from kdsearch.files.cache import writable_lock
from kdsearch.methods.protocol import Compute, EpochReport, Method, Stack, State, Targets, Task
from kdsearch.metrics.ranking import rank
from kdsearch.runs.folder import RunFolder
from kdsearch.teachers.existing import Existing
from kdsearch.teachers.kinds import Part, ensemble, part_scores, targets_of
from kdsearch.tuning.workers.training import judge

logger = logging.getLogger(__name__)

# A stack of one slot for a teacher of these settings, wherever it trains.
OpenStack = Callable[[BaseModel], AbstractContextManager[Stack]]

# Raised whenever the same settings would give another teacher.
RECIPE = 4


@dataclass(frozen=True)
class Teacher:
    """A trained teacher.

    Attributes:
        fingerprint: SHA-256 of data, split, architecture, training settings and seed.
        weights: Of its best epoch by validation AUC.
        history: Every epoch.
        found: True if it was in the cache already.
        origin: Where an existing teacher or an ensemble is from, as in ``teacher.json``.
    """

    fingerprint: str
    weights: State
    history: list[EpochReport]
    found: bool
    origin: dict[str, Any] | None = None

    @property
    def best(self) -> EpochReport:
        """The epoch whose weights were kept."""
        return max(self.history, key=lambda report: report.val_auc)

    @property
    def seconds(self) -> float:
        """Training time."""
        return sum(report.seconds for report in self.history)


def fingerprint(method: Method, settings: BaseModel, dataset: Dataset, compute: Compute) -> str:
    """Name a teacher by everything that determines its weights."""
    module = type(method).__module__
    ours = module.partition(".")[0] == "kdsearch"
    identity = {
        "recipe": RECIPE,
        # A built-in method's name survives a move of its module.
        "method": method.name if ours else f"{module}:{type(method).__qualname__}",
        "settings": settings.model_dump(mode="json"),
        "data": dataset.fingerprint,
        "precision": compute.precision,
        "device": compute.device,
    }
    # The text of a user's method may change. `RECIPE` counts the changes of built-in ones.
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is not None and not ours:
        identity["code"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class TeacherCache:
    """Teachers by fingerprint, in a folder that any number of searches share."""

    def __init__(self, folder: Path) -> None:
        """Name the cache's folder; nothing is read or created."""
        self._folder = folder / "teachers"

    def find(
        self, method: Method, settings: BaseModel, dataset: Dataset, compute: Compute
    ) -> Teacher | None:
        """Return the teacher of this fingerprint; None if it is not in the cache."""
        name = fingerprint(method, settings, dataset, compute)
        return _read(self._folder / name, name)

    def get(
        self,
        method: Method,
        settings: BaseModel,
        dataset: Dataset,
        compute: Compute,
        on_epoch: Callable[[EpochReport, int], None],
        *,
        on_wait: Callable[[], None] = lambda: None,
        open_stack: OpenStack | None = None,
    ) -> Teacher:
        """The teacher of this fingerprint, trained by the first process that asks.

        Searches that start together wait for the first of them. A training that was killed
        continues after its last epoch.

        Args:
            on_epoch: Called after each epoch trained here with its report and the number of
                epochs in all.
            on_wait: Called again and again while another process trains this teacher.
            open_stack: Where to train; by default in this process.

        Raises:
            SearchFailed: The teacher's training diverged.
        """
        name = fingerprint(method, settings, dataset, compute)
        entry = self._folder / name
        # Another user's cache can be read without its lock: the description is written last.
        found = _read(entry, name)
        if found is not None:
            return found
        with writable_lock(entry / ".lock", on_wait) as writable, ExitStack() as at_end:
            if not writable:
                entry = Path(at_end.enter_context(TemporaryDirectory(prefix="kdsearch-")))
            found = _read(entry, name)
            if found is not None:
                return found
            if open_stack is None:
                stack = method.teacher_stack(settings, Task(dataset.training, compute))
            else:
                stack = at_end.enter_context(open_stack(settings))
            validation = dataset.training.validation
            teacher = _train(name, entry, stack, settings, validation, on_epoch)
            save_state(entry / "model.pt", teacher.weights)
            history = [asdict(report) for report in teacher.history]
            write_json(entry / "teacher.json", {"history": history})
            (entry / "partial.pt").unlink(missing_ok=True)
            return teacher

    def targets(
        self, teacher: Teacher, method: Method, students: Sequence[BaseModel], task: Task
    ) -> Targets:
        """Return the students' targets, computed once and cached beside the teacher."""
        # Students of equal structure share their targets.
        structures = sorted({method.structure(student) for student in students})
        name = hashlib.sha256("\n".join(structures).encode()).hexdigest()[:16]
        path = self._folder / teacher.fingerprint / f"targets-{name}.pt"
        return _kept(path, lambda: targets_of(method, students, task))

    def scores(
        self, teacher: Teacher, method: Method, dataset: Dataset, compute: Compute
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return the teacher's scores of the validation and the test beats, cached likewise.

        Returns:
            Anomaly scores by the name of the part, ``validation`` and ``test``, shape (n,).
        """
        name = f"scores-{compute.device}-{compute.precision}.pt"
        beats: dict[Part, FloatArray] = {
            "validation": dataset.training.validation.x,
            "test": dataset.test.x,
        }
        return _kept(
            self._folder / teacher.fingerprint / name,
            lambda: {
                part: part_scores(teacher.weights, method, part, x, compute)
                for part, x in beats.items()
            },
        )


def _kept(path: Path, make: Callable[[], Targets]) -> Targets:
    """Return the arrays in a file of the cache; compute and write them where there are none."""
    try:
        return {key: value.numpy() for key, value in load_state(path).items()}
    except (OSError, DamagedFile):
        arrays = make()
    import torch  # noqa: PLC0415

    try:
        save_state(path, {key: torch.tensor(value) for key, value in arrays.items()})
    except OSError as error:
        logger.warning("%s: this cannot be kept in the cache: %s", path, error)
    return arrays


def _train(
    name: str,
    entry: Path,
    stack: Stack,
    settings: BaseModel,
    validation: LabelledBeats,
    on_epoch: Callable[[EpochReport, int], None],
) -> Teacher:
    """Train a teacher from its start or its last epoch; each epoch is saved."""
    file = entry / "partial.pt"
    history: list[EpochReport] = []
    weights: State = {}
    state: State | None = None
    with suppress(FileNotFoundError, DamagedFile):
        partial = load_state(file)
        history = [EpochReport(**report) for report in partial["history"]]
        weights, state = partial["weights"], partial["state"]
        logger.info("the teacher's training continues after epoch %d", len(history))
    seed, epochs = int(cast("Any", settings).seed), int(cast("Any", settings).epochs)
    stack.put_in(0, settings, seed=seed, state=state)
    while len(history) < epochs:
        try:
            report = judge(stack.advance()[0], validation)
        except TrialDiverged as error:
            raise SearchFailed(f"the teacher's training diverged: {error}") from None
        if report.val_auc > max((earlier.val_auc for earlier in history), default=-math.inf):
            weights = stack.weights(0)
        history.append(report)
        content = {
            "history": [asdict(epoch) for epoch in history],
            "weights": weights,
            "state": stack.save(0),
        }
        save_state(file, content)
        on_epoch(report, epochs)
    return Teacher(name, weights, history, found=False)


def _read(entry: Path, name: str) -> Teacher | None:
    """Read an entry; None if it is not complete: the description is written last."""
    try:
        description = json.loads((entry / "teacher.json").read_text())
        history = [EpochReport(**report) for report in description["history"]]
        if not history:
            raise ValueError("its history is empty")
        weights = load_state(entry / "model.pt")
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            logger.warning("the cached teacher %s cannot be read: %s", name, error)
        return None
    except (DamagedFile, ValueError, KeyError, TypeError) as error:
        logger.warning("the cached teacher %s is damaged and is trained again: %s", name, error)
        return None
    return Teacher(name, weights, history, found=True)


def with_seed(settings: BaseModel, seed: int) -> BaseModel:
    """The same recipe with another seed."""
    return type(settings).model_validate(settings.model_dump() | {"seed": seed})


def ensemble_teacher(
    members: Sequence[Teacher], method: Method, dataset: Dataset, compute: Compute
) -> Teacher:
    """Combine several trained teachers and measure them on the validation beats.

    Its history is one epoch, the last one of its members.
    """
    training = dataset.training
    states = [member.weights for member in members]
    state = ensemble(states, method, training.train, compute)
    validation = training.validation
    scores = part_scores(state, method, "validation", validation.x, compute)
    ranking = rank(scores, validation.abnormal)
    names = "\n".join(member.fingerprint for member in members)
    name = hashlib.sha256(names.encode()).hexdigest()
    report = EpochReport(
        max(member.history[-1].epoch for member in members),
        {},
        sum(member.seconds for member in members),
        ranking.roc_auc(),
        ranking.average_precision(),
    )
    origin = {
        "kind": f"ensemble of {len(members)}, trained with consecutive seeds",
        "members": [member.fingerprint for member in members],
        "val_auc": [member.best.val_auc for member in members],
        "content": name,
        "note": "",
    }
    found = all(member.found for member in members)
    return Teacher(name, state, [report], found=found, origin=origin)


def existing_teacher(existing: Existing) -> Teacher:
    """Return an existing teacher; its history is one epoch with number 0."""
    report = EpochReport(0, {}, 0.0, existing.val_auc, existing.val_ap)
    return Teacher(
        existing.fingerprint, existing.state, [report], found=False, origin=existing.origin
    )


def read_teacher(folder: RunFolder) -> Teacher | None:
    """Read the teacher in a run folder; None if it is missing or damaged."""
    if not folder.teacher_file.exists():
        return None
    try:
        description = folder.read_derived(folder.teacher_file)
        weights = load_state(folder.teacher_weights)
        history = [EpochReport(**report) for report in description["history"]]
        return Teacher(
            description["fingerprint"],
            weights,
            history,
            found=True,
            origin=description.get("origin"),
        )
    except (RunError, DamagedFile, FileNotFoundError, KeyError, TypeError) as error:
        logger.warning("the run's copy of its teacher cannot be used: %s", error)
        return None


def describe_teacher(teacher: Teacher, dataset: Dataset) -> dict[str, Any]:
    """The content of ``teacher.json``."""
    return {
        "fingerprint": teacher.fingerprint,
        "found_in_cache": teacher.found,
        "seconds": teacher.seconds,
        "epochs": teacher.history[-1].epoch,
        "best_epoch": teacher.best.epoch,
        "val_auc": teacher.best.val_auc,
        "val_ap": teacher.best.val_ap,
        "history": [asdict(report) for report in teacher.history],
        **({} if teacher.origin is None else {"origin": teacher.origin}),
        "data": {
            "fingerprint": dataset.fingerprint,
            "description": dataset.description,
            "notes": list(dataset.notes),
            "simulated": dataset.simulated,
            "abnormal_in_validation": float(dataset.training.validation.abnormal.mean()),
        },
    }
