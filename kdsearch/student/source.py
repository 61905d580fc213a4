"""Raw beats to score, and options for reading recordings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import IndexArray, Moments, TextArray


@dataclass(frozen=True)
class Source:
    """One record, or one file of beats.

    Attributes:
        x: Raw beats, shape (n, leads, length).
        record: Name of the record of each beat, shape (n,); empty texts where unknown.
        sample: Position of each beat in its record, at the record's own rate, shape (n,); None
            where beats come without one.
        time_s: The same in seconds, shape (n,).
        moments: The same and the intervals around each beat; None where that is not known.
        classes: The known class of each beat, shape (n,); None if unknown.
        notes: Notes for the user on the origin of the beats, a sentence each.
    """

    x: NDArray[Any]
    record: TextArray
    sample: IndexArray | None = None
    time_s: NDArray[np.float64] | None = None
    moments: Moments | None = None
    classes: TextArray | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How recordings are read.

    Attributes:
        lead: Name of the lead to score, in place of the one trained on; None for that one.
        detect: Find beats by their R peaks even where they are annotated.
    """

    lead: str | None = None
    detect: bool = False
