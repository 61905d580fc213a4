"""What is missing of other packages is said in one line."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
import ray

from kdsearch.errors import ConfigError
from kdsearch.extras import needs, require_private
from kdsearch.runs import optuna_internals
from kdsearch.tuning import ray_internals

PACKAGE = Path(__file__).parents[2] / "kdsearch"


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with (
        pytest.raises(ConfigError, match=r"^X: wfdb is not .*; pip install 'kdsearch\[ecg\]'$"),
        needs("ecg", "X"),
    ):
        importlib.import_module("wfdb")
    with pytest.raises(ModuleNotFoundError, match="no_such"), needs("ecg", "X"):
        importlib.import_module("kdsearch.no_such")


@pytest.mark.parametrize("name", ray_internals.PRIVATE)
def test_each_missing_part_of_ray_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    module, _, attribute = name.partition("(")[0].partition(":")
    owner = importlib.import_module(module)
    *path, last = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    monkeypatch.delattr(owner, last)
    with pytest.raises(ConfigError, match=r"^ray 2\S+ is not one that kdsearch") as caught:
        require_private("ray", ray.__version__, ray_internals.PRIVATE)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_parameter_is_seen():
    with pytest.raises(ConfigError, match=r"ray:init\(_no_such\) missing"):
        require_private("ray", "1", ("ray:init(_no_such)", "ray:init(_temp_dir)"))
    require_private("optuna", "1", optuna_internals.PRIVATE)


@pytest.mark.parametrize(
    "file",
    [
        *(PACKAGE / "tuning").rglob("*.py"),
        *(PACKAGE / "runs").rglob("*.py"),
    ],
    ids=lambda file: file.name,
)
def test_private_names_are_used_in_one_module(file: Path):
    if file.name in ("ray_internals.py", "optuna_internals.py"):
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in (
            "ray",
            "optuna",
        ):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("_")], ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner, ours = ast.unparse(node.value), ("self", "cls", "os", "super()")
            assert node.attr.endswith("_") or owner in ours, ast.unparse(node)
