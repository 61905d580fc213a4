"""A run folder as a notebook sees it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from run_cases import CURVES, make_run
from search_cases import report, write_report

import kdsearch
from kdsearch.errors import RunError
from kdsearch.files.atomic import write_json
from kdsearch.runs.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Trial 0 with all of its epochs on disk."""
    folder = make_run(tmp_path / "kd", teacher=True)
    history = [report(1, 0.5), report(2, 0.875), report(3, 0.75)]
    for number, epoch in enumerate(history):
        write_report(folder.trial(0), epoch, history[:number], {}, None)
    return folder


def test_the_leaderboard_is_the_files(folder: RunFolder):
    run = kdsearch.open_run(folder.path)
    assert run.path == folder.path
    assert list(run.leaderboard()["trial"]) == [0, 3, 1, 2]
    assert repr(run) == f"<Run {folder.path}: {len(CURVES)} trials, best val_auc 0.8750>"


def test_epochs_are_rows_and_loss_terms_columns(folder: RunFolder):
    table = kdsearch.open_run(folder.path).trials()
    assert list(table.columns) == [
        *("trial", "state", "epoch", "val_auc", "val_ap", "seconds"),
        "loss.reconstruction",
    ]
    assert sorted(set(table["trial"])) == [0, 1, 2, 3]
    table = table[table["trial"] == 0]
    assert list(table["epoch"]) == [1, 2, 3]
    assert list(table["val_auc"]) == [0.5, 0.875, 0.75]
    assert set(table["state"]) == {"completed"}
    assert math.isclose(table["loss.reconstruction"][1], 0.25)


def test_before_any_epoch_there_are_columns_and_no_best(tmp_path: Path):
    run = kdsearch.open_run(make_run(tmp_path / "new", {}).path)
    assert run.best is None
    assert list(run.trials().columns)[:3] == ["trial", "state", "epoch"]
    assert "0 trials" in run._repr_html_()
    with pytest.raises(RunError, match="has no best student yet"):
        run.student()


def test_the_best_leads_until_the_search_has_chosen(folder: RunFolder):
    leading = kdsearch.open_run(folder.path).best
    assert leading is not None
    assert (leading.trial, leading.value, leading.epoch) == (0, 0.875, 2)
    assert set(leading.params) == {"temperature", "alpha", "w_adv"}
    assert leading.metrics == {}
    test = {"roc_auc": 0.75, "average_precision": 0.5, "confusion": {"threshold": 0.5}}
    figures = {"test": {**test, "classes": {}}}
    metrics = {"trial": 3, "student": figures, "teacher": figures}
    write_json(folder.best / "metrics.json", metrics)
    chosen = kdsearch.open_run(folder.path).best
    assert chosen is not None
    assert (chosen.trial, chosen.metrics["test"]["roc_auc"]) == (3, 0.75)


def test_nothing_of_a_run_becomes_markup(tmp_path: Path):
    folder = make_run(tmp_path / "kd", {0: ("failed", [0.5])})
    verdict = {"chosen": None, "sentences": ["<script>alert(1)</script>"]}
    verdict |= {"configurations": [], "differences": [], "baselines": []}
    write_json(folder.verdict_file, verdict)
    shown = kdsearch.open_run(folder.path)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "<td>boom</td>" in shown
