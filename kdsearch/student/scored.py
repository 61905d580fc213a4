"""Scored beats, as a table and as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import BoolArray, FloatArray, IndexArray, TextArray
from kdsearch.data.context import Reference
from kdsearch.errors import DataError
from kdsearch.files.atomic import write_text
from kdsearch.methods.protocol import Reconstructing
from kdsearch.student.source import Source
from kdsearch.student.student import Student
from kdsearch.texts import in_unit

Form = Literal["csv", "json"]
COLUMNS = ("index", "record", "sample", "time_s", "class", "score", "flagged")
# Of the beats themselves only those with the highest scores are kept, to be shown.
SHOWN = 12
# Of a table, as Python's own numbers at a time.
ROWS = 10_000


@dataclass(frozen=True)
class Highest:
    """The beats with the highest scores, highest first; of equal ones the first.

    Attributes:
        row: Their numbers, shape (k,).
        score: Shape (k,).
        x: Raw beats, shape (k, leads, length).
        prepared: As `Student.prepared` returns them.
    """

    row: IndexArray
    score: NDArray[np.float32]
    x: NDArray[Any]
    prepared: FloatArray

    @staticmethod
    def of(parts: Sequence[Highest]) -> Highest:
        """Return the highest of all parts, which are in the order of their beats."""
        score = np.concatenate([part.score for part in parts])
        chosen = np.argsort(-score, kind="stable")[:SHOWN]
        return Highest(
            np.concatenate([part.row for part in parts])[chosen],
            score[chosen],
            np.concatenate([part.x for part in parts])[chosen],
            np.concatenate([part.prepared for part in parts])[chosen],
        )


@dataclass(frozen=True)
class Scored:
    """Scores of one input, beat by beat.

    Attributes:
        name: What was scored, for titles.
        student: Who scored.
        record: Shape (n,), empty where unknown.
        sample: Shape (n,), or None where unknown.
        time_s: Shape (n,), or None where unknown.
        classes: Shape (n,), empty where unknown; None where unknown of all.
        scores: Shape (n,).
        flagged: Shape (n,).
        highest: The beats that can be shown.
        notes: Notes for the user on the input and its reading.
    """

    name: str
    student: Student
    record: TextArray
    sample: IndexArray | None
    time_s: NDArray[np.float64] | None
    classes: TextArray | None
    scores: NDArray[np.float32]
    flagged: BoolArray
    highest: Highest
    notes: list[str]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of a table of ``COLUMNS``, one per beat, in the order of the input."""
        for start in range(0, len(self.scores), ROWS):
            of = slice(start, start + ROWS)
            scores = self.scores[of].astype(np.float64).tolist()
            nothing = [None] * len(scores)
            yield from zip(
                range(start, start + len(scores)),
                self.record[of].tolist(),
                nothing if self.sample is None else self.sample[of].tolist(),
                nothing if self.time_s is None else self.time_s[of].round(4).tolist(),
                nothing if self.classes is None else self.classes[of].tolist(),
                scores,
                self.flagged[of].tolist(),
                strict=True,
            )

    def write(self, path: Path, form: Form) -> None:
        """Write the table whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        text = io.StringIO()
        if form == "json":
            between = "[\n"
            for row in self.rows():
                text.write(between + json.dumps(dict(zip(COLUMNS, row, strict=True))))
                between = ",\n"
            text.write("\n]\n")
        else:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(self.rows())
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

    def expected(self, shown: int) -> FloatArray | None:
        """Return reconstructions of the highest beats; None if the method has none."""
        if not isinstance(self.student.method, Reconstructing):
            return None
        return self.student.reconstruct_prepared(self.highest.prepared[:shown])

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


def score_sources(name: str, student: Student, sources: Iterable[Source]) -> Scored:
    """Score an input part by part and join the results.

    Raises:
        DataError: Beats that the student cannot score.
    """
    scored: list[Source] = []
    scores: list[NDArray[np.float32]] = []
    highest: list[Highest] = []
    own: Mapping[str, Reference] | None = None
    beats = 0
    for source in sources:
        try:
            if not source.continued:
                own = student.references(source.x, source.moments, source.record)
            prepared = student.prepared(source.x, source.moments, source.record, own)
            scores.append(student.score_prepared(prepared))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        rows = np.arange(beats, beats + len(source.x))
        new = Highest.of([Highest(rows, scores[-1], source.x, prepared)])
        highest = [Highest.of([*highest, new])]
        beats += len(source.x)
        scored.append(source.without_beats())
    joined = np.concatenate(scores)
    classes = None
    if any(source.classes is not None for source in scored):
        classes = np.concatenate(
            [np.full(len(s.record), "") if s.classes is None else s.classes for s in scored]
        )
    notes = [note for source in scored for note in source.notes]
    if student.card.data.simulated:
        notes.append(
            "this student was trained on simulated beats; its scores of real beats mean nothing"
        )
    return Scored(
        name=name,
        student=student,
        record=np.concatenate([source.record for source in scored]),
        sample=_joined([source.sample for source in scored]),
        time_s=_joined([source.time_s for source in scored]),
        classes=classes,
        scores=joined,
        flagged=student.called(joined),
        highest=highest[0],
        notes=notes,
    )


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Concatenate all parts; None if one is unknown."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
