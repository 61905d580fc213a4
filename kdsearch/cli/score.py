"""The command ``score``: score beats, write a table and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.cli.command import Command, say
from kdsearch.errors import ConfigError, speaking_of
from kdsearch.extras import needs
from kdsearch.files.bucket import parse_path

EXAMPLES = """\
runs/kd mitdb/100             # a WFDB record, annotated or not
runs/kd mitdb --out found     # all records of a folder
runs/kd beats.npz --format json
runs/kd beats.npz --threshold sensitivity=0.95
runs/kd/best beats.csv
runs/kd signal.csv --rate 250 --lead II
"""
THRESHOLD_HELP = (
    "another threshold: a score, or f1, sensitivity=0.95 or specificity=0.99 on the search's "
    "validation beats"
)
MODEL_HELP = "a run folder, its best/, or the model.safetensors in it"


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=parse_path, metavar="MODEL", help=MODEL_HELP)
    add(
        "input",
        type=Path,
        metavar="INPUT",
        help="a WFDB record with or without extension, a folder of records, an .edf, an .npz "
        "with x (and perhaps y and record), or a .csv with a beat or a sample per row",
    )
    add("--out", type=Path, default=Path("scores"), metavar="DIR", help="default: scores")
    add("--format", choices=("csv", "json"), default="csv", help="of the table; default: csv")
    add("--threshold", metavar="RULE", help=THRESHOLD_HELP)
    add(
        "--lead",
        metavar="NAME",
        help="score this lead of a record instead of the lead used in training",
    )
    add(
        "--rate",
        type=float,
        metavar="HZ",
        help="the .csv has a sample per row and a lead per column, so many rows a second; not "
        "needed with a column 'time' in seconds",
    )
    add(
        "--detect",
        action="store_true",
        help="detect beats by R peaks, also in an annotated record",
    )


def _score(options: argparse.Namespace) -> int:
    from kdsearch.student.inputs import display_name, read_input  # noqa: PLC0415
    from kdsearch.student.picture import draw  # noqa: PLC0415
    from kdsearch.student.scored import score_sources  # noqa: PLC0415
    from kdsearch.student.source import Reading  # noqa: PLC0415
    from kdsearch.student.student import load_student  # noqa: PLC0415

    student = load_student(options.model)
    if options.threshold is not None:
        student = student.at(options.threshold)
    reading = Reading(options.lead, options.detect, options.rate)
    with speaking_of(student.card.data.unit):
        sources = read_input(options.input, student, reading)
        scored = score_sources(display_name(options.input), student, sources)
    table = options.out / f"scores.{options.format}"
    scored.write(table, options.format)
    say(f"{scored.summary()}\n{table}")
    picture = options.out / "flagged.png"
    try:
        with needs("plots", f"{picture} is not drawn"):
            draw(scored, picture)
    except ConfigError as missing:
        say(f"note: {missing}")
    else:
        say(str(picture))
    return 0


SCORE = Command(
    name="score",
    summary="score a recording or beats by the best student of a run",
    description="Score beats by a trained student; flag those at or above its threshold.",
    examples=EXAMPLES,
    arguments=_arguments,
    run=_score,
)
