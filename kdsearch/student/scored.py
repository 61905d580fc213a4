"""Scored beats, as a table and as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import BoolArray, FloatArray, IndexArray, Moments, TextArray
from kdsearch.errors import DataError
from kdsearch.files.atomic import write_json, write_text
from kdsearch.methods.protocol import Reconstructing
from kdsearch.student.source import Source
from kdsearch.student.student import Student
from kdsearch.texts import in_unit

Form = Literal["csv", "json"]


@dataclass(frozen=True)
class Scored:
    """Scores of one input, beat by beat.

    Attributes:
        name: What was scored, for titles.
        student: Who scored.
        x: Raw beats, shape (n, leads, length).
        record: Shape (n,), empty where unknown.
        sample: Shape (n,), or None where unknown.
        time_s: Shape (n,), or None where unknown.
        moments: When they came; None where unknown.
        classes: Shape (n,), empty where unknown; None where unknown of all.
        scores: Shape (n,).
        flagged: Shape (n,).
        notes: Notes for the user on the input and its reading.
    """

    name: str
    student: Student
    x: NDArray[Any]
    record: TextArray
    sample: IndexArray | None
    time_s: NDArray[np.float64] | None
    moments: Moments | None
    classes: TextArray | None
    scores: NDArray[np.float32]
    flagged: BoolArray
    notes: list[str]

    def table(self) -> dict[str, list[Any]]:
        """The columns of a table with a row per beat, in the order of the input."""
        nothing = [None] * len(self.scores)
        return {
            "index": list(range(len(self.scores))),
            "record": self.record.tolist(),
            "sample": nothing if self.sample is None else self.sample.tolist(),
            "time_s": nothing if self.time_s is None else self.time_s.round(4).tolist(),
            "class": nothing if self.classes is None else self.classes.tolist(),
            "score": self.scores.astype(np.float64).tolist(),
            "flagged": self.flagged.tolist(),
        }

    def write(self, path: Path, form: Form) -> None:
        """Write the table whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        table = self.table()
        rows = zip(*table.values(), strict=True)
        if form == "json":
            write_json(path, [dict(zip(table, row, strict=True)) for row in rows])
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(rows)
        write_text(path, text.getvalue())

    def summary(self) -> str:
        """Return a summary in a few lines."""
        n, flagged = len(self.scores), int(self.flagged.sum())
        lines = [
            f"{self.name}: {flagged:,} of {n:,} beats flagged ({flagged / n:.2%}), "
            f"threshold {self.student.threshold:.4g}, "
            f"scores {self.scores.min():.4g} to {self.scores.max():.4g}"
        ]
        for label in [] if self.classes is None else np.unique(self.classes):
            members = self.classes == label
            found = int(self.flagged[members].sum())
            lines.append(f"  class {label or '?'}: {found:,} of {int(members.sum()):,} flagged")
        lines += [n if n.startswith("warning: ") else f"note: {n}" for n in self.notes]
        return in_unit("\n".join(lines), self.student.card.data.unit)

    def expected(self, chosen: IndexArray) -> FloatArray | None:
        """Return reconstructions of these beats; None if the method has none."""
        if not isinstance(self.student.method, Reconstructing):
            return None
        if self.student.card.input.context == "none" or self.moments is None:
            return self.student.reconstruct(self.x[chosen])
        # A beat beside its patient's own needs all of that patient's.
        rows = np.flatnonzero(np.isin(self.record, self.record[chosen]))
        made = self.student.reconstruct(self.x[rows], self.moments[rows], self.record[rows])
        return made[np.searchsorted(rows, chosen)]

    def caption(self, index: int) -> str:
        """Return the caption of a beat: its number, known class and score."""
        parts = [self.record[index] or f"beat {index}"]
        if self.time_s is not None:
            parts.append(str(timedelta(seconds=round(float(self.time_s[index])))))
        if self.classes is not None and self.classes[index]:
            parts.append(f"class {self.classes[index]}")
        return f"{' · '.join(map(str, parts))} · {self.scores[index]:.3g}"

    def time_axis(self) -> tuple[NDArray[np.float64], str]:
        """Return the positions of a beat's samples, shape (length,), and their unit."""
        card = self.student.card.input
        samples = np.arange(card.length, dtype=np.float64)
        if card.cutting is None:
            return samples, "samples"
        from_peak = samples - card.cutting.samples_before
        return 1000 * from_peak / card.cutting.sampling_rate_hz, "ms from the R peak"


def score_sources(name: str, student: Student, sources: Sequence[Source]) -> Scored:
    """Score records and join the results.

    Raises:
        DataError: Beats that the student cannot score.
    """
    try:
        scores = np.concatenate(
            [student.score(source.x, source.moments, source.record) for source in sources]
        )
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    notes = [note for source in sources for note in source.notes]
    if student.card.data.simulated:
        notes.append(
            "this student was trained on simulated beats; its scores of real beats mean nothing"
        )
    return Scored(
        name=name,
        student=student,
        x=np.concatenate([source.x for source in sources]),
        record=np.concatenate([source.record for source in sources]),
        sample=_joined([source.sample for source in sources]),
        time_s=_joined([source.time_s for source in sources]),
        moments=_moments(sources),
        classes=_classes(sources),
        scores=scores,
        flagged=student.called(scores),
        notes=notes,
    )


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Concatenate all parts; None if one is unknown."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _moments(sources: Sequence[Source]) -> Moments | None:
    known = [source.moments for source in sources if source.moments is not None]
    return Moments.join(known) if len(known) == len(sources) else None


def _classes(sources: Sequence[Source]) -> TextArray | None:
    if all(source.classes is None for source in sources):
        return None
    return np.concatenate(
        [np.full(len(s.x), "") if s.classes is None else s.classes for s in sources]
    )
