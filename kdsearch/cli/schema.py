"""The command ``schema``: print the schema or the reference of the space file."""

from __future__ import annotations

import argparse
import json

from kdsearch.cli.command import Command, say


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--markdown",
        action="store_true",
        help="print a Markdown reference instead of a JSON Schema",
    )
    known = "beatgan, memory, or your own package.module:Class; default: beatgan"
    add("--method", default="beatgan", help=known)


def _schema(options: argparse.Namespace) -> int:
    # A method imports torch, which takes a while.
    from kdsearch.config.reference import space_reference  # noqa: PLC0415
    from kdsearch.config.schema import space_schema  # noqa: PLC0415

    if options.markdown:
        say(space_reference(options.method).strip())
    else:
        say(json.dumps(space_schema(options.method), indent=2))
    return 0


SCHEMA = Command(
    name="schema",
    summary="print the keys of a space file as JSON Schema or Markdown",
    description="Print the JSON Schema (draft 2020-12) of a space file, or its reference.",
    examples="> search_spaces/schema.json\n--markdown > docs/space.md\n"
    "--method package.module:Class > own.json",
    arguments=_arguments,
    run=_schema,
)
