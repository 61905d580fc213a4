"""A trained student that scores raw beats.

Needs neither Ray nor Optuna. A student consists of its weights, ``model.safetensors``, and its
card, ``config.yaml``: the settings, the preprocessing of a beat, and the threshold from which a
beat is called abnormal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field, ValidationError

from kdsearch import __version__
from kdsearch.config.space_file import Config, load_method, read_yaml
from kdsearch.data.arrays import as_float32
from kdsearch.data.beats import (
    LENGTH_MULTIPLE,
    BoolArray,
    Cutting,
    Dataset,
    FloatArray,
    Moments,
    TextArray,
    normalise,
    pad,
)
from kdsearch.data.context import Reference, all_leads, references, signal_leads, with_context
from kdsearch.errors import ConfigError, DataError, RunError, speaking_of
from kdsearch.files.atomic import DamagedFile
from kdsearch.files.bucket import BucketPath, Place, parse_path
from kdsearch.files.reading import read_arrays, reading
from kdsearch.files.tensors import load_tensors
from kdsearch.methods.protocol import Compute, Reconstructing
from kdsearch.metrics.ranking import Ranking, rank
from kdsearch.metrics.threshold import parse_rule
from kdsearch.settings import Section
from kdsearch.texts import BEAT

if TYPE_CHECKING:
    from kdsearch.methods.protocol import Method, State

MODEL, CARD, VALIDATION = "model.safetensors", "config.yaml", "validation.npz"
VALIDATION_CONTENT = "the scores that a rule needs; without them a threshold is a number"
# Students are evaluated as they are used: on a CPU, in full precision.
COMPUTE = Compute("cpu", "fp32")
# What a method may raise over weights that are not its own, or not of this card.
UNFIT = (ValueError, RuntimeError, LookupError, TypeError, AttributeError)

Count = Annotated[int, Field(ge=1)]


class InputCard(Section):
    """The form in which a beat is scored."""

    leads: Count
    """Leads of a raw beat."""
    length: Count
    """Samples of a raw beat."""
    padded_length: Count
    """Samples that the networks see; the edge samples are repeated on both sides."""
    normalisation: Literal["each beat and lead to [-1, 1]"] = "each beat and lead to [-1, 1]"
    """By smallest and largest sample; a flat beat becomes zeros."""
    cutting: Cutting | None
    """How the beats were cut from recordings; None where that is not known."""
    context: Literal["none", "patient"] = "none"
    """``patient``: more leads compare a beat with its patient's own, see
    `kdsearch.data.context`; its time has to be known."""

    @property
    def all_leads(self) -> int:
        """Number of leads of the networks' input, with those of the context."""
        return all_leads(self.leads, context=self.context == "patient")


class DataCard(Section):
    """The data that the student was trained on."""

    description: str
    """One line for people."""
    simulated: bool
    """True for generated beats, which prove nothing about real ones."""
    unit: str = BEAT
    """What a beat is called in messages, in the singular."""


class Card(Section):
    """The content of ``config.yaml``: all that scoring needs besides the weights."""

    kdsearch: str = __version__
    """Version that wrote it."""
    method: str
    """``beatgan``, ``memory`` or ``package.module:Class``."""
    student: dict[str, Any]
    """The student's settings, fixed and searched."""
    input: InputCard
    """Return the required form of a beat."""
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """Beats that score as much or more are flagged; chosen on the validation beats."""
    data: DataCard
    """The data that it was trained on."""


def describe_student(
    config: Config, settings: BaseModel, dataset: Dataset, threshold: float
) -> dict[str, Any]:
    """The card of a student, as plain values.

    Args:
        config: The search that found it.
        settings: The student's own.
        dataset: What it was trained on.
        threshold: From its scores of the validation beats, calculated with `COMPUTE`.
    """
    _, leads, padded_length = dataset.test.x.shape
    context = dataset.training.context
    card = Card(
        method=config.method_name,
        student=settings.model_dump(mode="json"),
        input=InputCard(
            leads=signal_leads(leads, context=context),
            length=dataset.length,
            padded_length=padded_length,
            cutting=dataset.cutting,
            context="patient" if context else "none",
        ),
        threshold=threshold,
        data=DataCard(
            description=dataset.description, simulated=dataset.simulated, unit=dataset.unit
        ),
    )
    return card.model_dump(mode="json")


