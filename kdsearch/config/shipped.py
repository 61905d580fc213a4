"""Find the shipped space files by name, in a checkout or an installed wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdsearch.errors import ConfigError

SUFFIX = ".yaml"
SCHEMAS = "schema*.json"


def shipped_spaces() -> dict[str, Path]:
    """Return the file of each shipped space, by name."""
    return {path.stem: path for path in sorted(_folder().glob(f"*{SUFFIX}"))}


def find_space(given: Path) -> Path:
    """Return the file, or the shipped space of this name.

    ``kd`` is a shipped space, ``kd.yaml`` a file: in a wrong folder, no other space is used.

    Raises:
        ConfigError: There is no such file, and no shipped space of this name.
    """
    spaces = shipped_spaces()
    if str(given) in spaces and not given.is_file():
        return spaces[str(given)]
    if given.exists():
        return given
    name = given.name.removesuffix(SUFFIX)
    if name in spaces:
        raise ConfigError(f"{given}: no such file; --space {name} uses the shipped one")
    raise ConfigError(f"{given}: no such file")


def copy_spaces(folder: Path) -> list[Path]:
    """Copy all shipped spaces and their schemas to a new folder.

    Raises:
        ConfigError: One of the files exists already; nothing is copied then.
    """
    sources = [*shipped_spaces().values(), *sorted(_folder().glob(SCHEMAS))]
    targets = [folder / source.name for source in sources]
    for target in targets:
        if target.exists():
            raise ConfigError(f"{target}: exists already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in zip(sources, targets, strict=True):
        shutil.copyfile(source, target)
    return targets


def _folder() -> Path:
    """Return the folder: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"
