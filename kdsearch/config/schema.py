"""Generate a JSON Schema of the space file from the settings classes.

Editors use it to complete and check a space file. It covers keys, types, limits and the forms
of a dimension. Rules for several keys, such as the order of bounds or a grace period within
the epochs, are checked only by kdsearch.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import BaseModel

from kdsearch.config.space_file import REQUIRED_IN_SPACE, REQUIRED_SECTIONS, Config, load_method
from kdsearch.methods.protocol import Method

DRAFT = "https://json-schema.org/draft/2020-12/schema"
DEFAULT_METHOD = "beatgan"
METHOD_HELP = (
    "The method that is searched: `beatgan`, `memory`, or `package.module:Class` for one of "
    "your own."
)
STUDENT_HELP = "What is the same in every student; whatever is not said here has its default."
SPACE_HELP = (
    "What is searched, and the settings of a student that have to be decided: a dimension or a "
    "value for each."
)
THRESHOLD_HELP = (
    "From which score on the best student flags a beat, chosen on the validation beats: `f1` "
    "has the best F1, `sensitivity` and `specificity` just reach that part of the beats, and a "
    "number is the score itself."
)
_PART: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
THRESHOLD: dict[str, Any] = {
    "description": THRESHOLD_HELP,
    "default": "f1",
    "anyOf": [
        {"const": "f1"},
        *(
            {
                "type": "object",
                "additionalProperties": False,
                "required": [kind],
                "properties": {kind: _PART},
            }
            for kind in ("sensitivity", "specificity")
        ),
        {"type": "number"},
    ],
}
# The forms of a dimension, what each means, and the types of settings that it suits.
FORMS = {
    "uniform": ("A number from lo to hi, each as likely.", ("number",)),
    "loguniform": ("A number from lo to hi, its logarithm uniform.", ("number",)),
    "int": ("A whole number from lo to hi, both included.", ("number", "integer")),
    "choice": ("One of the values listed.", ("number", "integer", "string", "boolean")),
}
Schema = dict[str, Any]


def space_schema(method_name: str = DEFAULT_METHOD) -> Schema:
    """The JSON Schema (draft 2020-12) of a space file that searches one method.

    Raises:
        ConfigError: There is no such method.
    """
    sections = _sections(load_method(method_name, "--method"))
    # Any other method than the default one has to be named.
    named = () if method_name == DEFAULT_METHOD else ("method",)
    return {
        "$schema": DRAFT,
        "title": f"kdsearch space file, method {method_name}",
        "type": "object",
        "additionalProperties": False,
        "required": [*named, *REQUIRED_SECTIONS],
        "properties": {
            "method": {"const": method_name, "description": METHOD_HELP},
            **sections,
            "threshold": THRESHOLD,
        },
    }


def _sections(method: Method) -> Schema:
    """The sections in the order of the configuration, which knows all but the method's own."""
    student = _plain(method.student_settings)
    own = {
        "teacher": _or_nothing(_plain(method.teacher_settings)),
        "student": _or_nothing(_student(student)),
        "space": _space(student),
    }
    types = get_type_hints(Config)
    return {
        name: own[name] if name in own else _or_nothing(_plain(types[name]))
        for name in (field.name for field in fields(Config))
        if name in own or _is_section(types[name])
    }


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _plain(model: type[BaseModel]) -> Schema:
    """Pydantic's schema of a section, with what it refers to put in its place."""
    schema = model.model_json_schema()
    plain: Schema = _resolved(schema, schema.pop("$defs", {}))
    return plain


def _resolved(schema: Any, definitions: Schema) -> Any:
    if isinstance(schema, list):
        return [_resolved(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    target = schema.get("$ref", "").rpartition("/")[2]
    merged = {**definitions.get(target, {}), **schema}
    texts = {"description"} & merged.keys()
    # A title repeats the key, in capitals.
    return {
        key: _text(part) if key in texts else _resolved(part, definitions)
        for key, part in merged.items()
        if key not in ("$ref", "title")
    }


def _text(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "`")


def _or_nothing(section: Schema) -> Schema:
    """A section whose keys are all commented out is none, and has its defaults."""
    return {**section, "type": ["object", "null"]}


def _student(settings: Schema) -> Schema:
    """The student's settings but those that stand in the space in any case."""
    properties = {
        key: setting
        for key, setting in settings["properties"].items()
        if key not in REQUIRED_IN_SPACE
    }
    return {
        "description": STUDENT_HELP,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _space(settings: Schema) -> Schema:
    """Every setting of a student, as a dimension or a value."""
    properties = settings["properties"]
    return {
        "description": SPACE_HELP,
        "type": "object",
        "additionalProperties": False,
        "required": [key for key in REQUIRED_IN_SPACE if key in properties],
        "properties": {key: _dimension(setting) for key, setting in properties.items()},
    }


def _dimension(setting: Schema) -> Schema:
    """A setting's own schema, or one of the forms that its type allows, within its limits."""
    about = {key: setting[key] for key in ("description",) if key in setting}
    value = {key: part for key, part in setting.items() if key not in (*about, "default")}
    kind = value.get("type", "string" if "enum" in value else None)
    forms = [
        _form(form, text, value)
        for form, (text, kinds) in FORMS.items()
        if kind is None or kind in kinds
    ]
    return {**about, "anyOf": [value, *forms]}


def _form(form: str, text: str, value: Schema) -> Schema:
    items = dict(value)
    if form == "int":
        items["type"] = "integer"
    if form == "loguniform":
        items["exclusiveMinimum"] = max(0, value.get("exclusiveMinimum", 0))
    bounds: Schema = {"type": "array", "items": items, "minItems": 2, "maxItems": 2}
    options: Schema = {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}
    return {
        "title": form,
        "description": text,
        "type": "object",
        "additionalProperties": False,
        "required": [form],
        "properties": {form: options if form == "choice" else bounds},
    }
