"""Base of all commands: a parser with examples, and one-line error messages."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kdsearch.errors import Interrupted, SearchFailed, StorageFailed, UserError
from kdsearch.texts import printable, redact


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
    """Run a command; print what the user can fix as one line and return the exit status."""
    try:
        return command()
    except UserError as error:
        return _complain(f"error: {error}", 2)
    except SearchFailed as error:
        return _complain(f"error: {error}", 1)
    except Interrupted as interrupted:
        return _complain(
            f"{interrupted}: stopped; finished epochs are saved, rerun with --resume",
            128 + interrupted.signum,
        )
    except StorageFailed as error:
        return _complain(
            f"error: {error}; fix this and rerun with --resume; finished trials are saved", 1
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"error: {where}{error.strerror or error}", 2)


def _complain(text: str, status: int) -> int:
    line = " ".join(printable(redact(text)).split("\n"))
    print(line, file=sys.stderr, flush=True)
    return status


def say(text: str, *, clean: bool = False) -> None:
    """Print to a reader who may stop reading, as ``head`` does after ten lines.

    What a terminal cannot show is replaced. Control codes are removed: names and reasons may
    come from another person's run folder.

    Args:
        clean: Without any but our own control codes already, those of colours.
    """
    try:
        print(text if clean else printable(text), flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
