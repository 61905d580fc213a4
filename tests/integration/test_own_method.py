"""The example of a user's own method, searched as a user would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small import run_python

import kdsearch
from kdsearch.errors import ConfigError

ROOT = Path(__file__).parents[2]
SMALL = {
    "autoencoder:": "example_of_mine:",
    "train_limit: 1000": "train_limit: 128\n  simulated: {patients: 6, beats: 900}",
    "top: 1": "top: 0",
}


def test_the_example_is_searched_ranked_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    examples = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", examples)
    # Under a name that nothing else in this process has imported.
    (examples / "autoencoder.py").rename(examples / "example_of_mine.py")
    space = examples / "autoencoder.yaml"
    text = space.read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    space.write_text(text)
    flags = ("--space", str(space), "--num-samples", "3", "--quiet")
    done = run_python(tmp_path, str(ROOT / "run_search.py"), *flags)
    assert "3 trials" in done.stdout

    run = kdsearch.open_run(tmp_path / "runs" / "autoencoder")
    assert list(run.leaderboard().columns)[6:9] == ["temperature", "alpha", "lr"]
    assert set(run.leaderboard()["state"]) <= {"completed", "stopped"}
    assert "loss.distillation" in run.trials()
    with pytest.raises(ConfigError, match=r"No module named 'example_of_mine'.*PYTHONPATH"):
        run.student()
    monkeypatch.syspath_prepend(examples)
    student = kdsearch.load_student(run.path)
    beats = np.random.default_rng(0).normal(size=(4, 1, student.card.input.length))
    assert student.score(beats).shape == (4,)
    assert student.score(beats).std() > 0
