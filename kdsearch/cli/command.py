"""What every command has: a parser with examples, and one line for what went wrong."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kdsearch.errors import Interrupted, SearchFailed, StorageFailed, UserError


@dataclass(frozen=True)
class Command:
    """One command, on its own as ``run_search.py`` or below ``python -m kdsearch``.

    Attributes:
        name: What it is called below ``python -m kdsearch``.
        summary: What it does, for the list of commands.
        description: The same in a sentence or two, for its own help.
        examples: The arguments of some calls, a call per line.
        arguments: Adds what it takes to a parser.
        run: Does it and gives the exit status.
    """

    name: str
    summary: str
    description: str
    examples: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self, prog: str) -> argparse.ArgumentParser:
        """The parser of the command on its own."""
        return self._filled(
            argparse.ArgumentParser(
                prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter
            )
        )

    def add_to(self, commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Put the command below another parser."""
        parser = commands.add_parser(
            self.name,
            help=self.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._filled(parser)

    def _filled(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        self.arguments(parser)
        parser.set_defaults(run=self.run)
        parser.description = textwrap.fill(self.description, 80)
        calls = [f"  {parser.prog} {line}".rstrip() for line in self.examples.splitlines()]
        parser.epilog = "\n".join(["examples:", *calls])
        return parser


def completed(action: argparse.Action, completer: Callable[..., Iterable[str]]) -> None:
    """Say what a shell may put for an argument; where nothing is said, it takes files."""
    action.completer = completer  # type: ignore[attr-defined]


def guarded(command: Callable[[], int]) -> int:
    """Answer what the user can mend in one line; a traceback is a bug of ours."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SearchFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(
            f"{interrupted}: stopped; every finished epoch is kept, go on with --resume",
            file=sys.stderr,
        )
        return 128 + interrupted.signum
    except StorageFailed as error:
        print(
            f"error: {error}; set that right and go on with --resume, nothing finished is lost",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2


def say(text: str) -> None:
    """Print to a reader who may have seen enough, as ``head`` has after ten lines."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
