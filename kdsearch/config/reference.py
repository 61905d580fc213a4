"""Generate the reference of the space file as Markdown from its JSON Schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from kdsearch.config.schema import DEFAULT_METHOD, FORMS, LISTS, Schema, inlined, space_schema
from kdsearch.config.space_file import (
    BUILT_IN,
    REQUIRED_IN_SPACE,
    REQUIRED_SECTIONS,
    load_method,
)

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

A key that is missing has the default shown below. An unknown key, a value outside its limits
or bounds in the wrong order end the command with a one-line error and exit status 2, before
anything is trained. `--dry-run` prints the file with all defaults and the cost of the search.
The flags `--data`, `--num-samples`, `--max-concurrent`, `--time-budget` and `--seed` of
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

Rules for several keys (the order of bounds, a grace period within the epochs, a student that
starts from its teacher's weights but has another width) are checked only by kdsearch.

**This page is generated** from the settings in the code, and so is the schema:

```sh
python -m kdsearch schema --markdown > docs/space.md
python -m kdsearch schema > search_spaces/schema.json
python -m kdsearch schema --method package.module:Class    # of a method of your own
```
"""
STUDENT = """\
`student` has the settings that are the same in every student; `space` has those that are
searched. Every setting below may be in either of the two, but not in both.{required}

In `space` a setting is a plain value, the same in every trial, or one of:

{forms}

Whole numbers are searched by `int`, words by `choice`. `1e-3` is read as a number, although
YAML 1.1 calls it text.
"""
REQUIRED = """
{} must be in `space`, fixed or searched: none of them has a default that suits all data."""
METHOD = """\
`beatgan` (default); `memory`, a nearest neighbour search and small students of it; or
`package.module:Class`, an implementation of the protocol in `kdsearch/methods/protocol.py`.
Each has its own settings for `teacher`, `student` and `space`.
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
    """Return every key of the space file of one method: type, limits, default and meaning.

    The reference of the default method also has the settings of the other built-in ones.

    Raises:
        ConfigError: There is no such method.
    """
    sections = space_schema(method_name)["properties"]
    parts = [INTRODUCTION, f"## method\n\n{METHOD}"]
    for name, section in sections.items():
        if name == "student":
            text = STUDENT.format(required=_required(sections), forms=_forms())
            parts.append(f"## student and space\n\n{text}\n{_settings(method_name)}")
        elif name not in ("method", "space", "threshold"):
            parts.append(_section(name, section))
    parts.append(THRESHOLD.format(meaning=sections["threshold"]["description"]))
    others = sorted(set(BUILT_IN) - {method_name}) if method_name == DEFAULT_METHOD else ()
    for name in others:
        sections = space_schema(name)["properties"]
        parts += [
            f"## teacher of the method {name}\n\n{sections['teacher']['description']}\n",
            _table(sections["teacher"]["properties"]),
            f"## student and space of the method {name}\n",
            f"{_required(sections).strip()}\n",
            _settings(name),
        ]
    return "\n".join(parts)


def _section(name: str, section: Schema) -> str:
    needed = "required, may be empty" if name in REQUIRED_SECTIONS else "optional"
    tables = [f"## {name}\n\n{section.get('description', '')} ({needed})\n"]
    tables.append(_table(section["properties"]))
    for key, setting in section["properties"].items():
        for part in setting.get("anyOf", [setting]):
            if "properties" in part:
                inner = _table(part["properties"])
                tables.append(f"### {name}.{key}\n\n{part.get('description', '')}\n\n{inner}")
    return "\n".join(tables)


def _required(sections: Schema) -> str:
    keys = [f"`{key}`" for key in sections["space"].get("required", ())]
    return REQUIRED.format(_listed(keys, "and")) if keys else ""


def _settings(method_name: str) -> str:
    """Return what may be in ``student`` and in ``space``, in one table."""
    settings = load_method(method_name, "--method").student_settings
    return _table(inlined(settings)["properties"], REQUIRED_IN_SPACE)


def _forms() -> str:
    rows = ["| form | meaning |", "|---|---|"]
    for form, text in FORMS.items():
        bounds = "[a, b, c]" if form in LISTS else "[lo, hi]"
        rows.append(f"| `{{{form}: {bounds}}}` | {text} |")
    return "\n".join(rows)


def _table(settings: Schema, in_space: Sequence[str] = ()) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, setting in settings.items():
        default = "in `space`" if key in in_space else _default(setting)
        meaning = setting.get("description", "")
        rows.append(f"| `{key}` | {_kind(setting)} | {default} | {meaning} |")
    return "\n".join([*rows, ""])


def _default(setting: Schema) -> str:
    if "default" not in setting:
        return "required"
    default = setting["default"]
    if default is None or isinstance(default, dict):
        return "-"
    text = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
    return f"`{text}`"


def _kind(schema: Schema) -> str:
    """Return a type and its limits in words."""
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    values = [f"`{value}`" for part in parts or [schema] for value in _values(part)]
    if values:
        others = [_kind(part) for part in parts if "type" in part and not _values(part)]
        return _listed([*values, *others], "or")
    if parts:
        return _listed([_kind(part) for part in parts], "or")
    if schema.get("type") == "array":
        return f"list of: {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and "properties" not in schema:
        return "keys and values"
    limits = [text.format(schema[key]) for key, text in LIMITS.items() if key in schema]
    return ", ".join([TYPES.get(schema.get("type", ""), "any value"), *limits])


def _values(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _listed(words: list[str], last: str) -> str:
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end
