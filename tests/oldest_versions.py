"""Print the oldest versions that pyproject.toml allows, as constraints for pip.

Torch may be given: ``python tests/oldest_versions.py 2.13.0``, where an older one would bring
gigabytes of CUDA.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def oldest() -> dict[str, str]:
    """The lowest version of each package that has one."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    needed = [*project["project"]["dependencies"], *(n for e in extras.values() for n in e)]
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in needed)
    return {match[1]: match[2] for match in found if match}


if __name__ == "__main__":
    versions = oldest() | ({"torch": sys.argv[1]} if len(sys.argv) > 1 else {})
    sys.stdout.write(
        "\n".join(f"{name}=={version}" for name, version in versions.items()) + "\n"
    )
