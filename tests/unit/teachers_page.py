"""The examples of docs/teachers.md."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

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
