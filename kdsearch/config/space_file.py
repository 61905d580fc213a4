"""Read and validate the space file; the result is typed and frozen."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from kdsearch.config.dimensions import (
    Dimension,
    Fixed,
    Searched,
    Value,
    finite_points,
    parse_dimension,
    to_yaml,
)
from kdsearch.config.shipped import find_space
from kdsearch.config.teacher_source import KEYS, TeacherSource
from kdsearch.data.settings import DataSettings
from kdsearch.errors import ConfigError
from kdsearch.files.bucket import Place
from kdsearch.methods.protocol import WEIGHTS, Exporting, Method, Teachable
from kdsearch.metrics.ranking import METRICS, Metric
from kdsearch.metrics.threshold import Rule, parse_rule
from kdsearch.settings import Count, CountOrZero, Few, NotNegative, Positive, Section
from kdsearch.texts import did_you_mean, short

QUOTES = "'\""
BUILT_IN = {
    "beatgan": "kdsearch.methods.beatgan:BeatGan",
    "memory": "kdsearch.methods.memory:Memory",
}
# Far more than any space file has; aliases in a small file can expand to billions of values.
MOST_BYTES, MOST_VALUES = 2**20, 100_000
REQUIRED_IN_SPACE = ("temperature", "alpha", "w_adv", "lr")

M = TypeVar("M", bound=BaseModel)


Objective = Literal["val_auc", "val_ap", "parameters", "multiply_adds", "microseconds"]
CostName = Literal["parameters", "multiply_adds", "microseconds"]


class Limit(Section):
    """The limit of a cost."""

    max: Positive
    """The largest value that a trial may have."""


class SearchSettings(Section):
    """Number of trials, and the sampler that suggests them."""

    num_samples: Count = 24
    """Total number of trials, also after a resume."""
    sampler: Literal["auto", "tpe", "gp", "cmaes", "random", "qmc"] = "tpe"
    """Optuna sampler: multivariate TPE with the constant liar, a Gaussian process, CMA-ES,
    random, or quasi-Monte Carlo. ``auto`` is ``gp`` for at most 250 trials in a space of
    numbers, and ``tpe`` otherwise."""
    startup_trials: CountOrZero = 8
    """Number of random trials before TPE, the Gaussian process or CMA-ES is used."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the suggestions and of every student."""
    points: tuple[dict[str, bool | int | float | str], ...] = ()
    """Settings that are tried first, such as ``{lr: 1.0e-3, alpha: 0.1}``; what is missing is
    suggested by the sampler."""
    learn_from: tuple[str, ...] = ()
    """Folders of earlier runs that search the same settings: their best trials are tried next,
    and the sampler learns from all their trials."""
    repeats: bool = False
    """Train a trial even if an earlier one has exactly its settings. Otherwise a space of few
    values ends the search when all of them were tried."""
    metric: Metric = Field(default="val_auc", exclude=True)
    """What chooses epochs, trials, confirmed students and generations, on the validation beats:
    the area under the ROC curve (``val_auc``) or the average precision (``val_ap``). Short for
    ``objectives`` without costs."""
    objectives: tuple[Objective, ...] = ("val_auc",)
    """The metric and the costs beside it: ``[val_auc, parameters]`` searches the front of the
    best AUC at each size. Costs are known before training: ``parameters``, ``multiply_adds``
    per beat, and ``microseconds`` per beat on one CPU thread. ASHA compares students of like
    cost."""
    constraints: dict[CostName, Limit] = Field(default={})
    """Limits of costs, such as ``{parameters: {max: 40000}}``. A trial that breaks one is never
    started, and the sampler learns from it."""
    validations_per_epoch: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often the students and the networks of a confirmation are validated in each epoch, at
    equal distances. The best of these states is kept, and each is a report to ASHA."""
    max_concurrent: Count | None = None
    """Maximum number of concurrent trials. Default: as many as fit."""
    time_budget_s: Positive | None = None
    """Wall time after which all trials pause; ``--resume`` continues them."""
    generations: Annotated[int, Field(ge=1, le=100)] = 1
    """Maximum number of searches, each taught by the best confirmed student of the one before
    it; they end with the first that is not better on validation."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 2
    """How often a crashed trial is retried from its checkpoint; a diverged one never is."""
    keep_weights: Count = 10
    """Number of finished trials, the best ones, whose best weights stay on disk."""

    @field_validator("objectives")
    @classmethod
    def _one_metric_first(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        is_metric = [name in METRICS for name in objectives]
        if not objectives or is_metric != [True] + [False] * (len(objectives) - 1):
            raise ValueError("the first objective must be val_auc or val_ap, the others costs")
        if len(set(objectives)) < len(objectives):
            raise ValueError("each objective must be named once")
        return objectives

    @model_validator(mode="before")
    @classmethod
    def _metric_or_objectives(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "objectives" not in given:
            return given | {"objectives": [given.get("metric", "val_auc")]}
        objectives = given["objectives"]
        names = objectives if isinstance(objectives, list | tuple) else ()
        metric = next((name for name in METRICS if name in names), "val_auc")
        return {"metric": metric, **given}

    @model_validator(mode="after")
    def _one_metric(self) -> Self:
        if self.metric != self.objectives[0]:
            raise ValueError(
                f"metric={self.metric}, but the first objective is {self.objectives[0]}; leave "
                "one of them out"
            )
        return self

    @property
    def cost_objectives(self) -> tuple[CostName, ...]:
        """The objectives beside the metric."""
        return cast("tuple[CostName, ...]", self.objectives[1:])

    @property
    def costs(self) -> tuple[CostName, ...]:
        """The costs that are objectives or have a limit."""
        return tuple(dict.fromkeys([*self.cost_objectives, *self.constraints]))


class SchedulerSettings(Section):
    """ASHA (Li et al., MLSys 2020): stop the worse trials at each rung."""

    name: Literal["asha", "none"] = "asha"
    """``none`` trains every student to its last epoch."""
    grace_period: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = 1
    """Epochs before a trial can be stopped: the first rung. Below 1 it is a part of the first
    epoch. A later rung that is not whole counts as the next report."""
    reduction_factor: Annotated[float, Field(ge=1.1, allow_inf_nan=False)] = 3.0
    """ASHA's eta: one in ``reduction_factor`` trials is promoted at each rung, and the next
    rung has that many times the epochs."""

    def early_rungs(self) -> list[float]:
        """Return the rungs within the first epoch, as fractions of it."""
        if self.name == "none":
            return []
        # As Ray calculates them.
        rungs = (self.grace_period * self.reduction_factor**k for k in count())
        return list(takewhile(lambda rung: rung < 1, rungs))


class AdaptiveSeeds(Section):
    """Seeds are added only where they can change the verdict."""

    max: Annotated[int, Field(ge=3, le=1000)]
    """The most seeds that a network is trained with."""


class ConfirmSettings(Section):
    """The best trials, trained again with new seeds, and their controls."""

    top: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of best trials to train again; 0 turns the confirmation off."""
    seeds: Few | AdaptiveSeeds = 3
    """Number of new seeds for each. ``{max: 12}`` begins with three, drops trials that are
    worse beyond doubt, and ends when more seeds would hardly change the verdict."""

    @property
    def most_seeds(self) -> int:
        """The most seeds that a network is trained with."""
        return self.seeds.max if isinstance(self.seeds, AdaptiveSeeds) else self.seeds

    @property
    def adaptive(self) -> bool:
        """Whether the number of seeds is decided while they are trained."""
        return isinstance(self.seeds, AdaptiveSeeds)


class ResourceSettings(Section):
    """Devices, precision and threads of the trials."""

    device: Literal["auto", "cpu", "cuda", "all"] = "auto"
    """``auto`` uses GPUs if there are any, and machines without a GPU are then idle; ``all``
    trains on CPUs as well."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` uses bfloat16 if the processor computes it directly."""
    cpus_per_trial: Annotated[int, Field(ge=1, le=4096)] = 1
    """Torch threads of a process that trains students, and CPUs that Ray reserves for it."""
    students_per_gpu: Few | Literal["auto"] = "auto"
    """Students that train side by side on a GPU, in one process; ``auto`` measures the fastest
    number in a few seconds."""
    students_per_cpu: Few | Literal["auto"] = 1
    """The same on a CPU; on the processors measured, 1 is fastest."""
    checkpoint_interval_s: NotNegative = 20
    """How old the newest checkpoint of a student is, at least, when another one is written,
    in a confirmation and where students train side by side: many checkpoints at once take time.
    A trial that has a process of its own writes one at each report."""


Fraction = Annotated[float, Field(gt=0, le=1)]


class Sensitivity(Section):
    """The highest threshold that finds this fraction of the abnormal validation beats."""

    sensitivity: Fraction


class Specificity(Section):
    """The lowest threshold that does not flag this fraction of the normal validation beats."""

    specificity: Fraction


class SpaceFile(Section):
    """Every key of a space file. The method gives the types of three sections."""

    method: str = "beatgan"
    """The method that is searched: `beatgan`, `memory`, or `package.module:Class` for one of
    your own."""
    data: DataSettings | None
    teacher: BaseModel | None
    student: BaseModel | None
    """Settings that are the same in every student; each has a default."""
    space: BaseModel
    """What is searched, and the settings that must be decided: a dimension or a value for
    each."""
    search: SearchSettings | None
    scheduler: SchedulerSettings | None = SchedulerSettings()
    confirm: ConfirmSettings | None = ConfirmSettings()
    resources: ResourceSettings | None = ResourceSettings()
    threshold: Literal["f1"] | Sensitivity | Specificity | float = "f1"
    """The threshold of the best student, chosen on the validation beats: `f1` has the best F1,
    `sensitivity` and `specificity` just reach that fraction of the beats, and a number is the
    score itself."""


REQUIRED_SECTIONS = [k for k, field in SpaceFile.model_fields.items() if field.is_required()]


@dataclass(frozen=True)
class Config:
    """All settings of a search.

    Attributes:
        origin: The file that it came from, for messages.
        method_name: ``beatgan``, ``memory``, or where a user's own is imported from.
        method: The teacher and student that are searched.
        student: What the section ``student`` fixes.
        space: Every entry of the section ``space``, fixed ones included.
        threshold: From which score on the best student flags a beat.
        teacher_source: Which teacher exists already, or how many are trained.
        foreign: Whether it was read from a run folder, which may be another person's: no
            detector that it names is imported.
    """

    origin: str
    method_name: str
    method: Method
    data: DataSettings
    teacher: BaseModel
    student: Mapping[str, Value]
    space: Mapping[str, Dimension]
    search: SearchSettings
    scheduler: SchedulerSettings
    confirm: ConfirmSettings
    resources: ResourceSettings
    threshold: Rule
    teacher_source: TeacherSource = field(default_factory=TeacherSource)
    foreign: bool = False

    def student_settings(self, searched: Mapping[str, Value]) -> BaseModel:
        """The settings of one trial: the fixed ones and what the sampler chose."""
        fixed = {k: d.value for k, d in self.space.items() if isinstance(d, Fixed)}
        return self.method.student_settings.model_validate(
            {**self.student, **fixed, **searched}
        )

    @property
    def trials(self) -> int:
        """Trials in all: ``num_samples``, or fewer where the space has fewer."""
        wanted = self.search.num_samples
        return wanted if self.points is None else min(wanted, self.points)

    @property
    def points(self) -> int | None:
        """Different trials of the space; None if infinitely many, or if they may repeat."""
        return None if self.search.repeats else finite_points(self.space)

    def searched(self) -> dict[str, Searched]:
        """The dimensions that differ between trials, in the file's order."""
        return {k: d for k, d in self.space.items() if not isinstance(d, Fixed)}

    def max_epochs(self) -> int:
        """Return the maximum number of epochs of any trial."""
        return max(
            int(cast("Any", self.student_settings(point)).epochs) for point in self.corners()
        )

    def corners(self) -> list[dict[str, Value]]:
        """Return representative points of the space: each value of each dimension."""
        dimensions = self.searched()
        base = {key: dimension.candidates()[0] for key, dimension in dimensions.items()}
        return [base] + [
            {**base, key: value}
            for key, dimension in dimensions.items()
            for value in dimension.candidates()[1:]
        ]

    def replace(self, **sections: Mapping[str, Any]) -> Config:
        """The same with some keys of some sections replaced, checked like a space file.

        ``space.replace(search={"num_samples": 8}, space={"lr": {"uniform": [1e-4, 1e-3]}})``;
        a key's value is replaced as a whole. A student's setting that is fixed where it was
        searched, or the other way round, moves between ``student`` and ``space``.

        Raises:
            ConfigError: The result breaks a rule; names what was replaced.
        """
        changes = {
            f"{name}.{key}": value
            for name, section in sections.items()
            for key, value in section.items()
        }
        return self.overridden(changes, f"{self.origin} with {', '.join(changes)} replaced")

    def overridden(
        self, changes: Mapping[str, Any], origin: str, *, foreign: Place | None = None
    ) -> Config:
        """Replace keys of any depth, such as ``data.simulated.beats``; see `replace`.

        Args:
            changes: Values by keys whose parts are separated by dots.
            origin: Names the result in the message of an error.
            foreign: As of `load_method`.
        """
        plain = self.as_dict()
        teacher = {key.split(".")[1] for key in changes if key.startswith("teacher.")}
        details = {"discriminator", "options"}
        if teacher & {"from", "detector"} or (self.teacher_source.exists and teacher - details):
            # A teacher that exists has no settings of a training, and the other way round.
            plain["teacher"] = {}
        for key, value in changes.items():
            *sections, last = key.split(".")
            for here, there in (("student", "space"), ("space", "student")):
                if sections[:1] == [here] and isinstance(plain.get(there), dict):
                    plain[there].pop([*sections, last][1], None)
            inside = plain
            for name in sections:
                if inside.get(name) is None:
                    inside[name] = {}
                inside = inside[name]
                if not isinstance(inside, dict):
                    raise ConfigError(f"{origin}: unknown key '{key}' ('{name}' has no keys)")
            if key == "search.metric" and "search.objectives" not in changes:
                inside["objectives"][0] = value
            else:
                inside[last] = value
        config = parse_config(plain, origin, foreign=foreign)
        return replace(config, origin=self.origin, foreign=self.foreign)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which `parse_config` reads back to an equal configuration."""
        source = self.teacher_source
        return {
            "method": self.method_name,
            "data": self.data.model_dump(mode="json"),
            "teacher": ({} if source.exists else self.teacher.model_dump(mode="json"))
            | source.as_plain(),
            "student": dict(self.student),
            "space": {key: to_yaml(dimension) for key, dimension in self.space.items()},
            "search": self.search.model_dump(mode="json"),
            "scheduler": self.scheduler.model_dump(mode="json"),
            "confirm": self.confirm.model_dump(mode="json"),
            "resources": self.resources.model_dump(mode="json"),
            "threshold": self.threshold.as_plain(),
        }


def load_space(path: str | os.PathLike[str]) -> Config:
    """Read and check a space file, or the shipped one of this name.

    A method of the user's own is also looked for beside the file.

    Raises:
        ConfigError: The file is missing, is not YAML, or breaks a rule. One line that names
            the file, the key, what was expected and what was found.
    """
    path = find_space(Path(path))
    return parse_config(read_yaml(path), str(path), beside=path.parent)


def parse_config(
    raw: object, origin: str, *, beside: Path | None = None, foreign: Place | None = None
) -> Config:
    """Check the plain form of a space file.

    Args:
        origin: Names it in messages.
        beside: As of `load_method`.
        foreign: As of `load_method`.

    Raises:
        ConfigError: As `load_space`.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: expected sections such as 'space:', found {short(raw)}")
    _refuse_unknown(raw, SpaceFile.model_fields, origin, "")
    for section in REQUIRED_SECTIONS:
        if section not in raw:
            raise ConfigError(f"{origin}: section '{section}' is missing")
    name = raw.get("method", "beatgan")
    method = load_method(name, origin, beside=beside, foreign=foreign)
    try:
        # All members, since a search needs them; scoring needs only a few.
        members = {*vars(Method), *Method.__annotations__}
        _require(method, {member for member in members if not member.startswith("_")})
    except TypeError as error:
        raise ConfigError(f"{origin}: method: cannot use {name!r}: {error}") from None
    source, recipe = _teacher(raw, method, origin)
    student, space = _student_and_space(raw, method, origin)
    config = Config(
        origin=origin,
        method_name=name,
        method=method,
        data=_section(DataSettings, raw, "data", origin),
        teacher=_section(method.teacher_settings, {"teacher": recipe}, "teacher", origin),
        student=student,
        space=space,
        search=_section(SearchSettings, raw, "search", origin),
        scheduler=_section(SchedulerSettings, raw, "scheduler", origin),
        confirm=_section(ConfirmSettings, raw, "confirm", origin),
        resources=_section(ResourceSettings, raw, "resources", origin),
        threshold=_threshold(raw.get("threshold", "f1"), origin),
        teacher_source=source,
        foreign=foreign is not None,
    )
    _check_together(config)
    return replace(config, search=config.search.changed(points=_points(config)))


def _teacher(
    raw: dict[str, Any], method: Method, origin: str
) -> tuple[TeacherSource, dict[str, Any] | None]:
    """Where the teacher comes from, and the settings with which it is trained."""
    given = raw.get("teacher")
    if not isinstance(given, dict):
        return TeacherSource(), given
    fields = method.teacher_settings.model_fields
    keys = KEYS - fields.keys()
    own = {key: value for key, value in given.items() if key in keys}
    recipe = {key: value for key, value in given.items() if key not in keys}
    _refuse_unknown(recipe, [*fields, *keys], origin, "teacher.")
    try:
        source = TeacherSource.model_validate(own)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_describe(error, 'teacher')}") from None
    if source.exists and recipe:
        raise ConfigError(
            f"{origin}: teacher.{next(iter(recipe))}: a teacher that exists is not trained; "
            "remove its settings, or 'from' and 'detector'"
        )
    return source, recipe


def _threshold(raw: object, origin: str) -> Rule:
    try:
        return parse_rule(raw)
    except ValueError as error:
        raise ConfigError(f"{origin}: threshold: {error}") from None


def read_yaml(path: Place) -> object:
    """Read one YAML document safely.

    Raises:
        ConfigError: It is missing or not YAML, a key is set twice, or it is too large, where
            each repetition of an alias counts.
    """
    try:
        content = path.read_bytes()
        if len(content) > MOST_BYTES:
            raise ConfigError(
                f"{path}: a space file has at most {MOST_BYTES:,} bytes, but found "
                f"{len(content):,}"
            )
        return parse_yaml(content.decode(), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def parse_yaml(text: str, origin: str) -> object:
    """Read one YAML document safely.

    Raises:
        ConfigError: As `read_yaml`.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML raises a plain ValueError for a date with month 13.
        raise ConfigError(f"{origin}: broken YAML: {' '.join(str(error).split())}") from None


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses duplicate keys and endless aliases."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        # Nodes below each node, repeated ones as often as they are repeated.
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is not None and id(target) not in self._sizes:
                raise yaml.composer.ComposerError(
                    None, None, f"*{event.anchor} contains itself", mark
                )
        node = super().compose_node(parent, index)
        if node is not None and id(node) not in self._sizes:
            children = node.value if isinstance(node, yaml.CollectionNode) else ()
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in children for child in pair]
            self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in children)
            if self._sizes[id(node)] > MOST_VALUES:
                raise yaml.composer.ComposerError(
                    None, None, f"aliases repeat more than {MOST_VALUES:,} values", mark
                )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            # A merge key (<<) brings defaults, which may be set again.
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is set twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def load_method(
    name: object, origin: str, *, beside: Path | None = None, foreign: Place | None = None
) -> Method:
    """Return the built-in method of this name, or import ``package.module:Class``.

    Args:
        origin: The file that names it, for messages.
        beside: Another folder to import from, after everything that is installed.
        foreign: A run folder, or one in it. Nothing is imported from it, nor from beside it
            unless that folder is on PYTHONPATH: it may be another person's.

    Raises:
        ConfigError: There is no such method, or the class is not a method.
    """
    module, colon, attribute = BUILT_IN.get(str(name), str(name)).partition(":")
    if not colon:
        known = ", ".join(map(repr, BUILT_IN))
        raise ConfigError(
            f"{origin}: method: expected {known} or 'package.module:Class', found {name!r}"
        )
    try:
        if beside is not None and importlib.util.find_spec(_package(module)) is None:
            sys.path.append(str(beside.resolve()))
        if isinstance(foreign, Path):
            _refuse_code_of(foreign, module)
        found: Any = getattr(importlib.import_module(module), attribute)
        # A run folder may name any class that is installed.
        if not isinstance(found, type):
            raise TypeError("not a class")
        _require(found, {"score", "student_settings"})
        method: Method = found()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        missing = isinstance(error, ModuleNotFoundError)
        hint = "; is its folder on PYTHONPATH?" if missing else ""
        raise ConfigError(f"{origin}: method: cannot import {name!r}: {error}{hint}") from None
    return method


def _require(found: object, members: set[str]) -> None:
    missing = sorted(name for name in members if not hasattr(found, name))
    if missing:
        raise TypeError(f"not a method: {', '.join(map(repr, missing))} missing")


def _refuse_code_of(folder: Path, module: str) -> None:
    if _package(module) in sys.modules:
        return
    spec = importlib.util.find_spec(_package(module))
    found = [] if spec is None else [*(spec.submodule_search_locations or [str(spec.origin)])]
    run = folder.parent if (folder.parent / "search.yaml").exists() else folder
    run = run.resolve()
    # Python also looks in the current directory, which may be the one that came with the run.
    chosen = {
        Path(p).resolve() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p
    }
    for path in (Path(name).resolve() for name in found):
        if path.is_relative_to(run):
            raise ImportError(f"{path} is in the run folder, whose code is not run")
        if path.parent == run.parent and run.parent not in chosen:
            raise ImportError(
                f"{path} is beside {run.name} and is not run; if it is yours, put "
                f"{run.parent} on PYTHONPATH"
            )


def _package(module: str) -> str:
    return module.partition(".")[0]


def _section(model: type[M], raw: dict[str, Any], name: str, origin: str) -> M:
    section = raw.get(name)
    section = {} if section is None else section
    if not isinstance(section, dict):
        raise ConfigError(f"{origin}: {name}: expected keys and values, found {short(section)}")
    _refuse_unknown(section, model.model_fields, origin, f"{name}.")
    for key, value in section.items():
        annotation = model.model_fields[key].annotation
        union = get_origin(annotation) in (Union, UnionType)
        for inner in get_args(annotation) if union else (annotation,):
            if isinstance(value, dict) and _is_model(inner):
                _refuse_unknown(value, inner.model_fields, origin, f"{name}.{key}.")
    try:
        return _validated(model, section)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_describe(error, name)}") from None
    except ValueError as error:
        raise ConfigError(f"{origin}: {name}.{error}") from None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _validated(model: type[M], values: dict[str, Any]) -> M:
    """Validate; refuse ``true`` for a number, which pydantic would read as 1."""
    settings = model.model_validate(values)
    for key, value in values.items():
        if isinstance(value, bool) and not isinstance(getattr(settings, key), bool):
            raise ValueError(f"{key}: input should not be a boolean, but found {value}")
    return settings


def _student_and_space(
    raw: dict[str, Any], method: Method, origin: str
) -> tuple[dict[str, Value], dict[str, Dimension]]:
    student = _section(method.student_settings, raw, "student", origin)
    space = raw["space"]
    if not isinstance(space, dict):
        raise ConfigError(f"{origin}: space: expected keys and values, found {short(space)}")
    fields = method.student_settings.model_fields
    _refuse_unknown(space, fields, origin, "space.")
    for key in REQUIRED_IN_SPACE:
        if key in fields and key not in space:
            raise ConfigError(f"{origin}: space: '{key}' is missing; fix it or search it there")
    for key in space:
        if key in student.model_fields_set:
            raise ConfigError(f"{origin}: '{key}' is set in both 'student' and 'space'")
    dimensions = {
        key: _dimension(key, entry, method.student_settings, origin)
        for key, entry in space.items()
    }
    fixed = {
        key: value
        for key, value in student.model_dump(mode="json").items()
        if key not in dimensions
    }
    return fixed, dimensions


def _dimension(key: str, raw: object, model: type[BaseModel], origin: str) -> Dimension:
    try:
        dimension = parse_dimension(raw)
    except ValueError as error:
        raise ConfigError(f"{origin}: space.{key}: {error}") from None
    for value in dimension.candidates():
        try:
            _validated(model, {key: value})
        except ValidationError as error:
            raise ConfigError(f"{origin}: {_describe(error, 'space')}") from None
        except ValueError as error:
            raise ConfigError(f"{origin}: space.{error}") from None
    return dimension


def _points(config: Config) -> list[dict[str, Value]]:
    """The points that are tried first, each value as a trial has it."""
    searched = config.searched()
    points: list[dict[str, Value]] = []
    for number, raw in enumerate(config.search.points):
        where = f"{config.origin}: search.points[{number}]"
        for key in raw:
            if key in searched:
                continue
            if key in config.space or key in config.student:
                raise ConfigError(f"{where}: '{key}' is not searched; leave it out")
            raise ConfigError(
                f"{where}: unknown key '{short(key).strip(QUOTES)}' "
                f"({did_you_mean(key, searched)})"
            )
        point = {}
        for key, value in raw.items():
            try:
                point[key] = searched[key].canonical(value)
            except ValueError as error:
                raise ConfigError(f"{where}.{key}: {error}, but found {short(value)}") from None
        if point in points:
            same = points.index(point)
            raise ConfigError(f"{where}: the same settings as search.points[{same}]")
        points.append(point)
    return points


def _check_members(config: Config) -> None:
    """Refuse an ensemble for students that need a single teacher."""
    method = config.method
    if not isinstance(method, Teachable):
        raise ConfigError(
            f"{config.origin}: teacher.members: method {config.method_name!r} has no 'joined', "
            "which an ensemble needs"
        )
    for point in config.corners():
        if WEIGHTS in method.needs(config.student_settings(point)):
            raise ConfigError(
                f"{config.origin}: teacher.members: students that start from their teacher's "
                f"weights need one teacher, but found {config.teacher_source.members}"
            )


def _check_together(config: Config) -> None:
    if config.search.generations > 1 and config.confirm.top == 0:
        raise ConfigError(
            f"{config.origin}: search.generations: each of {config.search.generations} "
            "generations is confirmed with new seeds, but confirm.top is 0; set it to 1 or more"
        )
    if config.search.costs and not isinstance(config.method, Exporting):
        raise ConfigError(
            f"{config.origin}: search: costs need a method with 'scoring_network', which "
            f"{config.method_name} does not have; leave out objectives and constraints"
        )
    sampler = config.search.sampler
    if config.search.costs and sampler == "cmaes":
        raise ConfigError(
            f"{config.origin}: search.sampler: cmaes takes no objectives or constraints; "
            "choose tpe"
        )
    if config.search.constraints and sampler == "gp":
        raise ConfigError(
            f"{config.origin}: search.sampler: gp takes no constraints; choose tpe"
        )
    if config.search.learn_from and sampler == "cmaes":
        raise ConfigError(
            f"{config.origin}: search.learn_from: cmaes learns from its own trials alone; "
            "choose tpe or gp"
        )
    if config.scheduler.name == "asha" and config.scheduler.grace_period > config.max_epochs():
        raise ConfigError(
            f"{config.origin}: scheduler.grace_period: must not exceed the students' epochs, "
            f"but grace_period={config.scheduler.grace_period:g} and "
            f"epochs={config.max_epochs()}"
        )
    if config.teacher_source.exists:
        return
    if config.teacher_source.members > 1:
        _check_members(config)
    for point in config.corners():
        try:
            config.method.check(config.teacher, config.student_settings(point))
        except ValueError as error:
            raise ConfigError(f"{config.origin}: {error}") from None


def _refuse_unknown(
    section: Mapping[Any, Any], known: Iterable[str], origin: str, prefix: str
) -> None:
    known = list(known)
    for key in section:
        if key not in known:
            raise ConfigError(
                f"{origin}: unknown key '{prefix}{short(key).strip(QUOTES)}' "
                f"({did_you_mean(str(key), known)})"
            )


def _describe(error: ValidationError, section: str) -> str:
    """Return the first error of pydantic as ``key: rule, but found value``."""
    first = error.errors()[0]
    # Of a union, the branch that the input came nearest to.
    same = (one for one in error.errors() if one["loc"][:1] == first["loc"][:1])
    first = max(same, key=lambda one: len(one["loc"]))
    # Of a union pydantic also names the branch, such as constrained-int.
    branches = re.compile(r"constrained-\w+|int|float|str|AdaptiveSeeds|literal\[.*")
    parts = [str(part) for part in first["loc"] if not branches.fullmatch(str(part))]
    key = ".".join([section, *parts])
    # A validator of a method's own settings writes a whole sentence.
    message = first["msg"].removeprefix("Value error, ")
    rule = message[0].lower() + message[1:]
    return f"{key}: {rule}, but found {short(first['input'])}"
