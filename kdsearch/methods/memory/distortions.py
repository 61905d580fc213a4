"""Distorted normal beats, used as synthetic anomalies.

A student needs training examples that resemble abnormal beats, but training may use no abnormal
beat. Distorted normal beats replace them, as in outlier exposure (Hendrycks et al., ICLR 2019)
and CutPaste (Li et al., CVPR 2021), of which `_splice` is the version for time series. The
others imitate ectopic beats: early, on the preceding T wave; with a wide, inverted or
differently scaled QRS complex; without P wave. Some distortions are small. The memory computes
how abnormal each one is; none is labelled abnormal in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kdsearch.data.beats import R_PEAK, FloatArray, normalise
from kdsearch.data.context import signal_leads

# Lengths below are given in samples of a beat of 320.
SAMPLES = 320
# Number of beats distorted at once, which limits the memory.
CHUNK = 8192
# Share of the beats that are distorted twice, and of those distorted in part.
TWICE, PART = 0.3, 0.5
# Share of the beats with a distorted rhythm, and range of the change of the logarithm of the
# interval before; that of the interval after changes by the opposite.
DISTURBED_RHYTHM, EARLIER = 0.5, (-0.7, 0.3)

Rng = np.random.Generator
Distortion = Callable[[FloatArray, FloatArray, Rng], FloatArray]


def distort(
    x: FloatArray,
    rng: Rng,
    distortions: Sequence[Distortion] | None = None,
    *,
    context: bool = False,
) -> FloatArray:
    """Distort each beat once, and scale it to [-1, 1] again.

    Args:
        x: Normalised beats, shape (n, leads, length).
        rng: Selects distortions and their sizes.
        distortions: Those to select from; default: all.
        context: Whether the beats have leads of a context. The patient's usual beat is kept,
            and the rhythm of half of the beats is distorted as well.

    Returns:
        Same shape, float32; row i comes from ``x[i]``.
    """
    chosen = DISTORTIONS if distortions is None else distortions
    if context:
        signal = signal_leads(x.shape[1], context=True)
        own = x[:, :signal] - 2 * x[:, signal:-1]
        beats = distort(x[:, :signal], rng, chosen)
        rhythm = _disturb_rhythm(x[:, -1:], rng)
        return np.concatenate([beats, (beats - own) / 2, rhythm], axis=1)
    parts = [
        _chunk(x[start : start + CHUNK], x, rng, chosen) for start in range(0, len(x), CHUNK)
    ]
    return np.concatenate(parts)


def _chunk(
    x: FloatArray, others: FloatArray, rng: Rng, distortions: Sequence[Distortion]
) -> FloatArray:
    changed = _once(x, others, rng, distortions)
    again = rng.random(len(x)) < TWICE
    changed[again] = _once(changed[again], others, rng, distortions)
    share = np.where(rng.random((len(x), 1, 1)) < PART, rng.random((len(x), 1, 1)), 1)
    return normalise(x + share.astype(np.float32) * (changed - x))


def _once(
    x: FloatArray, others: FloatArray, rng: Rng, distortions: Sequence[Distortion]
) -> FloatArray:
    changed = np.empty_like(x)
    kind = rng.integers(0, len(distortions), len(x))
    for number, distortion in enumerate(distortions):
        rows = np.flatnonzero(kind == number)
        if len(rows):
            partners = others[rng.integers(0, len(others), len(rows))]
            changed[rows] = normalise(distortion(x[rows], partners, rng))
    return changed


def _splice(x: FloatArray, other: FloatArray, rng: Rng) -> FloatArray:
    """Replace a part by another beat: from a random time to the end, or between two times."""
    time, draw = _time(x), _drawer(x, rng)
    start, softness = draw(20, 300), draw(2, 20)
    end = np.where(rng.random((len(x), 1, 1)) < 0.5, start + draw(20, 150), np.inf)
    theirs = _step(time - start, softness) * (1 - _step(time - end, softness))
    return x * (1 - theirs) + other * theirs


def _mix(x: FloatArray, other: FloatArray, rng: Rng) -> FloatArray:
    """Mix two beats (Zhang et al., mixup, ICLR 2018)."""
    share = _drawer(x, rng)(0.2, 0.8)
    mixed: FloatArray = share * x + (1 - share) * other
    return mixed


def _warp(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Warp the time axis randomly."""
    return _at(x, _time(x) + _drawer(x, rng)(3, 30) * _wave(x, rng, 80, leads=1))


