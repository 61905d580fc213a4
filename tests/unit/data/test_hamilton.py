"""R peaks are those of biosppy, whatever the parts in which a lead is given."""

from pathlib import Path

import numpy as np
import pytest
from biosppy.signals.ecg import correct_rpeaks, hamilton_segmenter
from wfdb_cases import ecg

from kdsearch.data.ecg import band_pass, r_peaks
from kdsearch.data.hamilton import HamiltonDetector
from kdsearch.data.wfdb_files import read_header


def of_biosppy(lead: np.ndarray) -> np.ndarray:
    found = hamilton_segmenter(lead, 360)["rpeaks"]
    return np.asarray(correct_rpeaks(lead, found, 360, 0.05)["rpeaks"])


def in_parts(lead: np.ndarray, seconds: int, margin_s: int) -> np.ndarray:
    detector, size, margin = HamiltonDetector(), 360 * seconds, 360 * margin_s
    found = []
    for start in range(0, len(lead), size):
        stop = min(start + size, len(lead))
        offset = max(0, start - margin)
        found.append(detector.advance(lead[offset : stop + margin], offset, start, stop))
    return np.unique(np.concatenate(found))


def noisy(seconds: float) -> np.ndarray:
    """A minute or so of beats at odd intervals and of odd heights, in noise."""
    rng = np.random.default_rng(3)
    peaks_s = np.cumsum(rng.uniform(0.3, 1.9, size=int(seconds)))
    lead = ecg(peaks_s[peaks_s < seconds], seconds, 360)
    lead *= np.repeat(rng.uniform(0.3, 3, size=int(seconds) + 1), 360)[: len(lead)]
    return band_pass((lead + rng.normal(scale=0.1, size=len(lead)))[None])[0]


@pytest.mark.parametrize("seconds", [3.5, 9.2, 60, 100])
def test_r_peaks_are_those_of_biosppy(seconds: float):
    for lead in (noisy(seconds), -noisy(seconds)):
        expected = of_biosppy(lead)
        assert len(expected) > seconds / 3
        np.testing.assert_array_equal(r_peaks(lead), expected)
        np.testing.assert_array_equal(in_parts(lead, 13, 8), expected)


# In 207 and 208 a detector that starts in the middle finds others for minutes.
@pytest.mark.parametrize("name", ["207", "208", "232"])
def test_r_peaks_of_recordings(mitdb: Path, name: str):
    header = read_header(mitdb / name)
    lead = band_pass(np.stack(next(header.blocks(2, 360 * 500))))[0]
    expected = of_biosppy(lead)
    np.testing.assert_array_equal(r_peaks(lead), expected)
    np.testing.assert_array_equal(in_parts(lead, 45, 12), expected)


@pytest.mark.parametrize("lead", [np.zeros(1000), np.ones(300), np.arange(3600.0)])
def test_where_there_are_no_beats(lead: np.ndarray):
    assert r_peaks(lead).tolist() == []
