"""Filters and detectors of an ECG."""

import numpy as np
import pytest
from wfdb_cases import RATE, ecg

from kdsearch.data.ecg import agreement, band_pass, depth, extremes, r_peaks, steep_moments


def test_two_detectors_agree_on_an_ecg_and_not_on_noise():
    lead = band_pass(ecg(np.arange(0.5, 60.0), 60.0, RATE)[None])[0]
    rng = np.random.default_rng(0)
    noise = band_pass(rng.standard_normal((1, 60 * RATE)))[0]
    assert agreement(r_peaks(lead), steep_moments(lead)) == 1
    np.testing.assert_array_equal(steep_moments(-lead), steep_moments(lead))
    assert agreement(r_peaks(noise), steep_moments(noise)) < 0.8
    assert agreement(np.array([], int), steep_moments(lead)) == 0


def test_how_deep_a_lead_goes():
    lead = band_pass(ecg(np.arange(0.5, 60.0), 60.0, RATE)[None])[0]
    moments = steep_moments(lead)
    assert depth(extremes(lead, moments)) == pytest.approx(1 / depth(extremes(-lead, moments)))
    assert depth(extremes(lead, moments)) < 0.9
    assert np.isnan(depth(extremes(lead, moments[:0])))
