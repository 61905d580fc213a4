"""The time warp, on beats small enough to check by hand."""

import numpy as np
import pytest

from kdsearch.data.augment import time_warp, warp


def test_warp_by_hand():
    x = np.array([[[0, 10, 20, 30, 40, 50]], [[5, 4, 3, 2, 1, 0]]], dtype=np.float32)
    slowed, skipped = np.array([[1], [4]]), np.array([[4], [0]])
    expected = [[[0, 10, 15, 20, 30, 50]], [[4, 3, 2, 1, 0.5, 0]]]
    np.testing.assert_array_equal(warp(x, slowed, skipped), expected)


def test_neighbouring_samples_may_all_be_slowed():
    x = np.array([[[0, 10, 20, 30, 40, 50]]], dtype=np.float32)
    warped = warp(x, np.array([[0, 1]]), np.array([[2, 3]]))
    np.testing.assert_array_equal(warped, [[[0, 5, 10, 15, 40, 50]]])


@pytest.mark.parametrize("length", [16, 17, 64, 320, 1000])
def test_so_many_samples_are_slowed_and_skipped_on_each_side(length: int):
    ramp = np.tile(np.arange(length, dtype=np.float32), (50, 2, 1))
    copies = time_warp(ramp, 1, np.random.default_rng(0))[50:]
    ticks = max(1, round(length * 7 / 320))
    middle = round(length * 140 / 320)
    for copy in copies:
        np.testing.assert_array_equal(copy[0], copy[1])
        halves = copy[0][copy[0] % 1 == 0.5]
        skipped = np.setdiff1d(np.arange(length), copy[0])
        for found in (halves, skipped):
            assert (found < middle).sum() == ticks
            assert (found >= middle).sum() == ticks
        assert copy[0, -1] == length - 1
        assert (np.diff(copy[0]) > 0).all()


def test_originals_come_first_then_copies_round_by_round():
    x = np.arange(3, dtype=np.float32)[:, None, None] + np.zeros((3, 1, 320), dtype=np.float32)
    augmented = time_warp(x, 2, np.random.default_rng(0))
    assert augmented.dtype == np.float32
    assert augmented[:, 0, 0].tolist() == [0, 1, 2] * 3


def test_copies_differ_and_seeds_repeat():
    x = np.random.default_rng(0).standard_normal((2, 1, 320)).astype(np.float32)
    first = time_warp(x, 2, np.random.default_rng(1))
    np.testing.assert_array_equal(first, time_warp(x, 2, np.random.default_rng(1)))
    assert not np.array_equal(first[2:4], first[4:])
    assert not np.array_equal(first, time_warp(x, 2, np.random.default_rng(2)))


def test_many_beats_are_warped_in_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kdsearch.data.augment.CHUNK", 2)
    x = np.tile(np.arange(32, dtype=np.float32), (5, 1, 1))
    assert time_warp(x, 3, np.random.default_rng(0)).shape == (20, 1, 32)


def test_no_copies_no_work():
    x = np.zeros((2, 1, 32), dtype=np.float32)
    assert time_warp(x, 0, np.random.default_rng(0)) is x
