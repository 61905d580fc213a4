"""Puts the shipped space files into the wheel; all else stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSpaces(build_py):
    """Copies search_spaces/ into the package, unless it is installed as an editable one."""

    def run(self) -> None:
        """Build the package, then add the spaces."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "kdsearch" / "search_spaces"
        self.mkpath(str(target))
        for source in Path("search_spaces").iterdir():
            self.copy_file(str(source), str(target / source.name))


setup(cmdclass={"build_py": BuildWithSpaces})
