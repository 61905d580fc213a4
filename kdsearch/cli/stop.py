"""The command ``stop``: pause a search, or stop one of its trials, from outside."""

from __future__ import annotations

import argparse

from kdsearch.cli.command import Command, say
from kdsearch.files.bucket import parse_path


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=parse_path, metavar="RUN", help="a run folder or its URL")
    add("trial", type=int, nargs="?", metavar="TRIAL", help="number of a trial to stop")


def _stop(options: argparse.Namespace) -> int:
    from kdsearch.runs.folder import RunFolder  # noqa: PLC0415
    from kdsearch.runs.stop_requests import StopRequests  # noqa: PLC0415

    requests = StopRequests(RunFolder.existing(options.folder))
    if options.trial is None:
        requests.pause_search()
        say(f"{options.folder}: the search pauses; continue it with --resume")
    else:
        requests.stop_trial(options.trial)
        say(f"{options.folder}: trial {options.trial} stops after its current epoch")
    return 0


STOP = Command(
    name="stop",
    summary="pause a search, or stop one of its trials",
    description="Pause a running search, which --resume continues, or stop one of its trials "
    "for good. It needs only the run folder, so it works from any machine.",
    examples="runs/kd       # pause the search\nruns/kd 7     # stop trial 7",
    arguments=_arguments,
    run=_stop,
)
