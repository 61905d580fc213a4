# PYTHON_ARGCOMPLETE_OK
"""Search for the settings with which a student learns best; see ``--help``."""

import sys

from kdsearch.__main__ import begin

if __name__ == "__main__":
    begin()
    from kdsearch.cli.main import search_command

    sys.exit(search_command())
