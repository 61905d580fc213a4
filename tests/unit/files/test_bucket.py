"""A run folder in a real S3 server: what a folder on disk promises, and the lock."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_cases import report

from kdsearch.errors import ConfigError, RunError
from kdsearch.files.bucket import BucketPath, Place, place
from kdsearch.runs import driver_lock as bucket_run
from kdsearch.runs.folder import Note, RunFolder, Superseded

STATE = {"weight": torch.arange(3.0)}


@pytest.fixture
def path(s3: dict[str, str]) -> Place:
    return place(f"s3://bucket/runs/{uuid.uuid4().hex}/")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_run, "BEAT_S", 0.2)
    monkeypatch.setattr(bucket_run, "LEASE_S", 1.5)
    monkeypatch.setattr(bucket_run, "SETTLE_S", 0.2)


def test_a_trial_in_a_bucket_is_a_trial_on_disk(path: Place):
    folder = RunFolder(path)
    old, new = folder.next_generation(), folder.next_generation()
    trial = folder.trial(3, new)
    assert trial.checkpoint() is None
    assert trial.take_error() == ""
    trial.write(report(1, 0.6), [], STATE, best=STATE)
    trial.write(report(2, 0.5), [report(1, 0.6)], STATE, best=None)
    trial.write_note(Note({"lr": 0.1}, "running"))
    with pytest.raises(Superseded):
        folder.trial(3, old).write(report(3), [], STATE, best=None)
    found = folder.trial(3).checkpoint()
    assert found is not None
    assert torch.equal(found.state["weight"], STATE["weight"])
    assert found.history == [report(1, 0.6), report(2, 0.5)]
    assert folder.trial(3).note() == Note({"lr": 0.1}, "running")
    assert torch.equal(trial.best_weights()["weight"], STATE["weight"])
    assert folder.trial_numbers() == [3]
    trial.write_error("the sensor caught fire")
    assert (trial.take_error(), trial.take_error()) == ("the sensor caught fire", "")
    trial.reduce(keep_weights=False)
    assert trial.checkpoint() is None
    with pytest.raises(RunError, match=r"best\.pt: no such file"):
        trial.best_weights()


def test_what_a_search_leaves_can_be_read_back(path: Place):
    folder = RunFolder(path)
    assert not folder.exists()
    with pytest.raises(RunError, match="no such run folder"):
        RunFolder.existing(path)
    folder.write_config({"search": {}}, {})
    folder.begin_work()
    folder.write_best(STATE, {"width": 2}, {"trial": 3})
    folder.write_evaluation({"scores": np.arange(4)})
    again = RunFolder.existing(path)
    assert not again.concluded
    folder.end_work()
    assert again.concluded
    kept = again.read_evaluation(lambda arrays: arrays["scores"])
    np.testing.assert_array_equal(kept, np.arange(4))
    assert again.read_json(again.best / "metrics.json") == {"trial": 3}


def hold(path: Place, taken: Any) -> None:
    """A driver in a process of its own."""
    with RunFolder(path).lock():
        taken.set()
        time.sleep(60)


@pytest.mark.usefixtures("quick")
def test_a_driver_elsewhere_is_refused_until_the_first_is_dead(
    path: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fork = multiprocessing.get_context("fork")
    taken = fork.Event()
    first = fork.Process(target=hold, args=(path, taken))
    first.start()
    assert taken.wait(20)
    with pytest.raises(RunError, match="another search is running"), RunFolder(path).lock():
        pass
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(RunError, match="is running in this folder from"):
        RunFolder(path).lock().__enter__()
    first.kill()
    first.join()
    with RunFolder(path).lock():
        pass
    assert not (path / ".driver").exists()


@pytest.mark.usefixtures("quick")
def test_a_driver_that_lost_its_run_notices(path: Place):
    folder = RunFolder(path)
    with folder.lock():
        folder.check_ours()
        (path / ".driver").write_bytes(json.dumps({"owner": "somebody else"}).encode())
        time.sleep(1)
        with pytest.raises(OSError, match="another search has taken over"):
            folder.check_ours()
    assert (path / ".driver").exists(), "it is not ours to remove"


@pytest.mark.usefixtures("quick")
def test_the_journal_is_copied_while_it_grows_and_fetched_elsewhere(
    path: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, copy = RunFolder(path), path / "study.journal"
    with folder.lock():
        folder.study_file.write_text("one\ntwo\n")
        time.sleep(1)
        assert copy.read_text() == "one\ntwo\n"
        with folder.study_file.open("a") as journal:
            journal.write("thr")
    assert copy.read_text() == "one\ntwo\nthr"
    # Killed before the next copy: what is on this machine is more, and is kept.
    folder.study_file.write_text("one\ntwo\nthree\n")
    with folder.lock():
        assert folder.study_file.read_text() == "one\ntwo\nthree\n"
    here = folder.study_file.parent
    shutil.rmtree(here)
    with folder.lock():
        assert folder.study_file.read_text() == "one\ntwo\nthree\n", "this disk was lost"
    # Gone on with on another machine: what is here is old.
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "another machine"))
    other = RunFolder(path)
    with other.lock():
        other.study_file.write_text("one\ntwo\n3\nfour\n")
    with folder.lock():
        assert folder.study_file.read_text() == "one\ntwo\n3\nfour\n"


@pytest.mark.parametrize(
    "url", ["s3://", "http://bucket/x", "s3://key:secret@bucket/x", "s3://bucket/x?scheme=http"]
)
def test_other_urls_are_refused(url: str):
    with pytest.raises(ConfigError, match="expected s3://bucket/path or gs://bucket/path"):
        place(url)


def test_a_bucket_that_is_not_there_is_one_line(s3: dict[str, str]):
    with pytest.raises(OSError, match="NO_SUCH_BUCKET") as failure:
        (place("s3://nobody/x") / "file").write_bytes(b"")
    assert failure.value.filename == "s3://nobody/x/file"
    assert isinstance(place("runs"), Path)
    assert isinstance(place("s3://bucket/runs"), BucketPath)
