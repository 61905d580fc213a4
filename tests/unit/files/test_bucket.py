"""A run folder in a real S3 server: what a folder on disk promises, and the lock."""

from __future__ import annotations

import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from search_cases import new_driver, report, write_report

from kdsearch.errors import ConfigError, RunError
from kdsearch.files.atomic import write_text
from kdsearch.files.bucket import BucketPath, Place, finds, parse_path
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import Superseded, TrialRecord

STATE = {"weight": torch.arange(3.0)}
RUNNING = TrialRecord(3, "running", {"lr": 0.1})


@pytest.fixture
def path(s3: dict[str, str]) -> Place:
    return parse_path(f"s3://bucket/runs/{uuid.uuid4().hex}/")


def test_a_trial_in_a_bucket_is_a_trial_on_disk(path: Place):
    folder = RunFolder(path)
    old, new = new_driver(folder), new_driver(folder)
    trial = folder.trial(3, new)
    assert trial.checkpoint() is None
    assert trial.take_error() == ""
    write_report(trial, report(1, 0.6), [], STATE, best=STATE)
    write_report(trial, report(2, 0.5), [report(1, 0.6)], STATE, best=None)
    trial.write_record(RUNNING)
    with pytest.raises(Superseded):
        write_report(folder.trial(3, old), report(3), [], STATE, best=None)
    found = folder.trial(3).checkpoint()
    assert found is not None
    assert torch.equal(found.state["weight"], STATE["weight"])
    assert found.history == [report(1, 0.6), report(2, 0.5)]
    assert folder.trial(3).record() == replace(RUNNING, curve={1: 0.6, 2: 0.6}, seconds=0.5)
    assert folder.records() == [folder.trial(3).record()]
    assert torch.equal(trial.best_weights()["weight"], STATE["weight"])
    assert folder.trial_files() == {3: {"trial.json", "metrics.jsonl", "last.pt", "best.pt"}}
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
    folder.write_best(STATE, {"width": 2}, {"trial": 3}, {})
    folder.write_evaluation({"scores": np.arange(4)})
    again = RunFolder.existing(path)
    assert not again.concluded
    folder.end_work()
    assert again.concluded
    kept = again.read_evaluation(lambda arrays: arrays["scores"])
    np.testing.assert_array_equal(kept, np.arange(4))
    assert again.read_json(again.best / "metrics.json") == {"trial": 3}


@pytest.mark.parametrize(
    "url", ["s3://", "http://bucket/x", "s3://key:secret@bucket/x", "s3://bucket/x?scheme=http"]
)
def test_other_urls_are_refused(url: str):
    with pytest.raises(ConfigError, match="expected s3://bucket/path or gs://bucket/path"):
        parse_path(url)


def test_a_bucket_that_is_not_there_is_one_line(s3: dict[str, str]):
    with pytest.raises(OSError, match="NO_SUCH_BUCKET") as failure:
        (parse_path("s3://nobody/x") / "file").write_bytes(b"")
    assert failure.value.filename == "s3://nobody/x/file"
    assert isinstance(parse_path("runs"), Path)
    assert isinstance(parse_path("s3://bucket/runs"), BucketPath)


def test_a_file_is_found_by_its_text(path: Place):
    probe = path / ".probe"
    assert not finds(str(probe), "word")
    write_text(probe, "other")
    assert not finds(str(probe), "word")
    write_text(probe, "word")
    assert finds(str(probe), "word")


def test_finding_imports_nothing_large():
    """Each machine of a cluster starts a process for it, at every start of a search."""
    check = "assert not {'numpy', 'torch', 'ray', 'pandas', 'optuna'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", f"import sys, kdsearch.files.bucket; {check}"], check=True
    )
