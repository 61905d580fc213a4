"""The space file of a method as one pydantic model, and the JSON Schema made from it.

Editors use the schema to complete and check a space file. It covers keys, types, limits and the
forms of a dimension. Rules for several keys, such as the order of bounds or a grace period
within the epochs, are checked only by kdsearch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from kdsearch.config.space_file import REQUIRED_IN_SPACE, SpaceFile, load_method
from kdsearch.config.teacher_source import TeacherSource
from kdsearch.settings import Count, Positive, Section

DRAFT = "https://json-schema.org/draft/2020-12/schema"
DEFAULT_METHOD = "beatgan"
# The forms of a dimension.
FORMS = {
    "uniform": "A number from lo to hi, each as likely; with `step`, lo, lo + step and so on.",
    "loguniform": "A number from lo to hi, its logarithm uniform.",
    "int": "A whole number from lo to hi, both included; with `log: true` its logarithm is "
    "uniform, with `step` it is lo, lo + step and so on.",
    "choice": "One of the values listed.",
    "grid": "Each of the values listed, in all combinations with other grids.",
}
LISTS = ("choice", "grid")
EXTRAS: dict[str, dict[str, Any]] = {
    "uniform": {"step": (Positive, None)},
    "int": {"step": (Count, 1), "log": (bool, False)},
}
# The forms that suit a setting of each type; all forms suit any other type.
FORMS_OF = {int: ("int", *LISTS), str: LISTS, bool: LISTS, Literal: LISTS}
Schema = dict[str, Any]


def space_schema(method_name: str = DEFAULT_METHOD) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a space file that searches one method.

    Raises:
        ConfigError: There is no such method.
    """
    method = load_method(method_name, "--method")
    settings = method.student_settings.model_fields
    student = {key: field for key, field in settings.items() if key not in REQUIRED_IN_SPACE}
    # A method other than the default must be named.
    default = method_name if method_name == DEFAULT_METHOD else ...
    fixed = _model(Section, {key: (field.annotation, field) for key, field in student.items()})
    space = _model(Section, {key: _dimension(key, field) for key, field in settings.items()})
    sections = {
        "method": (Literal[method_name], _described("method", default)),
        "teacher": (_teacher(method.teacher_settings) | None, ...),
        "student": (fixed | None, _described("student")),
        "space": (space, _described("space")),
    }
    title = f"kdsearch space file, method {method_name}"
    return {"$schema": DRAFT, "title": title, **inlined(_model(SpaceFile, sections))}


def inlined(model: type[BaseModel]) -> Schema:
    """Return pydantic's schema of a model, with each reference replaced by its target."""
    schema = model.model_json_schema()
    plain: Schema = _inlined(schema, schema.pop("$defs", {}))
    return plain


def _inlined(schema: Any, definitions: Schema) -> Any:
    match schema:
        case list():
            return [_inlined(part, definitions) for part in schema]
        case {"$ref": str(target), **others}:
            return _inlined({**definitions[target.rpartition("/")[2]], **others}, definitions)
        case {"anyOf": [{"$ref": target}, {"type": "null"}], **others}:
            # A section whose keys are all commented out has its defaults.
            return _inlined({"$ref": target, **others, "type": ["object", "null"]}, definitions)
        case {"description": str(text)}:
            schema = {**schema, "description": " ".join(text.split()).replace("``", "`")}
    if not isinstance(schema, dict):
        return schema
    # Pydantic's titles repeat the key, in capitals; a setting may be called title.
    return {
        key: _inlined(part, definitions)
        for key, part in schema.items()
        if key != "title" or not isinstance(part, str) or part in FORMS
    }


def _teacher(settings: type[BaseModel]) -> Any:
    """The settings of a method's teacher, and the keys for one that exists."""
    fields: dict[str, Any] = {
        key: (field.annotation, field)
        for key, field in TeacherSource.model_fields.items()
        if (field.alias or key) not in settings.model_fields
    }
    return create_model(
        settings.__name__, __base__=settings, __doc__=settings.__doc__ or "", **fields
    )


def _model(base: type[BaseModel], fields: Mapping[str, Any]) -> type[BaseModel]:
    return create_model(base.__name__, __base__=base, __doc__="", **fields)


def _described(key: str, default: Any = ...) -> Any:
    return Field(default, description=SpaceFile.model_fields[key].description)


def _dimension(key: str, setting: FieldInfo) -> tuple[Any, Any]:
    """Return the type and the default of a setting in ``space``: a value or a form."""
    kind: Any = setting.annotation
    value = Annotated[(kind, *setting.metadata)] if setting.metadata else kind
    forms = [_form(name, value) for name in FORMS_OF.get(get_origin(kind) or kind, FORMS)]
    default: Any = {} if key in REQUIRED_IN_SPACE else {"default_factory": lambda: None}
    return Union[(value, *forms)], Field(description=setting.description, **default)


def _form(name: str, value: Any) -> type[BaseModel]:
    def limit(item: Schema) -> None:
        if name == "int":
            item["type"] = "integer"
        if name == "loguniform":
            item["exclusiveMinimum"] = max(0, item.get("exclusiveMinimum", 0))

    item = Annotated[value, Field(json_schema_extra=limit)]
    items = (
        Annotated[list[item], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
        if name in LISTS
        else Annotated[list[item], Field(min_length=2, max_length=2)]
    )
    fields: dict[str, Any] = {name: (items, ...), **EXTRAS.get(name, {})}
    return create_model(name, __base__=Section, __doc__=FORMS[name], **fields)