class Student:
    """A trained student.

    All methods take raw beats, of shape (n, leads, length); where there is one lead, also
    (n, length), or (length,) for a single beat. They are normalised and padded as in training.
    The unit does not matter, since each beat is scaled by its own extremes. How a beat is cut
    and filtered does: see ``card.input.cutting``. Where ``card.input.context`` is ``patient``,
    all beats of a recording are given at once, its first minutes among them, with their
    moments, and where there are several recordings with the record of each beat.

    Attributes:
        card: Its method and data, and the form of its input.
        settings: Settings that it was trained with.
        threshold: Beats with at least this score are flagged; chosen on the validation beats.
    """

    def __init__(self, method: Method, weights: State, card: Card) -> None:
        """Create a student; `load_student` reads one from a folder.

        Raises:
            ValueError: The method does not have such settings.
        """
        self.card = card
        self.settings = method.student_settings.model_validate(card.student)
        self.threshold = card.threshold
        self.method = method
        self.weights = weights
        self.validation_file: Place | None = None

    def at(self, threshold: object) -> Student:
        """The same student with another threshold.

        Args:
            threshold: As in a space file: a score, or ``"f1"``, ``{"sensitivity": 0.95}`` or
                ``{"specificity": 0.99}`` as reached on the search's validation beats; also as
                text, ``"sensitivity=0.95"``.

        Raises:
            ConfigError: It is not a rule.
            RunError: The student's ``validation.npz`` is needed, but missing or damaged.
        """
        try:
            rule = parse_rule(threshold)
        except ValueError as error:
            raise ConfigError(f"threshold: {error}") from None
        number = rule.value if rule.kind == "score" else rule.threshold(self._validation())
        card = Card.model_validate({**self.card.model_dump(), "threshold": number})
        student = Student(self.method, self.weights, card)
        student.validation_file = self.validation_file
        return student

    def _validation(self) -> Ranking:
        """The student's ranking of the search's validation beats."""
        if self.validation_file is None:
            raise RunError("a student that was not loaded from a folder takes a score alone")
        with reading(self.validation_file, VALIDATION_CONTENT, RunError):
            arrays = read_arrays(io.BytesIO(self.validation_file.read_bytes()))
            return rank(arrays["scores"], arrays["abnormal"])

    def score(
        self,
        beats: ArrayLike,
        moments: Moments | None = None,
        record: TextArray | None = None,
    ) -> NDArray[np.float32]:
        """Anomaly score of each beat, higher is more abnormal.

        Args:
            beats: Raw beats.
            moments: When they came; needed for a context alone.
            record: Of each beat, shape (n,); None where all are of one recording.

        Returns:
            Shape (n,), float32.

        Raises:
            DataError: Wrong length, leads or type, no beats, values that are not finite, or
                no moments where the student needs them.
            RunError: The model gives no finite scores.
        """
        return self.score_prepared(self.prepared(beats, moments, record))

    def score_prepared(self, x: FloatArray) -> NDArray[np.float32]:
        """Anomaly scores of beats that are `prepared` already, shape (n,).

        Raises:
            RunError: As `score`.
        """
        scores = np.asarray(self.method.score(self.weights, x, COMPUTE), dtype=np.float32)
        if scores.shape != (len(x),) or not np.isfinite(scores).all():
            raise RunError(
                f"the model of method {self.card.method!r} gives no finite score for each of "
                f"{len(x)} beats; are its weights damaged?"
            )
        return scores

    def flag(
        self,
        beats: ArrayLike,
        moments: Moments | None = None,
        record: TextArray | None = None,
        *,
        threshold: object = None,
    ) -> BoolArray:
        """Whether each beat scores at least the threshold, shape (n,).

        Args:
            threshold: Another one than the student's own, as `at` takes it.

        Raises:
            DataError, RunError: As `score`.
            ConfigError, RunError: As `at`.
        """
        student = self if threshold is None else self.at(threshold)
        return student.called(self.score(beats, moments, record))

    def called(self, scores: NDArray[np.float32]) -> BoolArray:
        """Return which scores are at least the threshold, shape (n,)."""
        # In double precision, or the threshold would be rounded to the scores' own.
        return np.asarray(scores.astype(np.float64) >= self.threshold)

    def reconstruct(
        self,
        beats: ArrayLike,
        moments: Moments | None = None,
        record: TextArray | None = None,
    ) -> FloatArray:
        """Return the student's reconstructions of beats; large differences are the anomaly.

        Returns:
            Shape (n, leads, length), to be compared with `normalised`.

        Raises:
            DataError: As `score`.
            RunError: The method does not reconstruct.
        """
        return self.reconstruct_prepared(self.prepared(beats, moments, record))

    def reconstruct_prepared(self, x: FloatArray) -> FloatArray:
        """Return reconstructions of beats that are `prepared` already, as `reconstruct`.

        Raises:
            RunError: The method does not reconstruct.
        """
        if not isinstance(self.method, Reconstructing):
            raise RunError(f"method {self.card.method!r} has no reconstruct()")
        whole = self.method.reconstruct(self.weights, x, COMPUTE)[:, : self.card.input.leads]
        left = (self.card.input.padded_length - self.card.input.length) // 2
        return whole[..., left : left + self.card.input.length]

    def normalised(self, beats: ArrayLike) -> FloatArray:
        """Beats on the scale on which their errors count, shape (n, leads, length).

        Raises:
            DataError: As `score`.
        """
        return normalise(self._checked(beats))

    def prepared(
        self,
        beats: ArrayLike,
        moments: Moments | None = None,
        record: TextArray | None = None,
        own: Mapping[str, Reference] | None = None,
    ) -> FloatArray:
        """Return beats as the method takes them: normalised, padded, with their context if any.

        Args:
            beats: Raw beats.
            moments: As for `score`.
            record: As for `score`.
            own: From `references`, where beats come without the first five minutes of their
                recording; by default those are taken from the beats themselves.

        Returns:
            Shape (n, leads, padded length), or (n, 2 * leads + 1, padded length) with context.

        Raises:
            DataError: As `score`.
        """
        raw = self._checked(beats)
        x = normalise(raw)
        if self.card.input.context == "patient":
            moments, record = self._placed(raw, moments, record)
            own = references(raw, record, moments) if own is None else own
            x = with_context(x, record, moments, own)
        return np.ascontiguousarray(pad(x))

    def references(
        self,
        beats: ArrayLike,
        moments: Moments | None = None,
        record: TextArray | None = None,
    ) -> Mapping[str, Reference] | None:
        """Return each patient's own beat, by record; None if the student does not compare.

        Args:
            beats: Raw beats; those of the first five minutes of each recording are used.
            moments: As for `score`.
            record: As for `score`.

        Raises:
            DataError: As `score`.
        """
        if self.card.input.context == "none":
            return None
        raw = self._checked(beats)
        moments, record = self._placed(raw, moments, record)
        return references(raw, record, moments)

    def _placed(
        self, x: FloatArray, moments: Moments | None, record: TextArray | None
    ) -> tuple[Moments, TextArray]:
        """Return the moments and the records if they are those of these beats."""
        if moments is None:
            raise DataError(
                "beats: this student compares a beat with its patient's own, and needs the "
                "time of each beat: give a recording, or moments"
            )
        record = np.full(len(x), "") if record is None else record
        for name, found in (("moments", len(moments.time_s)), ("record", len(record))):
            if found != len(x):
                raise DataError(f"{name}: of {found} beats, but there are {len(x)}")
        return moments, record

    def _checked(self, given: ArrayLike) -> FloatArray:
        with speaking_of(self.card.data.unit):
            x = _real_numbers(given)
            leads, length, found = self.card.input.leads, self.card.input.length, x.shape
            if leads == 1 and x.ndim in (1, 2):
                x = np.atleast_2d(x)[:, None, :]
            if x.ndim != 3 or len(x) == 0 or x.shape[1:] != (leads, length):
                short = f", (n, {length}) or ({length},)" if leads == 1 else ""
                raise DataError(
                    f"beats: expected the shape (n, {leads}, {length}){short}, but found "
                    f"{found}: {self._what_is_wrong(x)}"
                )
            return as_float32(x, "beats", "scored")

    def _what_is_wrong(self, x: NDArray[Any]) -> str:
        leads, length = self.card.input.leads, self.card.input.length
        if x.ndim != 3:
            return f"a beat has {leads} lead{'s' * (leads > 1)} of {length} samples"
        if x.shape[1] != leads:
            return f"this student was trained on {leads} lead{'s' * (leads > 1)}"
        if x.shape[2] != length:
            return (
                f"this student was trained on beats of {length} samples, and pads them itself"
            )
        return "there are no beats"


