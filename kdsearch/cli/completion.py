"""The command ``completion``: print the script for shell completion of arguments."""

from __future__ import annotations

import argparse

from argcomplete.shell_integration import shellcode

from kdsearch.cli.command import Command, say

INSTALLED = ("kdsearch",)
SHELLS = ("bash", "zsh", "fish")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def _completion(options: argparse.Namespace) -> int:
    say(shellcode(INSTALLED, shell=options.shell))
    return 0


COMPLETION = Command(
    name="completion",
    summary="print a completion script for bash, zsh or fish",
    description="Print a script with which a shell completes the arguments of kdsearch; "
    "'eval' it in the shell's start file. For the scripts, as in 'python run_search.py', run "
    "activate-global-python-argcomplete once.",
    examples="bash\nfish > ~/.config/fish/completions/kdsearch.fish",
    arguments=_arguments,
    run=_completion,
)
