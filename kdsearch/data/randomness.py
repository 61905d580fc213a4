"""Separate random generators by purpose: changing one choice does not affect the others."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are drawn for; part of the seed, so the values must never change."""

    SPLIT = 0
    TRAIN_LIMIT = 1
    VALIDATION_LIMIT = 2
    AUGMENTATION = 3
    SIMULATION = 4


def generator(seed: int, purpose: Purpose, *more: int) -> np.random.Generator:
    """Random numbers of one purpose, the same on every machine."""
    return np.random.Generator(np.random.PCG64([seed, int(purpose), *more]))
