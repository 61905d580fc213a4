# PYTHON_ARGCOMPLETE_OK
"""``python -m kdsearch``: one command for all; see ``--help``."""

import sys

from kdsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
