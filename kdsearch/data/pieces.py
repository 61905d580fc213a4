"""Read a long recording piece by piece, each filtered as the whole recording would be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.ecg import band_pass
from kdsearch.data.wfdb_files import Header, resample

PIECE_S = 600.0
# On both sides of a piece: a window and its filter reach half a second; the filters of the
# detector of R peaks and the other detector's idea of the usual slope some seconds.
MARGIN_S = 30.0


@dataclass(frozen=True)
class Piece:
    """A part of a recording, filtered.

    Attributes:
        signal: Leads at 360 Hz, with margins on both sides, shape (leads, samples).
        offset: Sample of the recording at which ``signal`` starts.
        start: First sample of the part.
        stop: Sample after its last one, where the next part starts.
    """

    signal: NDArray[np.float64]
    offset: int
    start: int
    stop: int

    def owns(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which samples of the recording are in the part, shape (n,)."""
        return np.asarray((position >= self.start) & (position < self.stop))


def pieces(header: Header, leads: int, piece_s: float, margin_s: float) -> Iterator[Piece]:
    """Read the first leads of a recording at 360 Hz, 3-45 Hz.

    Raises:
        DataError: The signal cannot be read, is truncated or has missing values.
    """
    # Pieces start at frames that are samples at 360 Hz, too: resampled, they have the samples
    # of the whole recording.
    step = header.ratio.denominator
    size, margin = (
        max(1, round(seconds * header.rate_hz / step)) * step for seconds in (piece_s, margin_s)
    )
    counts = header.frame[:leads]
    blocks = header.blocks(leads, size)
    current = next(blocks)
    before = [column[:0] for column in current]
    done = 0
    for following in chain(blocks, [None]):
        after = [column[:0] for column in current] if following is None else following
        joined = [
            np.concatenate([b, c, a[: margin * count]])
            for b, c, a, count in zip(before, current, after, counts, strict=True)
        ]
        frames_before = len(before[0]) // counts[0]
        at_360 = [
            resample(column, header.ratio / count)
            for column, count in zip(joined, counts, strict=True)
        ]
        samples = min(map(len, at_360))
        offset = int((done - frames_before) * header.ratio)
        last = following is None
        yield Piece(
            signal=band_pass(np.stack([lead[:samples] for lead in at_360])),
            offset=offset,
            start=int(done * header.ratio),
            stop=offset + samples if last else int((done + size) * header.ratio),
        )
        if following is None:
            return
        before = [
            np.concatenate([b, c])[-margin * count :]
            for b, c, count in zip(before, current, counts, strict=True)
        ]
        done += size
        current = following
