"""The best student as a model of MLflow, flavour pyfunc.

MLflow keeps this file with the model and runs it where the model is loaded; no pickle is made.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature, set_model
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray

from kdsearch import __version__
from kdsearch.files.bucket import Place
from kdsearch.student.student import Student, load_student

ARTIFACT, EXAMPLES = "student", 2


class StudentModel(PythonModel):
    """Scores raw beats, shape (n, leads, length): a row of ``score`` and ``flagged`` each."""

    student: Student

    def load_context(self, context: Any) -> None:
        """Read the student from the model's own files."""
        self.student = load_student(context.artifacts[ARTIFACT])

    # MLflow would take type hints for a description of single samples.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Score beats."""
        return _scored(self.student, model_input)


def log_student(best: Place, *, uri: str, run_id: str, name: str) -> None:
    """Log the student of ``best/`` in a run of MLflow, and register it under a name."""
    student = load_student(best)
    card = student.card.input
    rng = np.random.default_rng(0)
    example = rng.normal(size=(EXAMPLES, card.leads, card.length)).astype(np.float32)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with (
            # It reports its progress there, over that of the search.
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
            tempfile.TemporaryDirectory() as folder,
            mlflow.start_run(run_id=run_id, log_system_metrics=False),
        ):
            for file in best.iterdir():
                (Path(folder) / file.name).write_bytes(file.read_bytes())
            mlflow.pyfunc.log_model(
                name=ARTIFACT,
                python_model=__file__,
                artifacts={ARTIFACT: folder},
                signature=infer_signature(example, _scored(student, example)),
                input_example=example,
                registered_model_name=name,
                pip_requirements=[f"kdsearch=={__version__}"],
            )
    finally:
        mlflow.set_tracking_uri(before)


def _scored(student: Student, beats: NDArray[Any]) -> pd.DataFrame:
    scores = student.score(beats)
    flagged = student.called(scores)
    return pd.DataFrame({"score": scores.astype(np.float64), "flagged": flagged})


set_model(StudentModel())
