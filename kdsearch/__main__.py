"""``python -m kdsearch``: one command for all; see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from kdsearch.cli import analyze_command, search_command
from kdsearch.deploy.command import export_command, score_command

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "search": (search_command, "search the settings of a student, as run_search.py"),
    "analyze": (analyze_command, "the leaderboard of one or several runs, as analyze.py"),
    "score": (score_command, "score a recording or beats by the best student of a run"),
    "export": (export_command, "write the best student of a run as an ONNX file"),
}
HELP = """usage: python -m kdsearch COMMAND ...

Search, judge and use knowledge-distilled anomaly detectors.

commands:
{commands}

examples:
  python -m kdsearch search --space search_spaces/kd.yaml
  python -m kdsearch analyze runs/kd
  python -m kdsearch score runs/kd mitdb/100 --out scores
  python -m kdsearch export runs/kd --onnx student.onnx

'python -m kdsearch COMMAND --help' explains a command. From Python:

  student = kdsearch.load_student("runs/kd")
  student.flag(beats)    # raw beats of shape (n, leads, length)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments to the command that the first of them names."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    command, *rest = given or ["--help"]
    if command in ("-h", "--help"):
        lines = [f"  {name:<9}{text}" for name, (_, text) in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: unknown command {command!r} (known: {known})", file=sys.stderr)
        return 2
    return COMMANDS[command][0](rest)


if __name__ == "__main__":
    sys.exit(main())
