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
        name: Its name in ``python -m kdsearch NAME``.
        summary: What it does, for the list of commands.
        description: The same in one or two sentences, for its own help.
        examples: Arguments of example calls, one call per line.
        arguments: Adds its arguments to a parser.
        run: Runs it and returns the exit status.
    """

    name: str
    summary: str
    description: str
    examples: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self, prog: str) -> argparse.ArgumentParser:
        """Return the parser of a script with this command only."""
        return self._filled(
            argparse.ArgumentParser(
                prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter
            )
        )

    def add_to(self, commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Add the command to the parser of all commands."""
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
    """Set the completions of an argument; without them, shells complete file names."""
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
    """Print; a reader such as ``head`` may close the pipe early.

    Control codes are removed, because names and reasons may come from another person's run
    folder.

    Args:
        clean: The text has no control codes but our own colours.
    """
    try:
        print(text if clean else printable(text), flush=True)
    except BrokenPipeError:
        # Python flushes again at exit, which would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
