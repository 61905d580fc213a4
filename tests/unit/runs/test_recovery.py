"""A lost study is rebuilt from the trials' folders, and damaged notes cost one trial each."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.recovery import records_from_folders, recover
from kdsearch.runs.folder import Note, RunFolder
from kdsearch.config.dimensions import Choice, Float
from kdsearch.runs.study import TrialRecord, read_records, write_study

SPACE = {"lr": Float(1e-4, 1e-2, log=True), "target": Choice(("score", "none"))}
PARAMS = {"lr": 1e-3, "target": "score"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def add_trial(folder: RunFolder, number: int, note: Note | None, aucs: list[float]) -> None:
    trial = folder.trial(number)
    trial.path.mkdir(parents=True)
    history: list[EpochReport] = []
    for epoch, auc in enumerate(aucs, start=1):
        report = EpochReport(epoch, {"generator": 1.0}, 2.0, auc, 0.5)
        trial.write(report, history, {}, best=None)
        history.append(report)
    if note is not None:
        trial.write_note(note)


def test_rebuilt_study_holds_what_the_folders_hold(folder: RunFolder) -> None:
    add_trial(folder, 0, Note(PARAMS, "completed"), [0.7, 0.9, 0.8])
    add_trial(folder, 1, Note(PARAMS, "failed", "the sensor caught fire"), [0.6])
    add_trial(folder, 2, Note(PARAMS, "running"), [0.5])
    assert "3 trials" in recover(folder, folder.study_file, SPACE)
    assert read_records(folder.study_file) == [
        TrialRecord(0, "completed", PARAMS, {1: 0.7, 2: 0.9, 3: 0.9}, 6.0),
        TrialRecord(1, "failed", PARAMS, {1: 0.6}, 2.0, "the sensor caught fire"),
        TrialRecord(2, "running", PARAMS, {1: 0.5}, 2.0),
    ]
    assert recover(folder, folder.study_file, SPACE) == "", "a whole study is left alone"


@pytest.mark.parametrize(
    ("note", "aucs"),
    [
        pytest.param(Note(PARAMS, "completed"), [], id="finished without metrics"),
        pytest.param(Note({**PARAMS, "lr": 5.0}, "completed"), [0.8], id="value out of range"),
        pytest.param(Note({**PARAMS, "lr": "fast"}, "completed"), [0.8], id="value of a type"),
        pytest.param(None, [0.8], id="no note"),
    ],
)
def test_a_damaged_note_costs_its_trial_alone(
    folder: RunFolder, note: Note | None, aucs: list[float]
) -> None:
    add_trial(folder, 0, note, aucs)
    add_trial(folder, 1, Note(PARAMS, "completed"), [0.9])
    recover(folder, folder.study_file, SPACE)
    lost, kept = read_records(folder.study_file)
    assert lost.state == "failed"
    assert "lost together with the study" in lost.reason
    assert (kept.state, kept.val_auc) == ("completed", 0.9)


def test_the_studys_own_record_wins_where_it_is_ahead(folder: RunFolder) -> None:
    add_trial(folder, 0, Note(PARAMS, "running"), [0.7])
    add_trial(folder, 1, Note(PARAMS, "stopped"), [0.6])
    write_study(folder.study_file, [TrialRecord(0, "completed", PARAMS, {1: 0.75}, 2.0)], SPACE)
    recover(folder, folder.study_file, SPACE)
    first, second = read_records(folder.study_file)
    assert (first.state, first.val_auc) == ("completed", 0.75)
    assert (second.state, second.val_auc) == ("stopped", 0.6)
    assert folder.study_file.with_name("study.journal.damaged").exists()


def test_gaps_are_filled(folder: RunFolder) -> None:
    add_trial(folder, 2, Note(PARAMS, "completed"), [0.9])
    records = records_from_folders(folder)
    assert [record.number for record in records] == [0, 1, 2]
    assert [record.state for record in records] == ["failed", "failed", "completed"]
