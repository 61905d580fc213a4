"""Raw beats to score, and options for reading recordings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import IndexArray, Moments, TextArray
from kdsearch.data.pieces import MARGIN_S, PIECE_S


@dataclass(frozen=True)
class Source:
    """One record or a part of it, or one file of beats.

    Attributes:
        x: Raw beats, shape (n, leads, length).
        record: Name of the record of each beat, shape (n,); empty texts where unknown.
        sample: Position of each beat in its record, at the record's own rate, shape (n,); None
            where beats come without one.
        time_s: The same in seconds, shape (n,).
        moments: The same and the intervals around each beat; None where that is not known.
        classes: The known class of each beat, shape (n,); None if unknown.
        continued: The record's first beats were in the part before. The five minutes that a
            student adapts to are in the first part.
        notes: Notes for the user on the origin of the beats, a sentence each.
    """

    x: NDArray[Any]
    record: TextArray
    sample: IndexArray | None = None
    time_s: NDArray[np.float64] | None = None
    moments: Moments | None = None
    classes: TextArray | None = None
    continued: bool = False
    notes: list[str] = field(default_factory=list)

    def without_beats(self) -> Source:
        """Return what is known of the beats, without their samples."""
        return replace(self, x=self.x[:0].copy())


@dataclass(frozen=True)
class Reading:
    """How recordings are read.

    Attributes:
        lead: Name of the lead to score, in place of the one trained on; None for that one.
        detect: Find beats by their R peaks even where they are annotated.
        rate_hz: Samples a second of a table of samples; None for other inputs, and for a table
            that has times.
        piece_s: Of a recording, read at a time.
        margin_s: Of the signal on both sides of a piece, for the filter and the detector.
    """

    lead: str | None = None
    detect: bool = False
    rate_hz: float | None = None
    piece_s: float = PIECE_S
    margin_s: float = MARGIN_S
