# PYTHON_ARGCOMPLETE_OK
"""Search for the settings with which a student learns best; see ``--help``."""

import sys

from kdsearch.__main__ import stop_on_signals

if __name__ == "__main__":
    stop_on_signals()
    from kdsearch.cli.main import search_command

    sys.exit(search_command())
