"""The command ``export``: write a student in a format for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.cli.command import Command, say
from kdsearch.cli.score import MODEL_HELP, THRESHOLD_HELP
from kdsearch.files.bucket import parse_path


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=parse_path, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="to write")
    parser.add_argument("--threshold", metavar="RULE", help=THRESHOLD_HELP)


def _export(options: argparse.Namespace) -> int:
    from kdsearch.student.onnx_export import TOLERANCE, export  # noqa: PLC0415
    from kdsearch.student.student import load_student  # noqa: PLC0415

    student = load_student(options.model)
    if options.threshold is not None:
        student = student.at(options.threshold)
    difference = export(student, options.onnx)
    tried = (
        "not tested, because onnxruntime is not installed"
        if difference is None
        else f"its scores agree with the student's to {max(difference, 1e-9):.1g} "
        f"(allowed: {TOLERANCE:g})"
    )
    say(f"{options.onnx}: {tried}")
    return 0


EXPORT = Command(
    name="export",
    summary="write the best student of a run as an ONNX file",
    description="Write a trained student as an ONNX file that takes raw beats; its metadata "
    "contain the filter, the window and the threshold.",
    examples="runs/kd --onnx student.onnx",
    arguments=_arguments,
    run=_export,
)
