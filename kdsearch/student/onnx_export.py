"""Export a student as an ONNX file that maps raw beats to scores."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.data.beats import normalise, pad
from kdsearch.errors import RunError
from kdsearch.extras import needs
from kdsearch.files.atomic import write_bytes
from kdsearch.methods.protocol import Exporting, Reconstructing
from kdsearch.student.student import InputCard, Student

INPUT = "beats"
OUTPUTS = {
    "score": "score: float32, shape (n,), higher is more abnormal",
    "reconstruction": "reconstruction: on the normalised scale, shape of the input",
}
TOLERANCE = 1e-4
TRIED_BEATS = 64


class RawScoring(nn.Module):
    """Normalising, padding and scoring in one graph, as `Student` does them with NumPy."""

    def __init__(self, scoring: nn.Module, card: InputCard) -> None:
        super().__init__()
        self.scoring = scoring
        self.leads, self.length = card.leads, card.length
        missing = card.padded_length - card.length
        self.left, self.right = missing // 2, missing - missing // 2

    def forward(self, beats: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map raw beats (n, leads, length) to scores (n,) and normalised reconstructions.

        Leads of a context, behind the beats' own, are taken as they come. Scores alone where
        the method makes no reconstructions.
        """
        beats, context = beats[:, : self.leads], beats[:, self.leads :]
        low = beats.amin(dim=-1, keepdim=True)
        span = beats.amax(dim=-1, keepdim=True) - low
        flat = span <= 0
        scaled = 2 * (beats - low) / torch.where(flat, torch.ones_like(span), span) - 1
        x = torch.cat([torch.where(flat, torch.zeros_like(scaled), scaled), context], dim=1)
        if self.left or self.right:
            x = functional.pad(x, (self.left, self.right), mode="replicate")
        found: Tensor | tuple[Tensor, Tensor] = self.scoring(x)
        if isinstance(found, Tensor):
            return found
        score, fake = found
        return score, fake[..., self.left : self.left + self.length]


def export(student: Student, path: Path) -> float | None:
    """Write a student as one ONNX file, whole or not at all, after trying it.

    Args:
        student: Its method must be `Exporting`.
        path: Of the file.

    Returns:
        The largest difference between its scores and the student's over random beats; None
        if onnxruntime is not installed, so that it was not compared.

    Raises:
        RunError: The method cannot be exported, packages are missing, or the scores differ.
    """
    content = _content(student)
    difference = _difference(student, content)
    if difference is not None and not difference <= TOLERANCE:
        raise RunError(
            f"{path}: not written: its scores would differ from the student's by "
            f"{difference:.2g}, more than {TOLERANCE:g}"
        )
    write_bytes(path, content)
    return difference


def _content(student: Student) -> bytes:
    if not isinstance(student.method, Exporting):
        raise RunError(
            f"method {student.card.method!r} cannot be exported: it has no scoring_network()"
        )
    with needs("onnx", "the export of a student"):
        import onnx  # noqa: PLC0415
        import onnxscript  # noqa: F401, PLC0415
    card = student.card.input
    network = RawScoring(student.method.scoring_network(student.weights), card).eval()
    example = torch.zeros((2, card.all_leads, card.length))
    with _quiet():
        program: Any = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=_outputs(student),
            dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata(student))
    model.producer_name, model.producer_version = "kdsearch", student.card.kdsearch
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _outputs(student: Student) -> list[str]:
    return list(OUTPUTS) if isinstance(student.method, Reconstructing) else ["score"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about optional packages and internals.

    onnxscript prints some to standard output.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def metadata(student: Student) -> dict[str, str]:
    """Return the metadata of the ONNX file, as texts."""
    card = student.card
    cutting = card.input.cutting
    known = (
        {}
        if cutting is None
        else {
            "sampling_rate_hz": f"{cutting.sampling_rate_hz:g}",
            "band_pass": (
                f"FIR, {cutting.band_hz[0]:g} to {cutting.band_hz[1]:g} Hz, order "
                f"{cutting.filter_order} at {cutting.sampling_rate_hz:g} Hz, forwards and "
                "backwards to the whole recording before beats are cut"
            ),
            "samples_before_r_peak": str(cutting.samples_before),
            "lead_names": ", ".join(
                lead or "not the same everywhere" for lead in cutting.leads
            ),
        }
    )
    return {
        "kdsearch_version": card.kdsearch,
        "method": card.method,
        "student": json.dumps(card.student),
        "input": (
            f"{INPUT}: raw beats, float32, shape (n, {card.input.all_leads}, "
            f"{card.input.length}), any unit; a score is NaN where a sample is"
        ),
        "context": (
            f"the last {card.input.all_leads - card.input.leads} leads, from "
            "kdsearch.data.context.with_context: half of the scaled beat's difference from the "
            "patient's own, then the rhythm"
            if card.input.context == "patient"
            else "none"
        ),
        "output": "; ".join(OUTPUTS[name] for name in _outputs(student)),
        "leads": str(card.input.leads),
        "length": str(card.input.length),
        "normalisation": f"{card.input.normalisation}, in the graph",
        "padding": f"to {card.input.padded_length} by repeating the edges, in the graph",
        **known,
        "threshold": repr(card.threshold),
        "flagged": "score >= threshold",
        "trained_on": card.data.description,
        "simulated": str(card.data.simulated).lower(),
    }


def _difference(student: Student, content: bytes) -> float | None:
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    card = student.card.input
    # Random walks and a flat line; a context is already between -1 and 1.
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(TRIED_BEATS, card.all_leads, card.length)).cumsum(axis=-1)
    walks[0] = 0.5
    walks[:, card.leads :] = np.tanh(walks[:, card.leads :])
    beats = walks.astype(np.float32)
    found = session.run(["score"], {INPUT: beats})[0]
    x = pad(np.concatenate([normalise(beats[:, : card.leads]), beats[:, card.leads :]], axis=1))
    return float(np.abs(found - student.score_prepared(x)).max())