def load_student(path: str | os.PathLike[str] | BucketPath) -> Student:
    """Read a student that a search has found.

    A method of the user's own is imported from where ``config.yaml`` says, but never from the
    folder that is read; the weights are read without running code.

    Args:
        path: A run folder, its ``best`` folder, or the ``model.safetensors`` in it.

    Raises:
        RunError: A file is missing or damaged, or the files do not belong together.
        ConfigError: ``config.yaml`` is not readable YAML, or its method cannot be imported.
    """
    model = _model_file(parse_path(path))
    card_file = model.with_name(CARD)
    card = _read_card(card_file)
    weights = _read_weights(model)
    method = load_method(card.method, str(card_file), foreign=model.parent)
    try:
        student = Student(method, weights, card)
    except ValueError as error:
        raise RunError(f"{card_file}: student: {_first_line(error)}") from None
    student.validation_file = model.with_name(VALIDATION)
    _try_out(student, model)
    return student


def _model_file(path: Place) -> Place:
    if path.is_file():
        return path
    if not path.is_dir():
        raise RunError(f"{path}: no such file or folder")
    # A run's other folders are internal.
    if (path / "search.yaml").exists() and not (path / "best").is_dir():
        raise RunError(f"{path}: this search has no best student yet; finish it with --resume")
    folder = path / "best" if (path / "best").is_dir() else path
    if not (folder / MODEL).is_file():
        raise RunError(f"{folder}: no {MODEL} in it; expected a run folder or its best/")
    return folder / MODEL


