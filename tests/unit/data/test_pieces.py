"""A recording in pieces has the samples of the whole recording."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_cases import RATE, SECONDS, write_record

from kdsearch.data.ecg import band_pass
from kdsearch.data.pieces import pieces
from kdsearch.data.wfdb_files import read_header, read_signal
from kdsearch.errors import DataError


def several_per_frame(folder: Path) -> Path:
    """A record whose second lead has two samples in each frame."""
    rng = np.random.default_rng(0)
    wfdb.wrsamp(
        "r1",
        fs=180,
        units=["mV"] * 2,
        sig_name=["MLII", "V5"],
        e_p_signal=[rng.normal(size=180 * 20), rng.normal(size=360 * 20)],
        samps_per_frame=[1, 2],
        fmt=["16"] * 2,
        adc_gain=[2000.0] * 2,
        baseline=[0] * 2,
        write_dir=str(folder),
    )
    return folder / "r1"


def two_segments(folder: Path) -> Path:
    """A record of two records of ten seconds."""
    half = SECONDS * RATE // 2
    for part in (0, 1):
        write_record(
            folder,
            f"r1_{part}",
            symbols=None,
            damage=lambda signal, start=part * half: signal[start : start + half],
        )
    (folder / "r1.hea").write_text(f"r1/2 2 360 {2 * half}\nr1_0 {half}\nr1_1 {half}\n")
    return folder / "r1"


def noisy(rate: float) -> Callable[[Path], Path]:
    """A record at this rate."""

    def noise(signal: np.ndarray) -> np.ndarray:
        return signal + np.random.default_rng(1).normal(scale=0.1, size=signal.shape)

    return lambda folder: write_record(folder, rate=rate, damage=noise)


@pytest.mark.parametrize(
    "write", [noisy(RATE), noisy(250), noisy(333.33), several_per_frame, two_segments]
)
@pytest.mark.parametrize(("piece_s", "margin_s"), [(3, 1), (1, 2.5), (7.77, 1.1), (60, 1)])
def test_pieces_are_the_whole_recording(
    tmp_path: Path, write: Callable[[Path], Path], piece_s: float, margin_s: float
):
    header = read_header(write(tmp_path))
    whole = band_pass(read_signal(header, 2)[0])
    end = 0
    for piece in pieces(header, 2, piece_s, margin_s):
        assert piece.start == end
        end = piece.stop
        # A filter of 108 samples, forwards and backwards, and what resampling takes.
        inner = slice(max(0, piece.start - 180), min(piece.stop + 180, whole.shape[1]))
        own = piece.signal[:, inner.start - piece.offset : inner.stop - piece.offset]
        np.testing.assert_allclose(own, whole[:, inner], atol=1e-12)
    assert end == whole.shape[1]


def test_a_missing_value_is_named_by_its_place_in_the_recording(tmp_path: Path):
    def gap(signal: np.ndarray) -> np.ndarray:
        signal[4321, 1] = np.nan
        return signal

    header = read_header(write_record(tmp_path, damage=gap))
    with pytest.raises(DataError, match=r"no value \(NaN\) in lead MLII, sample 4,321"):
        list(pieces(header, 2, 3, 1))
