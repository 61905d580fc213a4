# PYTHON_ARGCOMPLETE_OK
"""Print the leaderboard of one or several runs; see ``--help``."""

import sys

from kdsearch.__main__ import begin

if __name__ == "__main__":
    begin()
    from kdsearch.cli.main import analyze_command

    sys.exit(analyze_command())
