"""The command ``spaces``: list or copy the shipped space files."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.cli.command import Command, say
from kdsearch.config.shipped import copy_spaces, shipped_spaces


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--copy", type=Path, metavar="DIR", help="copy them to this folder, with their schemas"
    )


def _spaces(options: argparse.Namespace) -> int:
    if options.copy:
        say("\n".join(str(path) for path in copy_spaces(options.copy)))
        return 0
    spaces = shipped_spaces()
    width = max(map(len, spaces)) + 2
    for name, path in spaces.items():
        say(f"{name:<{width}}{_first_sentence(path)}")
    return 0


def _first_sentence(space: Path) -> str:
    """Return the first sentence of the comment at the top of a space file."""
    _, *lines = space.read_text(encoding="utf-8").splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    comment = " ".join(line.removeprefix("#").strip() for line in lines[:end])
    return comment.split(". ")[0].rstrip(".")


SPACES = Command(
    name="spaces",
    summary="list or copy the shipped space files",
    description="List the shipped space files, which --space takes by name, or copy them to "
    "change them.",
    examples="\n--copy search_spaces",
    arguments=_arguments,
    run=_spaces,
)
