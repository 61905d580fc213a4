"""BeatGAN's augmentation: beats with some samples stretched and as many skipped."""

from __future__ import annotations

import numpy as np

from kdsearch.data.beats import R_PEAK, FloatArray, IndexArray

# How many samples are changed on each side of the R peak, of a beat of 320.
TICK_SHARE = 7 / 320
# Beats at a time, so that the random numbers of a large set need little memory.
CHUNK = 8192


def time_warp(x: FloatArray, n_aug: int, rng: np.random.Generator) -> FloatArray:
    """Add time-warped copies of each beat, as BeatGAN does (Zhou et al., IJCAI 2019).

    Of 320 samples, 7 of the first 140 and 7 of the rest are slowed down (the sample is
    followed by its mean with the next one) and 7 others of each side are skipped, so that
    the length stays. Other lengths change in proportion. All leads are warped alike.

    Args:
        x: Shape (n, leads, length).
        n_aug: Copies per beat.
        rng: Chooses the samples.

    Returns:
        The originals, then the copies round by round, shape (n * (1 + n_aug), leads, length);
        ``x`` itself where ``n_aug`` is 0.
    """
    if n_aug == 0:
        return x
    warped = [
        _warp_at_random(x[start : start + CHUNK], rng)
        for _ in range(n_aug)
        for start in range(0, len(x), CHUNK)
    ]
    return np.concatenate([x, *warped])


def _warp_at_random(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    length = x.shape[-1]
    ticks = max(1, round(TICK_SHARE * length))
    middle = round(R_PEAK * length)
    # The last sample has no successor to be averaged with and always stays as it is.
    chosen = []
    for low, high in ((0, middle), (middle, length - 1)):
        order = np.argsort(rng.random((len(x), high - low), dtype=np.float32), axis=1)
        chosen.append(order[:, : 2 * ticks].astype(np.int64) + low)
    slowed = np.concatenate([side[:, :ticks] for side in chosen], axis=1)
    skipped = np.concatenate([side[:, ticks:] for side in chosen], axis=1)
    return warp(x, slowed, skipped)


def warp(x: FloatArray, slowed: IndexArray, skipped: IndexArray) -> FloatArray:
    """Slow beats down at some samples and skip as many others.

    Args:
        x: Shape (n, leads, length).
        slowed: Samples that are followed by their mean with the next, shape (n, ticks);
            never the last one.
        skipped: Samples that are left out, none of them slowed, shape (n, ticks).

    Returns:
        Shape (n, leads, length).
    """
    n, _, length = x.shape
    times = np.ones((n, length), dtype=np.int64)
    np.put_along_axis(times, slowed, 2, axis=1)
    np.put_along_axis(times, skipped, 0, axis=1)
    every_sample = np.broadcast_to(np.arange(length), (n, length))
    source = np.repeat(every_sample.ravel(), times.ravel()).reshape(n, 1, length)
    second = np.zeros_like(source, dtype=np.bool_)
    second[..., 1:] = source[..., 1:] == source[..., :-1]
    here = np.take_along_axis(x, source, axis=2)
    after = np.take_along_axis(x, source + second, axis=2)
    return np.where(second, (here + after) / 2, here).astype(np.float32)
