# PYTHON_ARGCOMPLETE_OK
"""``python -m kdsearch``: the command line; see ``--help``.

Signals end a command with one line, even while kdsearch is still being imported.
"""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run one of all commands."""
    stop_on_signals()
    from kdsearch.cli.main import main as command  # noqa: PLC0415

    return command()


def stop_on_signals() -> None:
    """End this process with one line and the usual status on SIGINT and SIGTERM.

    A search handles both itself. Every other command keeps nothing that has to be put in
    order: files are written whole or not at all.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        # Ignored where a shell has started this in the background.
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    os.write(2, f"{signal.Signals(signum).name}: stopped\n".encode())
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