def _shift(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Shift in time."""
    return _at(x, _time(x) + _drawer(x, rng)(-60, 60))


def _stretch(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Stretch or compress the QRS complex, or more around it."""
    draw, from_r = _drawer(x, rng), _time(x) - R_PEAK * SAMPLES
    factor = np.exp(draw(-0.9, 0.9))
    near = np.exp(-((from_r / draw(15, 150)) ** 2))
    return _at(x, R_PEAK * SAMPLES + from_r * (1 + (factor - 1) * near))


def _disturb(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Add noise like that of muscles or of a wandering baseline."""
    fast = rng.random((len(x), 1, 1)) < 0.5
    wave = np.where(fast, _wave(x, rng, 8), _wave(x, rng, 40))
    return x + _drawer(x, rng)(0.05, 0.5) * wave


def _bump(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Add two waves."""
    draw = _drawer(x, rng)
    for _again in range(2):
        width = np.exp(draw(np.log(3), np.log(40)))
        x = x + draw(-1, 1) * np.exp(-(((_time(x) - draw(0, SAMPLES)) / width) ** 2))
    return x


def _early(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Overlap with the end of the previous beat, or with the beginning of the next."""
    draw, time, level = _drawer(x, rng), _time(x), np.median(x, axis=-1, keepdims=True)
    interval = draw(120, 260)
    before = np.where(time + interval < SAMPLES - 1, _at(x, time + interval) - level, 0)
    after = np.where(time - interval > 0, _at(x, time - interval) - level, 0)
    # Move the P wave of the early beat closer to its R peak.
    from_r = time - R_PEAK * SAMPLES
    hurried = _at(x, R_PEAK * SAMPLES + from_r * np.where(from_r < 0, draw(0.5, 1), 1))
    next_early = rng.random((len(x), 1, 1)) < 0.3
    return np.where(next_early, x + after, hurried + draw(0.5, 1) * before)


def _omit(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Remove a wave, or reduce it."""
    draw, level = _drawer(x, rng), np.median(x, axis=-1, keepdims=True)
    inside = _step(draw(10, 60) - np.abs(_time(x) - draw(0, SAMPLES)), 4)
    return x + draw(0.3, 1) * inside * (level - x)


def _invert(x: FloatArray, other: FloatArray, rng: Rng) -> FloatArray:
    """Invert the beat, or a part of it."""
    return np.where(rng.random((len(x), 1, 1)) < 0.4, -x, _splice(x, -x, rng))


def _rescale(x: FloatArray, _: FloatArray, rng: Rng) -> FloatArray:
    """Scale the heights of the waves."""
    level = np.median(x, axis=-1, keepdims=True)
    heights: FloatArray = np.exp(_drawer(x, rng)(0.2, 0.9) * _wave(x, rng, 50))
    return level + (x - level) * heights


def _disturb_rhythm(rhythm: FloatArray, rng: Rng) -> FloatArray:
    """Change the intervals before and after the beat; shape (n, 1, length)."""
    draw = _drawer(rhythm, rng)
    before = _time(rhythm) < R_PEAK * SAMPLES
    by = np.where(before, draw(*EARLIER), draw(-EARLIER[1], -EARLIER[0]))
    changed = np.where(rng.random((len(rhythm), 1, 1)) < DISTURBED_RHYTHM, by, 0)
    disturbed: FloatArray = (rhythm + changed).clip(-1, 1).astype(np.float32)
    return disturbed


DISTORTIONS: tuple[Distortion, ...] = (
    _splice,
    _mix,
    _warp,
    _shift,
    _stretch,
    _disturb,
    _bump,
    _early,
    _omit,
    _invert,
    _rescale,
)


def _time(x: FloatArray) -> FloatArray:
    """Return the time of each sample, in samples of a beat of 320, shape (1, 1, length)."""
    length = x.shape[-1]
    time: FloatArray = np.arange(length, dtype=np.float32) * np.float32(SAMPLES / length)
    return time[None, None]


def _drawer(x: FloatArray, rng: Rng) -> Callable[[float, float], FloatArray]:
    """Return a function that draws a uniform number per beat, shape (n, 1, 1)."""

    def draw(low: float, high: float) -> FloatArray:
        return rng.uniform(low, high, (len(x), 1, 1)).astype(np.float32)

    return draw


def _step(distance: FloatArray, softness: FloatArray | float) -> FloatArray:
    """Smooth step from 0 (negative distances) to 1 (positive ones)."""
    step: FloatArray = (1 + np.tanh(distance / (2 * softness))) / 2
    return step


def _wave(x: FloatArray, rng: Rng, period: float, leads: int | None = None) -> FloatArray:
    """Draw random curves, std about 1, with a knot every ``period`` samples of 320."""
    leads = x.shape[1] if leads is None else leads
    knots = rng.normal(size=(len(x), leads, int(SAMPLES / period) + 3)).astype(np.float32)
    places = np.linspace(0, knots.shape[-1] - 2, x.shape[-1], dtype=np.float32)
    return _between(knots, np.broadcast_to(places, (*knots.shape[:2], x.shape[-1])))


def _at(x: FloatArray, time: FloatArray) -> FloatArray:
    """Sample beats at other times, equal for all leads; edges are repeated outside."""
    places = time * np.float32(x.shape[-1] / SAMPLES)
    return _between(x, np.broadcast_to(places, x.shape))


def _between(values: FloatArray, places: FloatArray) -> FloatArray:
    """Linear interpolation along the last axis."""
    left = np.clip(places, 0, values.shape[-1] - 1)
    index = np.minimum(left.astype(np.int64), values.shape[-1] - 2)
    share = (left - index).astype(np.float32)
    lower = np.take_along_axis(values, index, axis=-1)
    upper = np.take_along_axis(values, index + 1, axis=-1)
    values_there: FloatArray = lower * (1 - share) + upper * share
    return values_there
