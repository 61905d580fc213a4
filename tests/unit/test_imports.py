"""Imports point one way, and heavy packages are loaded only where they are needed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the bottom to the top: a module imports from lower layers and from its own package.
LAYERS = (
    ("errors",),
    ("bucket",),
    ("database", "files", "journal", "shipped", "space"),
    ("data",),
    ("method", "metrics"),
    ("statistics", "baselines"),
    ("compute", "tensors"),
    ("memory",),
    ("beatgan", "torch_method"),
    ("abilities",),
    ("bucket_run", "config"),
    ("run_folder", "teacher"),
    ("student", "evaluation", "schema"),
    ("sampler",),
    ("study", "reference"),
    ("recovery", "leaderboard", "comparison", "pareto", "costs"),
    ("run",),
    ("summary",),
    ("verdict",),
    ("report",),
    ("dashboards",),
    ("tuning",),
    ("api",),
    ("deploy",),
    ("commands",),
    ("cli",),
    ("__main__",),
)

# Packages, and the only parts of kdsearch that may import them.
CONFINED = {
    "ray": {"tuning"},
    "optuna": {"dashboards", "database", "journal", "sampler", "study", "tuning"},
    "tensorboardX": {"dashboards"},
    "mlflow": {"tuning"},
    "wandb": {"tuning"},
    "yaml": {"config", "leaderboard", "reference", "run_folder", "tuning"},
    "argparse": {"cli", "commands"},
    "argcomplete": {"cli", "commands"},
    "pyarrow": {"bucket"},
    "wfdb": {"data"},
    "biosppy": {"data"},
    "filelock": {"data", "run_folder", "teacher"},
}
# What a method needs, and no more: it runs on any machine with torch.
METHOD_NEEDS = {"numpy", "pydantic", "torch"}
METHODS = ("beatgan", "memory")
METHOD_FILES = sorted(f for name in METHODS for f in (ROOT / "kdsearch" / name).glob("*.py"))


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name.

    Attributes:
        at_start: Whether importing the file imports it, unlike inside a function.
        typing_only: Whether only the type checker sees it.
    """

    name: str
    at_start: bool
    typing_only: bool


def imports(path: Path) -> set[Import]:
    return set(_walk(ast.parse(path.read_text()), at_start=True, typing_only=False))


def _walk(node: ast.AST, *, at_start: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        unseen = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        for name in _names(child):
            yield Import(name, at_start, typing_only)
        yield from _walk(
            child, at_start=at_start and not inside, typing_only=typing_only or unseen
        )


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        # `from kdsearch import study` imports a module, `from kdsearch.study import Study` a
        # name: both forms are kept, and what is no module matches nothing.
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


SOURCES = sorted((ROOT / "kdsearch").rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "kdsearch").with_suffix("").parts[0]


PARTS = {part_of(path) for path in SOURCES} - {"__init__"}


def layer(name: str) -> int:
    (found,) = [index for index, names in enumerate(LAYERS) if name in names]
    return found


def ours(path: Path) -> set[str]:
    """Parts of kdsearch that a file imports, its own excluded."""
    names = [found.name.split(".") for found in imports(path)]
    found = {name[1] for name in names if name[0] == "kdsearch" and len(name) > 1}
    return found & PARTS - {part_of(path)}


def test_every_module_has_a_layer():
    known = {name for names in LAYERS for name in names}
    assert known >= PARTS, f"put {sorted(PARTS - known)} into LAYERS"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    if path.parent.name == "kdsearch" and path.stem == "__init__":
        # What is read on request comes inside a function, so that the package starts at once.
        assert not any(
            i.at_start and not i.typing_only
            for i in imports(path)
            if i.name.startswith("kdsearch")
        )
        return
    upward = {name for name in ours(path) if layer(name) >= layer(part_of(path))}
    assert upward == set()


@pytest.mark.parametrize("package", CONFINED)
def test_a_package_is_imported_by_few(package: str):
    users = {
        part_of(path)
        for path in SOURCES
        for found in imports(path)
        if found.name.split(".")[0] == package
    }
    assert users <= CONFINED[package]


def test_packages_are_imported_at_all():
    names = {found.name.split(".")[0] for path in SOURCES for found in imports(path)}
    assert set(CONFINED) <= names


@pytest.mark.parametrize(
    "path", METHOD_FILES, ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_the_method_knows_nothing_of_the_harness(path: Path):
    known = {"compute", "data", "errors", "memory", "method", "metrics", "tensors"}
    assert ours(path) <= known
    packages = {found.name.split(".")[0] for found in imports(path)} - {"kdsearch"}
    assert packages - sys.stdlib_module_names <= METHOD_NEEDS


def test_the_harness_knows_the_method_by_its_protocol_alone():
    others = [path for path in SOURCES if part_of(path) not in METHODS]
    users = {part_of(path) for path in others if ours(path) & set(METHODS)}
    assert users == set(), "they are imported by their names, as any other"


def loaded_at_start(module: str) -> set[str]:
    """Everything that importing a module of ours imports, through all of ours."""
    seen: set[str] = set()
    to_do = [module]
    while to_do:
        name = to_do.pop()
        while name not in NAMES and "." in name and name.startswith("kdsearch"):
            name = name.rpartition(".")[0]
        if name in seen:
            continue
        seen.add(name)
        if name in NAMES:
            found = imports(NAMES[name])
            to_do += [i.name for i in found if i.at_start and not i.typing_only]
            to_do += [name.rpartition(".")[0]] if "." in name else []
    return {name.split(".")[0] for name in seen} | {n for n in seen if n in NAMES}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("kdsearch", {"torch", "ray", "optuna", "pandas", "numpy", "pydantic", "yaml"}),
        ("kdsearch.student", {"torch", "ray", "optuna", "pandas", "wfdb", "biosppy"}),
        ("kdsearch.cli", {"torch", "ray", "optuna", "pandas", "numpy", "pydantic", "yaml"}),
        ("kdsearch.summary", {"torch", "ray", "wfdb", "biosppy"}),
        (
            "kdsearch.config",
            {"torch", "ray", "optuna", "pandas", "kdsearch.beatgan", "kdsearch.memory"},
        ),
        ("kdsearch.run_folder", {"torch", "ray", "optuna", "pandas"}),
        ("kdsearch.beatgan", {"ray", "optuna", "yaml", "pandas", "kdsearch.run_folder"}),
        ("kdsearch.memory", {"ray", "optuna", "yaml", "pandas", "kdsearch.beatgan"}),
        ("kdsearch.tuning.progress", {"ray", "torch"}),
    ],
)
def test_a_module_starts_without_what_it_does_not_need(module: str, absent: set[str]):
    assert loaded_at_start(module) & absent == set()


def test_what_is_loaded_at_start_is_followed_through():
    assert {"torch", "ray", "optuna", "kdsearch.study"} <= loaded_at_start(
        "kdsearch.tuning.launch"
    )
    assert {"torch", "kdsearch.data.beats"} <= loaded_at_start("kdsearch.beatgan")
