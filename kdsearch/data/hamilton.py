"""Find R peaks in a lead that is given as a whole or in parts.

P. S. Hamilton, Open Source ECG Analysis Software Documentation, E.P. Limited, 2002, with the
choices of biosppy 2.2 (``hamilton_segmenter`` and ``correct_rpeaks``), whose R peaks BeatGAN's
authors used: on each lead of MIT-BIH both find the same. biosppy takes a whole lead, at a cost
that is quadratic in its length.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import IndexArray
from kdsearch.data.wfdb_files import SAMPLING_RATE_HZ

# Heights and intervals from which thresholds are calculated; at the start, one of each second.
REMEMBERED = 8
# Of two peaks that are nearer than this only the larger one counts.
REFRACTORY = math.ceil(0.2 * SAMPLING_RATE_HZ)
# A peak nearer to the last beat than this may be its T wave.
T_WAVE = math.ceil(0.36 * SAMPLING_RATE_HZ)
SLOPE_REACH = math.ceil(0.045 * SAMPLING_RATE_HZ)
SMOOTHED = int(0.08 * SAMPLING_RATE_HZ)
# Above noise, as a part of the distance from noise to beats.
THRESHOLD = 0.475
# Of the usual height, beyond which a peak is an artefact.
HIGHEST = 3.0
ADJACENT = 0.05 * SAMPLING_RATE_HZ
TOLERANCE = int(0.05 * SAMPLING_RATE_HZ)
# How far the highest peak is above the next one, as a part of the same for the lowest ones,
# for an R peak that points up.
UPRIGHT = 0.85

Lead = NDArray[np.float64]


class HamiltonDetector:
    """Finds the R peaks of a filtered lead at 360 Hz, part by part.

    The thresholds follow the lead, and some leads leave them at one of two levels for minutes:
    a second detector that starts in the middle may find other beats. So one detector sees all
    parts in order.
    """

    def __init__(self) -> None:
        """Start at the beginning of a recording."""
        self._beats: deque[float] = deque()
        self._noise: deque[float] = deque()
        self._intervals: deque[float] = deque()
        self._last: int | None = None
        self._last_slope = 0.0
        self._count = 0

    def advance(self, lead: Lead, offset: int, start: int, stop: int) -> IndexArray:
        """Return the R peaks of the beats of one part, sorted, shape (n,).

        Args:
            lead: The part and some seconds on both sides, shape (samples,); the first part has
                eight seconds or is all of the recording.
            offset: Sample of the recording at which ``lead`` starts.
            start: First sample of the part, in the recording.
            stop: Sample after its last.

        Returns:
            Samples of the recording. A peak may be up to a quarter of a second outside of the
            part, and a neighbour of another part's.
        """
        if len(lead) < SAMPLING_RATE_HZ:
            return np.zeros(0, dtype=np.int64)
        energy = _energy(lead)
        if not self._beats:
            self._start(energy)
        peaks = _alone(energy)
        peaks = peaks[(peaks + offset >= start) & (peaks + offset < stop)]
        beats = [f for f in peaks.tolist() if self._is_beat(f, energy, lead, offset)]
        found = {_r_peak(lead, beat) for beat in beats}
        return np.array(sorted(at for at in found if at is not None), dtype=np.int64) + offset

    def _start(self, energy: Lead) -> None:
        """Take the highest peak of each of the first seconds for a beat."""
        seconds = min(REMEMBERED, (len(energy) + 1) // SAMPLING_RATE_HZ)
        first = (
            energy[SAMPLING_RATE_HZ * i : SAMPLING_RATE_HZ * (i + 1)] for i in range(seconds)
        )
        heights = [float(part[_extrema(part, -1)].max(initial=0)) for part in first]
        self._beats = deque(heights, maxlen=seconds)
        self._noise = deque([0.0] * seconds, maxlen=seconds)
        self._intervals = deque([float(SAMPLING_RATE_HZ)] * seconds, maxlen=seconds)

    def _is_beat(self, at: int, energy: Lead, lead: Lead, offset: int) -> bool:
        height, usual, noise = float(energy[at]), median(self._beats), median(self._noise)
        threshold = noise + THRESHOLD * (usual - noise)
        first, last = max(0, at - SLOPE_REACH), min(at + SLOPE_REACH, len(lead) - 1)
        rise = np.diff(lead[first:last])
        elapsed = math.inf if self._last is None else at + offset - self._last
        if height > threshold:
            rising = np.count_nonzero(rise > 0)
            slow = elapsed < T_WAVE and rise.max() < 0.5 * self._last_slope
            if rising in (0, len(rise)) or slow or not height < HIGHEST * usual:
                return False
        elif self._count < 2 or elapsed < 1.5 * median(self._intervals) or elapsed <= T_WAVE:
            self._noise.append(height)
            return False
        elif height <= 0.5 * threshold:
            return False
        # Also a lower peak where a beat is overdue.
        if self._last is not None:
            self._intervals.append(elapsed)
        self._beats.append(height)
        self._last, self._last_slope = at + offset, float(rise.max())
        self._count += 1
        return True


def _energy(lead: Lead) -> Lead:
    """Smoothed steepness of a lead at 3 to 25 Hz, shape (samples - 1,)."""
    from scipy.signal import butter, filtfilt  # noqa: PLC0415
    from scipy.signal.windows import hamming  # noqa: PLC0415

    band = lead
    for kind, edge_hz in (("lowpass", 25.0), ("highpass", 3.0)):
        band = filtfilt(*butter(4, 2.0 * edge_hz / SAMPLING_RATE_HZ, btype=kind), band)
    steep = np.abs(np.diff(band) * SAMPLING_RATE_HZ)
    window = hamming(SMOOTHED)
    mirrored = np.concatenate(
        [np.full(SMOOTHED, steep[0]), steep, np.full(SMOOTHED, steep[-1])]
    )
    smooth = np.convolve(window / window.sum(), mirrored, mode="same")
    return np.asarray(smooth[SMOOTHED:-SMOOTHED])


def _alone(energy: Lead) -> IndexArray:
    """Peaks without a larger one nearby, shape (n,)."""
    from scipy.ndimage import maximum_filter1d  # noqa: PLC0415

    peaks = _extrema(energy, -1)
    heights = np.zeros_like(energy)
    heights[peaks] = energy[peaks]
    largest = maximum_filter1d(heights, 2 * REFRACTORY - 1, mode="constant")
    return np.asarray(peaks[heights[peaks] >= largest[peaks]])


def _extrema(signal: Lead, curvature: int) -> IndexArray:
    """Maxima (curvature -1) or minima (1), shape (n,); a flat top has two."""
    turns = np.diff(np.sign(np.diff(signal)))
    return np.flatnonzero(curvature * turns > 0) + 1


def _r_peak(lead: Lead, beat: int) -> int | None:
    """The R peak near a beat."""
    first = max(0, beat - REFRACTORY)
    stretch = lead[first : beat + REFRACTORY]
    highs, lows = _two(stretch, -1), _two(stretch, 1)
    if len(highs) == len(lows) == 2:
        up, down = (abs(pair[0][0] - pair[1][0]) for pair in (highs, lows))
        chosen = highs if up > UPRIGHT * down else lows
    elif len(highs) < 2 and len(lows) < 2:
        if not highs or not lows:
            return None
        chosen = max(highs, lows, key=lambda pair: pair[0][1])
    else:
        chosen = highs if len(highs) < 2 else lows
    if not chosen:
        return None
    # The highest sample nearby.
    low = chosen[0][1] + first - TOLERANCE
    high = low + 2 * TOLERANCE
    return low + int(np.argmax(lead[low:high])) if low >= 0 and high <= len(lead) else None


def _two(stretch: Lead, curvature: int) -> list[tuple[float, int]]:
    """The most extreme value, with its place, and the next one farther away from it."""
    at = np.concatenate([_extrema(stretch, curvature), np.flatnonzero(np.diff(stretch) == 0)])
    ordered = sorted(zip(stretch[at].tolist(), at.tolist(), strict=True), reverse=curvature < 0)
    others = [value for value in ordered if abs(value[1] - ordered[0][1]) > ADJACENT]
    return [*ordered[:1], *others[:1]]
