"""Imports point one way, and heavy packages are loaded only where they are needed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the bottom to the top: a module imports from lower layers and from its own package.
LAYERS = (
    "texts",
    "errors",
    "extras",
    "settings",
    "files",
    "data",
    "metrics",
    "methods",
    "config",
    "runs",
    "student",
    "teachers",
    "evaluation",
    "analysis",
    "tuning",
    "sklearn",
    "api",
    "cli",
    "__main__",
)

# Packages, and the only parts of kdsearch that may import them.
CONFINED = {
    "ray": {"tuning"},
    "optuna": {"analysis", "runs", "tuning"},
    "tensorboardX": {"analysis"},
    "mlflow": {"tuning"},
    "wandb": {"tuning"},
    "yaml": {"analysis", "config", "runs", "tuning"},
    "argparse": {"cli"},
    "argcomplete": {"cli"},
    "pyarrow": {"files"},
    "wfdb": {"data"},
    "filelock": {"data", "files", "runs", "tuning"},
}
# What a method needs, and no more: it runs on any machine with torch.
# Triton comes with torch for CUDA, and is done without where it does not.
METHOD_NEEDS = {"numpy", "pydantic", "torch", "triton"}
METHODS = ("beatgan", "memory")
METHOD_FILES = sorted(
    f for name in METHODS for f in (ROOT / "kdsearch" / "methods" / name).glob("*.py")
)


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
        # `from kdsearch.runs import study` imports a module, `from kdsearch.runs.study import
        # Study` a name: both forms are kept, and what is no module matches nothing.
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
    return LAYERS.index(name)


def ours(path: Path) -> set[str]:
    """Parts of kdsearch that a file imports, its own excluded."""
    names = [found.name.split(".") for found in imports(path)]
    found = {name[1] for name in names if name[0] == "kdsearch" and len(name) > 1}
    return found & PARTS - {part_of(path)}


def test_every_module_has_a_layer():
    assert set(LAYERS) == PARTS


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
    assert ours(path) <= {"data", "errors", "metrics", "settings"}
    packages = {found.name.split(".")[0] for found in imports(path)} - {"kdsearch"}
    assert packages - sys.stdlib_module_names <= METHOD_NEEDS


def test_the_harness_knows_the_method_by_its_protocol_alone():
    built_in = tuple(f"kdsearch.methods.{name}" for name in METHODS)
    users = {
        path
        for path in set(SOURCES) - set(METHOD_FILES)
        if any(found.name.startswith(built_in) for found in imports(path))
    }
    assert users == set(), "they are imported by their names, as any other"


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, without packages."""
    found = {i.name for i in imports(path)} | {i.name.rpartition(".")[0] for i in imports(path)}
    return {name for name in found & set(NAMES) if NAMES[name].stem != "__init__"}


def test_no_module_imports_itself_through_others():
    graph = {name: imported_modules(path) for name, path in NAMES.items()}
    # Raises CycleError, which names the cycle.
    tuple(TopologicalSorter(graph).static_order())


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
        ("kdsearch.student.student", {"torch", "ray", "optuna", "pandas", "wfdb"}),
        (
            "kdsearch.cli.main",
            {"torch", "ray", "optuna", "pandas", "numpy", "pydantic", "yaml"},
        ),
        ("kdsearch.analysis.summary", {"torch", "ray", "wfdb"}),
        (
            "kdsearch.config.space_file",
            {
                "torch",
                "ray",
                "optuna",
                "pandas",
                "kdsearch.methods.beatgan",
                "kdsearch.methods.memory",
            },
        ),
        ("kdsearch.runs.folder", {"torch", "ray", "optuna", "pandas"}),
        (
            "kdsearch.methods.beatgan",
            {"ray", "optuna", "yaml", "pandas", "kdsearch.runs.folder"},
        ),
        (
            "kdsearch.methods.memory",
            {"ray", "optuna", "yaml", "pandas", "kdsearch.methods.beatgan"},
        ),
        ("kdsearch.tuning.search", {"matplotlib", "plotly", "jinja2", "cmaes", "wfdb"}),
        ("kdsearch.tuning.progress", {"ray", "torch"}),
        ("kdsearch.tuning.workers.packed_trial", {"torch"}),
        ("kdsearch.tuning.workers.packer_actor", {"torch"}),
    ],
)
def test_a_module_starts_without_what_it_does_not_need(module: str, absent: set[str]):
    assert loaded_at_start(module) & absent == set()


def test_what_is_loaded_at_start_is_followed_through():
    assert {"torch", "ray", "optuna", "kdsearch.runs.study"} <= loaded_at_start(
        "kdsearch.tuning.search"
    )
    assert {"torch", "kdsearch.data.beats"} <= loaded_at_start("kdsearch.methods.beatgan")


def test_settings_are_copied_with_their_validation():
    """By `Section.changed`; a stack puts tensors in the place of numbers, which is not one."""
    users = {path.name for path in SOURCES if "model_copy" in path.read_text()}
    assert users == {"torch_stack.py"}
