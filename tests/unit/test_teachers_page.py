"""The examples of docs/teachers.md are valid space files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from search_cases import space_file

from kdsearch.config.space_file import load_space, parse_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "teachers.md").read_text()


def examples() -> list[dict[str, dict[str, object]]]:
    """Every YAML block; of several sections of one name, each for itself."""
    found = []
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL):
        lines = block.splitlines()
        if all(line.startswith("teacher: {") for line in lines):
            found += [yaml.safe_load(line) for line in lines]
        else:
            found.append(yaml.safe_load(block))
    return found


@pytest.mark.parametrize("example", examples())
def test_an_example_is_read(example: dict[str, dict[str, object]]) -> None:
    plain = space_file()
    for section, keys in example.items():
        plain[section] = keys if section == "teacher" else {**plain[section], **keys}
    parsed = parse_config(plain, "docs/teachers.md")
    for key, value in example.get("teacher", {}).items():
        assert parsed.as_dict()["teacher"][key] == value
    for key, value in example.get("search", {}).items():
        assert getattr(parsed.search, key) == value


def test_all_forms_are_shown() -> None:
    keys = {key for example in examples() for key in example.get("teacher", {})}
    assert keys == {"from", "detector", "options", "members"}


def test_the_space_of_the_page_is_shipped() -> None:
    assert "--space self_improving" in PAGE
    space = load_space("self_improving")
    assert space.search.generations == 3
    assert space.data.source == "simulated"
