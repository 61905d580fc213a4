"""Read everything that a report needs from a run folder; no code in the folder is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.analysis.run import Run
from kdsearch.data.beats import NORMAL
from kdsearch.errors import RunError
from kdsearch.evaluation.finalists import Evaluation, read_evaluation
from kdsearch.methods.protocol import EpochReport
from kdsearch.metrics.ranking import rank
from kdsearch.runs.study import importances

NOT_YET = "Not available yet: this is measured at the end of the search."


@dataclass(frozen=True)
class Curve:
    """Scores of the test beats by one network, and where it raises an alarm.

    Attributes:
        who: ``student``, ``control`` or ``teacher``.
        name: For the legend.
    """

    who: str
    name: str
    scores: NDArray[np.float32]
    threshold: float


@dataclass(frozen=True)
class Contents:
    """The content of a run folder that the sections show.

    Attributes:
        histories: Epochs by trial.
        evaluation: None before the search's end, or where it cannot be read.
        evaluation_missing: The reason if there is no evaluation.
        controls: The control's scores, a `Curve` per seed.
        importance: Importance by searched setting, or the reason for its absence.
    """

    run: Run
    histories: Mapping[int, list[EpochReport]]
    evaluation: Evaluation | None
    evaluation_missing: str
    controls: tuple[Curve, ...]
    importance: dict[str, float] | str

    def curves(self) -> list[Curve]:
        """Best student, control and teacher on the test beats; none before the end."""
        found = self.evaluation
        if found is None:
            return []
        student, teacher = found.student, found.teacher
        return [
            Curve("student", f"student (trial {found.trial})", student.test, student.threshold),
            *self.controls,
            Curve("teacher", "teacher", teacher.test, teacher.threshold),
        ]


def gather(run: Run) -> Contents:
    """Read what the report shows of a run, in any state of its search."""
    evaluation, missing = _evaluation(run)
    importance: dict[str, float] | str
    try:
        importance = importances(run.records, run.space)
    except RunError as error:
        importance = str(error)
    return Contents(
        run=run,
        histories={r.number: run.folder.trial(r.number).history() for r in run.records},
        evaluation=evaluation,
        evaluation_missing=missing,
        controls=() if evaluation is None else tuple(_controls(run, evaluation)),
        importance=importance,
    )


def _evaluation(run: Run) -> tuple[Evaluation | None, str]:
    try:
        evaluation = read_evaluation(run.folder)
    except RunError as error:
        return None, str(error)
    if evaluation is None and run.metrics:
        return None, "The scores and example beats of this run are missing."
    return evaluation, "" if evaluation else NOT_YET


def _controls(run: Run, evaluation: Evaluation) -> list[Curve]:
    """The student without distillation, with each seed that it was trained with."""
    controls = [
        c
        for c in run.verdict.get("configurations", ())
        # A name is used as a folder; it must not lead out of the run folder.
        if c.get("role") == "control" and Path(c["name"]).name == c["name"]
    ]
    # The chosen configuration's control, or else the first one.
    own = [c for c in controls if c["name"] == f"control-of-{run.verdict.get('chosen')}"]
    control: dict[str, Any] = next(iter([*own, *controls]), {})
    found = []
    for seed in control.get("seeds", ()):
        try:
            scores = run.folder.confirmation(str(control["name"]), int(seed)).scores()
            ranking = rank(scores["validation"], evaluation.validation_classes != NORMAL)
            threshold = run.threshold_rule.threshold(ranking)
        except (RunError, ValueError):
            # The confirmation is missing or belongs to other beats.
            continue
        if scores["test"].shape == evaluation.test_classes.shape:
            name = "control (no distillation)"
            found.append(Curve("control", name, scores["test"], threshold))
    return found
