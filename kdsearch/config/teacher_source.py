"""The keys of the section ``teacher`` that name teachers which exist, or ask for several."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from kdsearch.files.bucket import BucketPath, parse_path
from kdsearch.settings import Section

Text = Annotated[str, Field(min_length=1)]


Paths = Annotated[
    tuple[Text, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]


class TeacherSource(Section):
    """Where the teacher comes from, if this search does not train one teacher."""

    model_config = ConfigDict(serialize_by_alias=True)

    paths: Paths = Field(default=(), alias="from")
    """A teacher that exists: a published BeatGAN checkpoint, a run folder or its ``best``, a
    ``teacher.pt``, or an ``.npz`` with ``scores`` of all beats of the source. Several, as a
    list, are an ensemble. No other settings of the teacher are then allowed."""
    discriminator: Text | None = None
    """The discriminator of a published BeatGAN generator, if it is not beside it with ``D`` in
    place of ``G`` in its name."""
    detector: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] | None = None
    """A class with the interface of scikit-learn's or PyOD's outlier detectors, such as
    ``sklearn.neighbors.LocalOutlierFactor``, which is fitted on the training beats."""
    options: dict[str, Any] = Field(default={})
    """Arguments of the detector's class."""
    members: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of teachers that are trained, with consecutive seeds; they teach together."""

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherSource:
        if self.paths and self.detector is not None:
            raise ValueError("'from' and 'detector' are two teachers; leave one out")
        if self.exists and self.members > 1:
            raise ValueError("'members' are trained; a teacher that exists has none")
        if self.discriminator is not None and len(self.paths) != 1:
            raise ValueError("'discriminator' belongs to one teacher in 'from'")
        if self.options and self.detector is None:
            raise ValueError("'options' are those of a 'detector', which is missing")
        return self

    @property
    def exists(self) -> bool:
        """Whether nothing is trained."""
        return bool(self.paths) or self.detector is not None

    @property
    def single_recipe(self) -> bool:
        """Whether the teacher is one network that is trained here."""
        return not self.exists and self.members == 1

    def as_plain(self) -> dict[str, Any]:
        """As in the space file; keys with their defaults are left out."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if len(self.paths) == 1:
            plain["from"] = self.paths[0]
        return plain

    def resolved(self) -> TeacherSource:
        """The same with paths that hold wherever they are read from."""
        paths = [absolute(path) for path in self.paths]
        beside = self.discriminator and absolute(self.discriminator)
        changes = {"from": paths, "discriminator": beside}
        return type(self).model_validate(self.model_dump(by_alias=True) | changes)


def absolute(path: str) -> str:
    """A path that holds wherever it is read from; a URL of a bucket as it is."""
    found = parse_path(path)
    return str(found if isinstance(found, BucketPath) else found.absolute())


KEYS = frozenset({"from", "discriminator", "detector", "options", "members"})
"""As in the space file."""
