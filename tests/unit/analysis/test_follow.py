"""Following a search from another terminal."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest
from search_cases import space_file, write_trial

from kdsearch.analysis import follow
from kdsearch.analysis.run import open_run
from kdsearch.errors import RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord

PARAMS = {"temperature": 1.0, "alpha": 0.5, "w_adv": 1.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(follow, "INTERVAL_S", 0.01)
    folder = RunFolder(tmp_path / "kd")
    folder.write_config(space_file(), {})
    return folder


def test_it_ends_with_the_search(folder: RunFolder):
    out = io.StringIO()
    with folder.lock():
        thread = threading.Thread(target=follow.follow, args=(folder.path, out), daemon=True)
        thread.start()
        write_trial(folder, TrialRecord(0, "completed", PARAMS, {1: 0.8}))
        deadline = time.monotonic() + 240
        while "1/4 trials" not in out.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert thread.is_alive()
    thread.join(240)
    assert not thread.is_alive()
    line = "1/4 trials · 0 running · best val_auc 0.8000 (trial 0)"
    assert out.getvalue().splitlines()[-1] == line


def test_a_killed_search_is_not_followed_for_ever(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(follow, "LEASE_S", 0.1)
    with folder.lock():
        claims = {file.name: file.read_bytes() for file in (folder.path / ".driver").iterdir()}
    for name, claim in claims.items():
        (folder.path / ".driver" / name).write_bytes(claim)
    out = io.StringIO()
    follow.follow(folder.path, out)
    assert out.getvalue().startswith("0/4 trials")


def test_a_terminal_shows_as_many_rows_as_fit(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "10")
    for number in range(20):
        write_trial(folder, TrialRecord(number, "completed", PARAMS, {1: 0.8}))
    console = follow.Console(file=io.StringIO(), force_terminal=True)
    page = follow._page(open_run(folder.path), console).plain.splitlines()
    assert len(page) < 10
    assert page[-1].startswith("20/4 trials")
    assert page[-1].endswith("Ctrl-C ends this")


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="no such run folder"):
        follow.follow(tmp_path / "none", io.StringIO())


def test_the_headline_is_about_the_newest_generation(folder: RunFolder):
    for number, auc in ((1, 0.9), (2, 0.8)):
        generation = folder.generation_folder(number)
        generation.write_config(space_file(), {})
        write_trial(generation, TrialRecord(number, "completed", PARAMS, {1: auc}))
    folder.write_config({**space_file(), "search": {"num_samples": 4, "generations": 3}}, {})
    line = "generation 2/3 · 1/4 trials · 0 running · best val_auc 0.8000 (trial 2)"
    assert follow.headline(open_run(folder.path)) == line


def test_the_headline_counts_the_points_of_a_small_space(folder: RunFolder):
    folder.write_config({**space_file(), "space": {"width": {"choice": [4, 8]}}}, {})
    assert follow.headline(open_run(folder.path)) == "0/2 trials · 0 running"
