"""A search of two generations that is killed in its second one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workplace import Workplace, kill_all

from kdsearch.runs.folder import RunFolder

CHANGES = {
    "num_samples: 6": "num_samples: 2, generations: 2",
    "confirm: {top: 0}": "confirm: {top: 1, seeds: 2}",
    "name: asha": "name: none",
    "epochs: 5": "epochs: 3",
}
# The teacher and its recipe with two seeds, two trials, the best one and its control with two
# seeds each.
FIRST_GENERATION = 3 * 2 + 2 * 3 + 4 * 3
# It has the first one's best student as its teacher.
SECOND_GENERATION = 2 * 3 + 4 * 3


def test_a_kill_in_the_second_generation(place: Workplace) -> None:
    """The resume repeats nothing of the first one, and no finished trial of the second."""
    text = place.space.read_text()
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    place.space.write_text(text)
    first, second = (RunFolder(place.run / "generations" / number) for number in "12")
    flags = ("--max-concurrent", "1")
    place.hold(FIRST_GENERATION + 3 + 1)
    process = place.start(*flags)
    place.wait_for(lambda: [record.epochs for record in second.records()] == [3, 1])
    kill_all(process)
    before, finished = results(first), curves(second)
    assert list(finished) == [0]
    place.environment.clear()
    done = place.search("--resume", *flags)
    assert done.returncode == 0, done.stderr
    assert results(first) == before
    after = curves(second)
    assert after[0] == finished[0]
    assert [len(curve) for curve in after.values()] == [3, 3]
    repeated = sum(place.epochs().values()) - FIRST_GENERATION - SECOND_GENERATION
    assert 0 <= repeated <= 2
    descent = json.loads((place.run / "descent.json").read_text())
    assert [one["generation"] for one in descent["generations"]] == [1, 2]


def curves(run: RunFolder) -> dict[int, dict[int, float]]:
    """The validation AUC by epoch of each trial that has ended."""
    return {record.number: dict(record.curve) for record in run.records() if record.finished}


def results(run: RunFolder) -> dict[str, Any]:
    """All trials of a run and its verdict, as they are in its files."""
    files = [*Path(str(run.path)).glob("trials/*/trial.json"), Path(str(run.verdict_file))]
    return {str(file): json.loads(file.read_text()) for file in files}
