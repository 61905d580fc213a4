"""Simulated heartbeats, for a first look and for tests without real ECG.

Each beat is a sum of Gaussians, one per wave, the closed form of the dynamical model of
McSharry, Clifford, Tarassenko and Smith (IEEE Trans. Biomed. Eng. 50(3), 2003); patients
differ in shapes, rhythm and noise. The whole recording is filtered and cut like MIT-BIH.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import NORMAL, Beats, FloatArray, IndexArray, Moments, TextArray
from kdsearch.data.ecg import CUTTING, SAMPLES_AFTER, SAMPLES_BEFORE, band_pass
from kdsearch.data.randomness import Purpose, generator
from kdsearch.data.settings import SimulatedSettings
from kdsearch.data.wfdb_files import SAMPLING_RATE_HZ

# Part of the fingerprint: raise it whenever the same settings would give other beats.
VERSION = 1

Float = NDArray[np.float64]

# Table I of the paper: phase (rad), height (a) and width (rad) of P, Q, R, S and T.
PHASE = np.pi * np.array([-1 / 3, -1 / 12, 0, 1 / 12, 1 / 2])
HEIGHT = np.array([1.2, -5.0, 30.0, -7.5, 0.75])
WIDTH = np.array([0.25, 0.1, 0.1, 0.1, 0.4])
P, Q, R, S, T = range(5)

# The paper's waves at 60 beats a minute: seconds from the R peak, seconds, and mV.
CENTRE_S = PHASE / (2 * np.pi)
WIDTH_S = WIDTH / (2 * np.pi)
HEIGHT_MV = HEIGHT * WIDTH**2 / (HEIGHT[R] * WIDTH[R] ** 2)
# The second lead looks at the heart from the front, as V1 does: small R, deep S.
SECOND_LEAD = np.array([0.5, 0.3, 0.35, 3.0, 0.6])

# A beat from the ventricles: two wide waves and a T wave against them.
ECTOPIC_CENTRE_S = np.array([-0.01, 0.07, 0.28])
ECTOPIC_WIDTH_S = np.array([0.028, 0.03, 0.06])
ECTOPIC_HEIGHT_MV = np.array([1.3, -0.5, -0.4])
# A pacemaker's spike just before the wide beat that it causes.
SPIKE_CENTRE_S, SPIKE_WIDTH_S, SPIKE_HEIGHT_MV = -0.07, 0.004, 1.5

# How abnormal beats divide: MIT-BIH's order of size, with more of the rare ones.
SHARES = {"S": 0.3, "V": 0.5, "F": 0.15, "Q": 0.05}

REACH_SAMPLES = 160
PAUSE_S = 4.0
# The ADC step of MIT-BIH. It also hides the last bits in which math libraries differ.
STEPS_PER_MV = 200


@dataclass(frozen=True)
class Waves:
    """The waves of all beats: n beats of W waves in two leads.

    Attributes:
        centre_s: Centre of each wave from its beat's R peak, shape (n, W).
        width_s: Standard deviation of each wave, shape (n, W).
        height_mv: Shape (n, 2, W); 0 where a beat lacks the wave.
    """

    centre_s: Float
    width_s: Float
    height_mv: Float


def simulate(settings: SimulatedSettings, seed: int) -> Beats:
    """Simulate the beats of several patients in two leads, in mV at 360 Hz.

    Args:
        settings: How many patients and beats, and how noisy.
        seed: The same seed gives the same beats on every machine.

    Returns:
        Windows of 320 samples with the R peak at sample 140; ``record`` is ``sim00`` and so on.
    """
    rng = generator(seed, Purpose.SIMULATION)
    patient = np.sort(np.arange(settings.beats) % settings.patients)
    classes = _draw_classes(patient, settings, rng)
    interval_s = _intervals(patient, classes, rng)
    waves = _waves(patient, classes, interval_s, rng)
    # Sample of each beat in one long recording of all patients. A pause keeps each patient's
    # beats out of the next one's windows.
    pause_s = PAUSE_S * np.diff(patient, prepend=-1)
    peak = np.rint(np.cumsum(interval_s + pause_s) * SAMPLING_RATE_HZ).astype(np.int64)
    x = _record(patient, peak, waves, settings.noise_mv, rng)
    last = np.diff(patient, append=patient[-1] + 1) > 0
    after_s = np.where(last, np.nan, np.append(interval_s[1:], np.nan))
    recipe = f"simulated {VERSION}, seed {seed}, {settings.model_dump_json()}"
    return Beats(
        x=x,
        classes=classes,
        record=np.array([f"sim{number:02d}" for number in patient]),
        fingerprint=hashlib.sha256(recipe.encode()).hexdigest(),
        description=f"simulated ECG, {settings.patients} patients, {len(x):,} beats",
        simulated=True,
        cutting=CUTTING,
        moments=Moments(peak / SAMPLING_RATE_HZ, interval_s, after_s),
    )


def _draw_classes(
    patient: IndexArray, settings: SimulatedSettings, rng: np.random.Generator
) -> TextArray:
    """Fixed numbers of each class, unevenly spread over the patients as in life."""
    classes = np.full(len(patient), NORMAL)
    for name, share in SHARES.items():
        inclined = rng.gamma(0.5, size=settings.patients) + 0.02
        free = np.flatnonzero(classes == NORMAL)
        count = max(2, round(share * settings.abnormal * len(patient)))
        chance = inclined[patient[free]]
        chosen = rng.choice(free, size=count, replace=False, p=chance / chance.sum())
        classes[chosen] = name
    return classes


def _intervals(patient: IndexArray, classes: TextArray, rng: np.random.Generator) -> Float:
    """Seconds from the R peak before: heart rate, breathing, slow waves and early beats."""
    n, patients = len(patient), int(patient[-1]) + 1
    mean_s = rng.uniform(0.65, 1.05, patients)[patient]
    breathing = 0.03 * np.sin(2 * np.pi * 0.25 * np.arange(n) * mean_s)
    slow = 0.03 * np.sin(2 * np.pi * 0.1 * np.arange(n) * mean_s)
    irregular = rng.uniform(0.01, 0.08, patients)[patient] * rng.standard_normal(n)
    factor = 1 + breathing + slow + irregular.clip(-0.15, 0.15)
    early = {"S": (0.6, 0.88), "V": (0.55, 0.9), "F": (0.85, 1.0), "Q": (0.9, 1.1)}
    before = np.ones(n)
    for name, (low, high) in early.items():
        before = np.where(classes == name, rng.uniform(low, high, n), before)
    # After an early ventricular beat the next one comes when it would have come anyway.
    after_early = np.roll(classes == "V", 1) & (classes == NORMAL)
    before = np.where(after_early, 2 - np.roll(before, 1), before)
    return np.asarray(mean_s * factor * before)


def _waves(
    patient: IndexArray, classes: TextArray, interval_s: Float, rng: np.random.Generator
) -> Waves:
    """Each beat's own five waves, three ectopic ones and a spike, mixed by its class."""
    own = _own_waves(patient, classes, interval_s, rng)
    ectopic = _ectopic_waves(patient, rng)
    fusion = rng.uniform(0.2, 0.65, len(patient))
    weight = np.select(
        [classes == "V", classes == "Q", classes == "F"], [1.0, 1.0, fusion], default=0.0
    )[:, None, None]
    spike = np.where(classes == "Q", SPIKE_HEIGHT_MV, 0.0)[:, None, None].repeat(2, axis=1)
    n = len(patient)
    return Waves(
        np.hstack([own.centre_s, ectopic.centre_s, np.full((n, 1), SPIKE_CENTRE_S)]),
        np.hstack([own.width_s, ectopic.width_s, np.full((n, 1), SPIKE_WIDTH_S)]),
        np.concatenate(
            [own.height_mv * (1 - weight), ectopic.height_mv * weight, spike], axis=2
        ),
    )


