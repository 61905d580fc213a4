"""Make wheels small: without what Ray Tune does not use, and compressed by LZMA.

    python benchmarks/gpu_wheels.py WHEEL...

Each file is replaced. pip installs such a wheel as any other.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# Java, reinforcement learning, language models and the dashboard's web page.
UNUSED = ("ray/jars/", "ray/rllib/", "ray/llm/", "ray/dashboard/client/")


def main() -> None:
    for name in sys.argv[1:]:
        shrink(Path(name))


def shrink(wheel: Path) -> None:
    smaller = wheel.with_suffix(".tmp")
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(smaller, "w", zipfile.ZIP_LZMA) as new,
    ):
        for member in old.infolist():
            if member.filename.startswith(UNUSED):
                continue
            content = old.read(member)
            if member.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(x for x in lines if not x.startswith(UNUSED)).encode()
            member.compress_type = zipfile.ZIP_LZMA
            new.writestr(member, content)
    smaller.replace(wheel)


if __name__ == "__main__":
    main()
