# PYTHON_ARGCOMPLETE_OK
"""``python -m kdsearch``: the command line; see ``--help``.

Signals end a command with one line, even while kdsearch is still being imported.
"""

import atexit
import gc
import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run one of all commands."""
    begin()
    from kdsearch.cli.main import main as command  # noqa: PLC0415

    return command()


def begin() -> None:
    """Let this process end soon: in order, and at SIGINT and SIGTERM.

    A signal ends it with one line and the usual status. A search handles both itself. Every
    other command keeps nothing that has to be put in order: files are written whole or not at
    all. In order, Python would first look for garbage in all that was imported.
    """
    atexit.register(gc.freeze)
    for signum in (signal.SIGINT, signal.SIGTERM):
        # Ignored where a shell has started this in the background.
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    os.write(2, f"{signal.Signals(signum).name}: stopped\n".encode())
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
