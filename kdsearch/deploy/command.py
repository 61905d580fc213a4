"""The commands ``score`` and ``export``: parse, call, print."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kdsearch.cli import guarded

SCORE_EXAMPLES = """examples:
  python -m kdsearch score runs/kd mitdb/100             # a WFDB record, annotated or not
  python -m kdsearch score runs/kd mitdb --out found     # all records of a folder
  python -m kdsearch score runs/kd beats.npz --format json
  python -m kdsearch score runs/kd/best/model.pt beats.csv
"""
EXPORT_EXAMPLES = """examples:
  python -m kdsearch export runs/kd --onnx student.onnx
"""
MODEL_HELP = "a run folder, its best/, or the model.pt in it"


def score_command(arguments: Sequence[str] | None = None) -> int:
    """``python -m kdsearch score``: score beats, write a table and a picture."""
    return guarded(lambda: _score(_score_parser().parse_args(arguments)))


def export_command(arguments: Sequence[str] | None = None) -> int:
    """``python -m kdsearch export``: write a student in a format that others run."""
    return guarded(lambda: _export(_export_parser().parse_args(arguments)))


def _score_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kdsearch score",
        description="Score beats by a trained student; flag those at or above its threshold.",
        epilog=SCORE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    add(
        "input",
        type=Path,
        metavar="INPUT",
        help="a WFDB record with or without extension, a folder of records, an .npz with x "
        "(and perhaps y and record), or a .csv with a beat per row",
    )
    add("--out", type=Path, default=Path("scores"), metavar="DIR", help="default: scores")
    add("--format", choices=("csv", "json"), default="csv", help="of the table; default: csv")
    add("--lead", metavar="NAME", help="score this lead of a record, not the one trained on")
    add("--detect", action="store_true", help="find beats by R peaks even if annotated")
    return parser


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kdsearch export",
        description="Write a trained student as an ONNX file that takes raw beats; its "
        "metadata say how they have to be filtered and cut, and the threshold.",
        epilog=EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="to write")
    return parser


def _score(options: argparse.Namespace) -> int:
    from kdsearch.deploy.inputs import Reading, display_name, read_input  # noqa: PLC0415
    from kdsearch.deploy.picture import draw  # noqa: PLC0415
    from kdsearch.deploy.scored import score_sources  # noqa: PLC0415
    from kdsearch.student import load_student  # noqa: PLC0415

    student = load_student(options.model)
    sources = read_input(options.input, student, Reading(options.lead, options.detect))
    scored = score_sources(display_name(options.input), student, sources)
    table = options.out / f"scores.{options.format}"
    scored.write(table, options.format)
    picture = options.out / "flagged.png"
    draw(scored, picture)
    print(scored.summary())
    print(f"{table}\n{picture}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from kdsearch.deploy.onnx_export import TOLERANCE, export  # noqa: PLC0415
    from kdsearch.student import load_student  # noqa: PLC0415

    difference = export(load_student(options.model), options.onnx)
    tried = (
        "not tried, as onnxruntime is not installed"
        if difference is None
        else f"its scores agree with the student's to {max(difference, 1e-9):.1g} "
        f"(allowed: {TOLERANCE:g})"
    )
    print(f"{options.onnx}: {tried}")
    return 0
