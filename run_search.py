# PYTHON_ARGCOMPLETE_OK
"""Search for the settings with which a student learns best; see ``--help``."""

import sys

from kdsearch.cli.main import search_command

if __name__ == "__main__":
    sys.exit(search_command())
