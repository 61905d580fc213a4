# PYTHON_ARGCOMPLETE_OK
"""Print the leaderboard of one or several runs; see ``--help``."""

import sys

from kdsearch.cli.main import analyze_command

if __name__ == "__main__":
    sys.exit(analyze_command())