def _read_card(path: Place) -> Card:
    if not path.is_file():
        raise RunError(f"{path}: missing, but a {MODEL} cannot be used without it")
    raw = read_yaml(path)
    if not isinstance(raw, Mapping) or "input" not in raw or "threshold" not in raw:
        raise RunError(
            f"{path}: does not say what beats the model takes (no 'input' or 'threshold'); if "
            "an older kdsearch wrote it, delete this best/ and resume its search"
        )
    try:
        card = Card.model_validate(raw)
    except ValidationError as error:
        raise RunError(f"{path}: {_first_line(error)}") from None
    length, padded = card.input.length, card.input.padded_length
    expected = length + -length % LENGTH_MULTIPLE
    if padded != expected:
        raise RunError(
            f"{path}: input.padded_length: beats of {length} samples are padded to {expected}, "
            f"but found {padded}"
        )
    return card


def _read_weights(path: Place) -> State:
    try:
        return load_tensors(path)
    except DamagedFile as error:
        raise RunError(str(error)) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None


def _try_out(student: Student, model: Place) -> None:
    """Score a flat beat, which fails if the weights do not fit the card."""
    card = student.card.input
    try:
        flat = np.zeros((1, card.leads, card.length), dtype=np.float32)
        student.score(flat, Moments.of_times(np.zeros(1)))
    except (*UNFIT, RunError) as error:
        raise RunError(
            f"{model}: does not score a beat as {CARD} beside it says: {_first_line(error)}"
        ) from None


def _real_numbers(beats: ArrayLike) -> NDArray[Any]:
    if np.ma.is_masked(beats):
        raise DataError(
            "beats: some values are masked; a beat without all of them has no score"
        )
    try:
        x = np.asarray(beats)
    except UNFIT as error:
        raise DataError(f"beats: not an array of numbers: {_first_line(error)}") from None
    if x.dtype.kind not in "iuf":
        raise DataError(f"beats: must be real numbers, but are {x.dtype}")
    return x


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())[:200]
