"""Generate the reference of the space file as Markdown from its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from kdsearch.config.schema import DEFAULT_METHOD, FORMS, Schema, space_schema
from kdsearch.config.space_file import BUILT_IN, REQUIRED_SECTIONS

INTRODUCTION = """\
# The space file

A search is described by one YAML file. Five sections must be there, even if empty: `data`,
`teacher`, `student`, `space` and `search`. The smallest file that runs:

```yaml
data:
teacher:
student:
space: {temperature: {loguniform: [0.5, 4]}, alpha: 0.1, w_adv: 1, lr: 1.0e-4}
search:
```

Whatever is not said has the default that stands below. An unknown key, a value beyond its
limits or a bound in the wrong order is answered in one line with exit status 2, before anything
is trained; `--dry-run` prints the file with every default filled in and what the search would
cost. The flags `--data`, `--num-samples`, `--max-concurrent`, `--time-budget` and `--seed` of
`run_search.py` replace what the file says, and are checked in the same way. `--set` replaces
any other key; its value is YAML:

```sh
python run_search.py --space kd --set student.width=16 --set "space.lr={uniform: [1e-5, 1e-4]}"
```

**In an editor.** `search_spaces/schema.json` is a JSON Schema of the file. An editor with a
YAML language server completes and checks a file whose first line names it, as in the shipped
spaces:

```yaml
# yaml-language-server: $schema=schema.json
```

What needs two keys at once (bounds in their order, a grace period within the epochs, a student
that starts from its teacher's weights but has another width) kdsearch alone checks.

**This page is generated** from the settings in the code, and so is the schema:

```sh
python -m kdsearch schema --markdown > docs/space.md
python -m kdsearch schema > search_spaces/schema.json
python -m kdsearch schema --method package.module:Class    # of a method of your own
```
"""
STUDENT = """\
`student` says what is the same in every student; `space` says what is searched. Every setting
below may stand in either of the two, but not in both.{required}

In `space` a setting is a plain value, the same in every trial, or one of:

{forms}

Whole numbers are searched by `int`, words by `choice`. `1e-3` is taken for a number, though
YAML 1.1 calls it text.
"""
REQUIRED = """
{} have to stand in `space`, fixed or searched: no default of theirs suits all data."""
METHOD = """\
`beatgan` where nothing is said; `memory`, nearest neighbours and small students of theirs; or
`package.module:Class`, an implementation of the protocol in `kdsearch/methods/protocol.py`.
Each brings settings of its own for `teacher`, `student` and `space`.
"""
THRESHOLD = """\
## threshold

{meaning} (optional)

```yaml
threshold: f1                    # the default
threshold: {{sensitivity: 0.95}}   # finds 95 % of the abnormal validation beats
threshold: {{specificity: 0.99}}   # flags 1 % of the normal ones
threshold: 0.02                  # a score
```

It can be chosen again for a finished student: by `--threshold` of the commands that score and
export, or by `Student.at` in Python.
"""
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "the keys below",
}


def space_reference(method_name: str = DEFAULT_METHOD) -> str:
    """Every key of the space file of one method: type, limits, default and meaning.

    That of the default method also tells what the other built-in ones have in its place.

    Raises:
        ConfigError: There is no such method.
    """
    sections = space_schema(method_name)["properties"]
    parts = [INTRODUCTION, f"## method\n\n{METHOD}"]
    for name, section in sections.items():
        if name == "student":
            parts.append(_student(sections))
        elif name not in ("method", "space", "threshold"):
            parts.append(_section(name, section))
    parts.append(THRESHOLD.format(meaning=sections["threshold"]["description"]))
    others = set(BUILT_IN) - {method_name} if method_name == DEFAULT_METHOD else ()
    return "\n".join([*parts, *map(_other_method, sorted(others))])


def _other_method(name: str) -> str:
    """The sections in which another method differs."""
    sections = space_schema(name)["properties"]
    teacher = sections["teacher"]
    return "\n".join(
        [
            f"## teacher of the method {name}\n\n{teacher['description']}\n",
            _table(teacher["properties"]),
            f"## student and space of the method {name}\n",
            f"{_required(sections).strip()}\n",
            _settings(sections),
        ]
    )


def _section(name: str, section: Schema) -> str:
    needed = "required, may be empty" if name in REQUIRED_SECTIONS else "optional"
    head = f"## {name}\n\n{section.get('description', '')} ({needed})\n"
    tables = [_table(section["properties"])]
    for key, setting in section["properties"].items():
        if "properties" in setting:
            inner = _table(setting["properties"])
            tables.append(f"### {name}.{key}\n\n{setting.get('description', '')}\n\n{inner}")
    return "\n".join([head, *tables])


def _student(sections: Schema) -> str:
    forms = "\n".join(["| form | meaning |", "|---|---|", *_forms()])
    text = STUDENT.format(required=_required(sections), forms=forms)
    return f"## student and space\n\n{text}\n{_settings(sections)}"


def _required(sections: Schema) -> str:
    keys = [f"`{key}`" for key in sections["space"]["required"]]
    return REQUIRED.format(_listed(keys, "and")) if keys else ""


def _settings(sections: Schema) -> str:
    """What may stand in the student and in the space, in one table."""
    space, student = sections["space"], sections["student"]["properties"]
    settings = {
        key: student.get(key, {**setting["anyOf"][0], **_about(setting)})
        for key, setting in space["properties"].items()
    }
    return _table(settings, space["required"])


def _about(setting: Schema) -> Schema:
    return {key: setting[key] for key in ("description",) if key in setting}


def _forms() -> Iterator[str]:
    for form, (text, _) in FORMS.items():
        bounds = "[a, b, c]" if form == "choice" else "[lo, hi]"
        yield f"| `{{{form}: {bounds}}}` | {text} |"


def _table(settings: Schema, in_space: Any = ()) -> str:
    rows = [
        f"| `{key}` | {_kind(setting)} | {_default(key, setting, in_space)} | "
        f"{setting.get('description', '')} |"
        for key, setting in settings.items()
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _default(key: str, setting: Schema, in_space: Any) -> str:
    if key in in_space:
        return "in `space`"
    if "default" not in setting:
        return "required"
    default = setting["default"]
    if default is None or isinstance(default, dict):
        return "-"
    text = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
    return f"`{text}`"


def _kind(schema: Schema) -> str:
    """A type and its limits in words."""
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    values = [f"`{value}`" for part in parts or [schema] for value in _values(part)]
    if values:
        others = [_kind(part) for part in parts if "type" in part and not _values(part)]
        return _listed([*values, *others], "or")
    if parts:
        return _listed([_kind(part) for part in parts], "or")
    if schema.get("type") == "array":
        return f"list of: {_kind(schema.get('items', {}))}"
    limits = [text.format(schema[key]) for key, text in LIMITS.items() if key in schema]
    return ", ".join([TYPES.get(schema.get("type", ""), "any value"), *limits])


def _values(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _listed(words: list[str], last: str) -> str:
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end
