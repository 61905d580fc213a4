"""WFDB records of a beat a second, as other people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

RATE = 360
SECONDS = 20
# R peaks once a second, half a second off the start; the last annotation has no whole window.
PEAKS = np.arange(RATE // 2, SECONDS * RATE - 1, RATE)
SYMBOLS = ["N", "L", "A", "V", "F", "/", "+", "N"] + ["N"] * (len(PEAKS) - 8)

Signal = NDArray[np.float64]


def ecg(peaks_s: NDArray[np.float64], seconds: float, rate: float) -> Signal:
    """A bell for each R peak and a lower one for its T wave, shape (samples,)."""
    after = np.arange(round(seconds * rate)) / rate - peaks_s[:, None]
    bells = np.exp(-0.5 * (after / 0.014) ** 2)
    return np.asarray((bells + 0.2 * np.exp(-0.5 * ((after - 0.25) / 0.056) ** 2)).sum(axis=0))


def write_record(
    folder: Path,
    name: str = "r1",
    leads: Sequence[str] = ("V5", "MLII"),
    *,
    rate: float = RATE,
    symbols: Sequence[str] | None = SYMBOLS,
    damage: Callable[[Signal], Signal] = lambda signal: signal,
    annotator: str = "atr",
) -> Path:
    """Write a record, annotated if there are symbols; MLII is twice as high as other leads."""
    folder.mkdir(exist_ok=True, parents=True)
    mlii = ecg(PEAKS / RATE, SECONDS, rate)
    signal = np.stack([mlii if lead == "MLII" else 0.5 * mlii for lead in leads], axis=1)
    wfdb.wrsamp(
        name,
        fs=rate,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        p_signal=damage(signal),
        fmt=["16"] * len(leads),
        adc_gain=[2000.0] * len(leads),
        baseline=[0] * len(leads),
        write_dir=str(folder),
    )
    if symbols is not None:
        at = np.rint(PEAKS / RATE * rate).astype(np.int64)[: len(symbols)]
        wfdb.wrann(name, annotator, at, list(symbols), write_dir=str(folder))
    return folder / name
