"""The examples of docs/teachers.md are valid space files."""

from __future__ import annotations

import pytest
from search_cases import space_file
from teachers_page import PAGE, examples

from kdsearch.config.space_file import load_space, parse_config


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
