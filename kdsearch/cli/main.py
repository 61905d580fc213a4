"""Entry points: ``python -m kdsearch`` with all commands, and the two scripts."""

from __future__ import annotations

import argparse
import codecs
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import argcomplete

from kdsearch import __version__
from kdsearch.cli.analyze import ANALYZE
from kdsearch.cli.command import guarded
from kdsearch.cli.completion import COMPLETION
from kdsearch.cli.export import EXPORT
from kdsearch.cli.schema import SCHEMA
from kdsearch.cli.score import SCORE
from kdsearch.cli.search import SEARCH
from kdsearch.cli.spaces import SPACES
from kdsearch.cli.stop import STOP

COMMANDS = (SEARCH, STOP, ANALYZE, SCORE, EXPORT, SPACES, SCHEMA, COMPLETION)
STAND_INS = {"µ": "u", "±": "+-", "·": "|", "…": "...", "→": "->"}
EXAMPLES = """examples:
  {prog} search --space kd
  {prog} analyze runs/kd
  {prog} score runs/kd mitdb/100 --out scores
  {prog} export runs/kd --onnx student.onnx

'{prog} COMMAND --help' explains a command. From Python:

  student = kdsearch.load_student("runs/kd")
  student.flag(beats)    # raw beats of shape (n, leads, length)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m kdsearch`` or ``kdsearch``, which have all commands."""
    # By the name that the user called: the installed command's, or else the module's.
    installed = Path(sys.argv[0]).name == "kdsearch"
    return _call(parser("kdsearch" if installed else "python -m kdsearch"), arguments)


def search_command(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_search.py``: start or resume a search."""
    return _call(SEARCH.parser("python run_search.py"), arguments)


def analyze_command(arguments: Sequence[str] | None = None) -> int:
    """Run ``analyze.py``: print the leaderboard of one or several runs."""
    return _call(ANALYZE.parser("python analyze.py"), arguments)


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    root = argparse.ArgumentParser(
        prog=prog,
        description="Search, judge and use knowledge-distilled anomaly detectors.",
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"kdsearch {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add_to(commands)
    return root


def _call(commands: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    # Exits if a shell asks for completions; otherwise does nothing.
    argcomplete.autocomplete(commands)
    for stream in (sys.stdout, sys.stderr):
        # A terminal in Latin-1 or ASCII shows most of what is printed.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="kdsearch")
    return guarded(lambda: _perform(commands, arguments))


def _perform(commands: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = commands.parse_args(arguments)
    if "run" not in options:
        commands.print_help()
        return 0
    return int(options.run(options))


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace the characters that a terminal's encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(STAND_INS.get(character, "?") for character in lost), error.end


codecs.register_error("kdsearch", _as_ascii)