def _own_waves(
    patient: IndexArray, classes: TextArray, interval_s: Float, rng: np.random.Generator
) -> Waves:
    n, patients = len(patient), int(patient[-1]) + 1
    centre, width, height = _patients(patients, rng)
    # P and T keep their phase less than they follow the heart rate (Bazett's square root);
    # the QRS complex does not follow it at all.
    stretch = np.where(np.isin(np.arange(5), (P, T)), np.sqrt(interval_s)[:, None], 1.0)
    centre_s = centre[patient] * stretch + 0.004 * rng.standard_normal((n, 5))
    centre_s[:, R] = 0.0
    width_s = width[patient] * np.exp(0.06 * rng.standard_normal((n, 5)))
    height_mv = height[patient] * (1 + 0.08 * rng.standard_normal((n, 1, 5)))
    _change_p_waves(centre_s, width_s, height_mv, classes == "S", rng)
    return Waves(centre_s, width_s, height_mv)


def _patients(patients: int, rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """Draw centre (s), width (s) and height (mV, two leads) of each patient's waves."""
    shape = (patients, 5)
    centre = CENTRE_S * np.exp(0.1 * rng.standard_normal(shape))
    width = WIDTH_S * np.exp(0.18 * rng.standard_normal(shape))
    first = HEIGHT_MV * np.exp(0.35 * rng.standard_normal(shape))
    first[:, T] *= np.where(rng.random(patients) < 0.15, -1, 1)
    # A bundle branch block makes wide complexes that still count as normal.
    blocked = rng.random(patients) < 0.25
    width[:, Q : S + 1] *= np.where(blocked, 1.7, 1.0)[:, None]
    second = first * SECOND_LEAD * np.exp(0.3 * rng.standard_normal(shape))
    return centre, width, np.stack([first, second], axis=1)


def _change_p_waves(
    centre_s: Float,
    width_s: Float,
    height_mv: Float,
    early: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """An early supraventricular beat: its P wave is gone, upside down or elsewhere."""
    n = len(early)
    factor = rng.choice([0.0, -0.8, 1.0, 1.3], size=n, p=[0.3, 0.2, 0.3, 0.2])
    height_mv[:, :, P] *= np.where(early, factor, 1.0)[:, None]
    centre_s[:, P] += np.where(early, rng.uniform(-0.05, 0.05, n), 0.0)
    # Some are conducted badly, which widens the complex a little.
    aberrant = early & (rng.random(n) < 0.3)
    width_s[:, Q : S + 1] *= np.where(aberrant, 1.35, 1.0)[:, None]


def _ectopic_waves(patient: IndexArray, rng: np.random.Generator) -> Waves:
    """Beats of one ectopic focus per patient, upright or upside down."""
    n, patients = len(patient), int(patient[-1]) + 1
    shape = (patients, 3)
    centre = ECTOPIC_CENTRE_S + 0.01 * rng.standard_normal(shape)
    width = ECTOPIC_WIDTH_S * np.exp(0.15 * rng.standard_normal(shape))
    height = ECTOPIC_HEIGHT_MV * np.exp(0.3 * rng.standard_normal((2, *shape)))
    height *= rng.choice([1, -1], size=(2, patients, 1), p=[0.65, 0.35])
    jitter = np.exp(0.1 * rng.standard_normal((n, 1, 3)))
    return Waves(
        centre[patient] + 0.006 * rng.standard_normal((n, 3)),
        width[patient] * np.exp(0.06 * rng.standard_normal((n, 3))),
        height.transpose(1, 0, 2)[patient] * jitter,
    )


def _record(
    patient: IndexArray,
    peak: IndexArray,
    waves: Waves,
    noise_mv: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Render all beats in one recording, add noise, filter, cut and quantise."""
    length = int(peak[-1] + PAUSE_S * SAMPLING_RATE_HZ)
    signal = _render(peak, waves, length) + _noise(patient, peak, length, noise_mv, rng)
    filtered = band_pass(signal)
    window = peak[:, None] + np.arange(-SAMPLES_BEFORE, SAMPLES_AFTER)
    steps = np.rint(filtered[:, window] * STEPS_PER_MV)
    return np.ascontiguousarray((steps / STEPS_PER_MV).transpose(1, 0, 2), dtype=np.float32)


def _render(peak: IndexArray, waves: Waves, length: int) -> Float:
    """Sum all waves, each over 2 x 160 samples around its centre; shape (2, length)."""
    beat, wave = np.nonzero(waves.height_mv.any(axis=1))
    centre = peak[beat] + waves.centre_s[beat, wave] * SAMPLING_RATE_HZ
    width = waves.width_s[beat, wave] * SAMPLING_RATE_HZ
    sample = np.rint(centre).astype(np.int64)[:, None] + np.arange(
        -REACH_SAMPLES, REACH_SAMPLES
    )
    bell = np.exp(-0.5 * ((sample - centre[:, None]) / width[:, None]) ** 2)
    height = waves.height_mv[beat, :, wave]
    return np.stack(
        [
            np.bincount(sample.ravel(), (bell * height[:, lead, None]).ravel(), length)
            for lead in range(2)
        ]
    )


def _noise(
    patient: IndexArray,
    peak: IndexArray,
    length: int,
    noise_mv: float,
    rng: np.random.Generator,
) -> Float:
    """Muscle noise, worse for some patients and at some moments, and a wandering baseline."""
    level = noise_mv * np.exp(0.5 * rng.standard_normal(int(patient[-1]) + 1))[patient]
    level = level * np.where(rng.random(len(patient)) < 0.04, 4.0, 1.0)
    nearest = np.searchsorted(peak, np.arange(length)).clip(max=len(peak) - 1)
    muscle = level[nearest] * rng.standard_normal((2, length))
    time_s = np.arange(length) / SAMPLING_RATE_HZ
    phase = rng.uniform(0, 2 * np.pi, (2, 1))
    wander = 0.15 * np.sin(2 * np.pi * 0.3 * time_s + phase)
    return np.asarray(muscle + wander)
