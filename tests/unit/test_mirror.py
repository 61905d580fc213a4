"""The unit tests are where one looks for them: in folders like the packages."""

from __future__ import annotations

from pathlib import Path

UNIT = Path(__file__).parent
PACKAGE = UNIT.parents[1] / "kdsearch"


def test_each_file_of_a_folder_is_named_after_the_module_that_it_tests():
    """Files in no folder may be about several packages, or about the repository."""
    tests = (path.relative_to(UNIT) for path in UNIT.rglob("*/test_*.py"))
    tested = {path.with_name(path.stem.removeprefix("test_")) for path in tests}
    modules = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")}
    packages = {path.parent for path in modules if path.name == "__init__"}
    assert tested - modules - packages == set()
