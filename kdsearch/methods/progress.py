"""Reconstructions of a few validation beats while a student trains, for the report.

A stack whose method reconstructs beats may keep them in what `Stack.weights` returns, under
`PROGRESS`, by epoch. They are no part of the student: the end of a search takes them out.
"""

from __future__ import annotations

import numpy as np

from kdsearch.data.beats import NORMAL, IndexArray, LabelledBeats

PROGRESS = "progress"
# Number of beats whose reconstructions are kept.
BEATS = 4


def shown_rows(validation: LabelledBeats) -> IndexArray:
    """Return the first validation beat of each class, normal beats first, four at most."""
    labels, first = np.unique(validation.classes, return_index=True)
    rows = [row for _, row in sorted(zip(labels != NORMAL, first, strict=True))]
    return np.asarray(rows[:BEATS], dtype=np.int64)


def is_shown(epoch: int) -> bool:
    """Whether reconstructions after this epoch are kept: 1, 2, 4, 8 and so on."""
    return epoch & (epoch - 1) == 0
