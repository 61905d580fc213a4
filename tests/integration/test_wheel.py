"""The wheel: built from the sources, complete, and usable far from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import kdsearch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by way of the source archive, so that this is complete as well."""
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation: setuptools is at hand, and nothing has to be fetched.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=1200)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (built,) = folder.glob("*.whl")
    return built


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_package_and_the_spaces(wheel: Path):
    files = [path for path in (ROOT / "kdsearch").rglob("*") if path.is_file()]
    sources = {str(p.relative_to(ROOT)) for p in files if p.parent.name != "__pycache__"}
    spaces = {f"kdsearch/search_spaces/{p.name}" for p in (ROOT / "search_spaces").iterdir()}
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert names == sources | spaces


def test_the_wheel_says_what_it_is(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
    said = Parser().parsestr(archive.read(metadata).decode())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert said["Version"] == citation["version"] == kdsearch.__version__
    assert said["License-Expression"] == citation["license"] == "MIT"
    assert said["License-File"] == "LICENSE"
    assert said["Description-Content-Type"] == "text/markdown"
    (points,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
    commands = archive.read(points).decode().split()
    assert "kdsearch" in set(commands)


def test_the_commands_run_from_the_wheel_alone(wheel: Path, tmp_path: Path):
    unpacked = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(unpacked)

    def call(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(unpacked)},
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        return done.stdout

    assert call("-c", "import kdsearch; print(kdsearch.__file__)").startswith(str(unpacked))
    shipped = {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert {
        line.split()[0] for line in call("-m", "kdsearch", "spaces").splitlines()
    } == shipped
    planned = call("-m", "kdsearch", "search", "--space", "smoke", "--dry-run")
    assert "# students: 8 trials" in planned
    call("-m", "kdsearch", "spaces", "--copy", "spaces")
    assert (tmp_path / "spaces" / "schema.json").is_file()
