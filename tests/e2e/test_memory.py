"""A long search does not grow."""

from __future__ import annotations

import psutil
from workplace import Workplace

MIB = 2**20


def test_memory_does_not_grow_with_the_number_of_trials(place: Workplace) -> None:
    """100 trials of two epochs: the driver is as large near the end as after 30."""
    space = place.space.read_text()
    for old, new in (
        ("epochs: 5", "epochs: 2"),
        ("train_limit: 128", "train_limit: 64\n  validation_limit: 40"),
        ("num_samples: 6", "num_samples: 100, keep_weights: 3"),
    ):
        assert old in space
        space = space.replace(old, new)
    place.space.write_text(space)
    process = place.start("--quiet")
    sizes = {}
    for trials in (30, 95):
        place.wait_for(lambda n=trials: _started(place) >= n)  # type: ignore[misc]
        sizes[trials] = psutil.Process(process.pid).memory_info().rss / MIB
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    assert sizes[95] < 1.1 * sizes[30], sizes
    assert len(list(place.run.glob("trials/*/best.pt"))) == 3


def _started(place: Workplace) -> int:
    trials = place.run / "trials"
    return len(list(trials.iterdir())) if trials.is_dir() else 0
