"""The study: what it keeps through kills, torn lines and full disks, and what Optuna sees."""

from __future__ import annotations

import errno
import math
import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_cases import SPACE

from kdsearch.config.space_file import SearchSettings
from kdsearch.errors import RunError
from kdsearch.config.dimensions import Fixed, Float, Integer
from kdsearch.runs.study import Study, Suggestion, TrialRecord, read_records

SETTINGS = SearchSettings(startup_trials=3, seed=5)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def opened(journal: Path, settings: SearchSettings = SETTINGS) -> Study:
    return Study(journal, SPACE, settings)


def train(study: Study, suggestion: Suggestion, epochs: int = 3, fate: str = "completed"):
    """Report a curve that the suggestion determines, and tell its end."""
    for epoch in range(1, epochs + 1):
        study.report(suggestion.number, epoch, value(suggestion, epoch), float(epoch))
    study.finish(suggestion.number, fate)


def value(suggestion: Suggestion, epoch: int) -> float:
    return 1 - 1 / (epoch + float(suggestion.params["temperature"]))


def seen_by_optuna(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials as another program, such as optuna-dashboard, reads them."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="kdsearch", storage=storage).trials


def a_journal_of_three(journal: Path) -> None:
    """One trial completed, one stopped, one that runs."""
    study = opened(journal)
    train(study, study.ask())
    train(study, study.ask(), epochs=1, fate="stopped")
    study.report(study.ask().number, 1, 0.625, 2.0)


# What it remembers.


def test_a_trial_from_its_beginning_to_its_end(journal: Path):
    study = opened(journal)
    first = study.ask()
    assert first.number == 0
    assert study.records() == [TrialRecord(0, "running", first.params)]
    study.report(0, 1, 0.5, 1.5)
    study.report(0, 2, 0.75, 3.0)
    study.report(0, 3, 0.75, 4.5)
    assert study.ask().number == 1
    study.finish(0, "completed")
    study.finish(1, "failed", "the loss became nan in epoch 1")
    done, failed = study.records()
    assert done == TrialRecord(0, "completed", first.params, {1: 0.5, 2: 0.75, 3: 0.75}, 4.5)
    assert (done.val_auc, done.best_epoch, done.epochs, done.finished) == (0.75, 2, 3, True)
    assert failed.state == "failed"
    assert failed.reason == "the loss became nan in epoch 1"
    assert (failed.best_epoch, failed.epochs, failed.finished) == (0, 0, True)
    assert math.isnan(failed.val_auc)
    assert read_records(journal)[0] == done
    assert len(study) == 2


def test_fixed_settings_are_not_suggested(journal: Path):
    space = {"lr": Fixed(0.001), "alpha": Float(0.5, 0.75), "epochs": Integer(2, 3)}
    params = Study(journal, space, SETTINGS).ask().params
    assert list(params) == ["alpha", "epochs"]
    assert 0.5 <= params["alpha"] <= 0.75
    assert params["epochs"] in (2, 3)
    assert isinstance(params["epochs"], int)


def test_an_epoch_is_recorded_once(journal: Path):
    study = opened(journal)
    number = study.ask().number
    assert study.report(number, 1, 0.6, 1.0)
    assert not study.report(number, 1, 0.9, 7.0)
    assert study.report(number, 2, 0.7, 2.0)
    (record,) = study.records()
    assert record.curve == {1: 0.6, 2: 0.7}
    assert record.seconds == 2.0


def test_epochs_known_before_a_kill_are_ignored_after_it(journal: Path):
    a_journal_of_three(journal)
    study = opened(journal)
    (suggestion,) = study.adopt()
    assert not study.report(suggestion.number, 1, 0.9, 9.0)
    assert study.report(suggestion.number, 2, 0.7, 3.0)
    assert study.records()[2].curve == {1: 0.625, 2: 0.7}
    assert study.records()[2].seconds == 3.0


def test_optuna_sees_states_values_and_parameters(journal: Path):
    study = opened(journal)
    suggestions = [study.ask() for _ in range(4)]
    for number, fate in enumerate(("completed", "stopped", "failed")):
        study.report(number, 1, 0.5, 1.0)
        study.report(number, 2, 0.625, 2.0)
        study.finish(number, fate, "boom" if fate == "failed" else "")
    trials = seen_by_optuna(journal)
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert trials[0].value == 0.625
    assert trials[2].user_attrs["reason"] == "boom"
    assert [trial.params for trial in trials] == [s.params for s in suggestions]
    assert trials[1].intermediate_values == {1: 0.5, 2: 0.625}


def test_the_best_epoch_is_the_value_even_when_told_late(journal: Path):
    study = opened(journal)
    number = study.ask().number
    for epoch, best_so_far in ((1, 0.5), (2, 0.9), (3, 0.9)):
        study.report(number, epoch, best_so_far, 1.0)
    study.finish(number, "completed")
    assert seen_by_optuna(journal)[0].value == 0.9


# Resuming.


def test_adopted_trials_keep_their_parameters_in_order(journal: Path):
    study = opened(journal)
    asked = [study.ask() for _ in range(3)]
    train(study, asked[1])
    again = opened(journal)
    assert again.adopt() == [asked[0], asked[2]]
    assert again.adopt() == []
    train(again, asked[2])
    assert [record.state for record in again.records()] == ["running", "completed", "completed"]


def test_a_trials_own_driver_does_not_adopt_it(journal: Path):
    study = opened(journal)
    study.ask()
    assert study.adopt() == []


def in_range(params: dict[str, Any]) -> bool:
    return (
        list(params) == list(SPACE)
        and 0.25 <= params["temperature"] <= 8
        and 0.5 <= params["w_adv"] <= 5
        and params["epochs"] in range(1, 10)
        and params["target"] in ("score", "attention")
    )


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
@pytest.mark.parametrize("earlier", [0, 4])
def test_a_half_asked_trial_is_completed(journal: Path, sampler: str, earlier: int):
    settings = SearchSettings(sampler=sampler, startup_trials=2)
    study = opened(journal, settings)
    for _ in range(earlier):
        train(study, study.ask())
    before = len(journal.read_bytes())
    asked = study.ask()
    lines = journal.read_bytes()[before:].splitlines(keepends=True)
    whole = journal.read_bytes()[:before]
    for count in range(1, len(lines) + 1):
        journal.write_bytes(whole + b"".join(lines[:count]))
        kept = read_records(journal)[earlier].params
        again = opened(journal, settings)
        (adopted,) = again.adopt()
        assert adopted.number == asked.number
        assert in_range(adopted.params)
        assert kept.items() <= adopted.params.items()
        assert kept.items() <= asked.params.items()
        assert read_records(journal)[earlier].params == adopted.params
    assert adopted.params == asked.params


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_suggestions_do_not_depend_on_interruptions(tmp_path: Path, sampler: str):
    settings = SearchSettings(sampler=sampler, startup_trials=3, seed=11)
    uninterrupted = opened(tmp_path / "one", settings)
    expected = []
    for _ in range(8):
        expected.append(uninterrupted.ask())
        train(uninterrupted, expected[-1])
    found = []
    for _ in range(8):
        found.append(opened(tmp_path / "two", settings).ask())
        train_adopted(tmp_path / "two", settings)
    assert found == expected


def train_adopted(journal: Path, settings: SearchSettings) -> None:
    study = opened(journal, settings)
    for suggestion in study.adopt():
        train(study, suggestion)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_trials_that_run_at_the_same_time_differ(journal: Path, sampler: str):
    study = opened(journal, SearchSettings(sampler=sampler, startup_trials=2))
    found = [study.ask().params for _ in range(4)]
    for number in range(4):
        study.report(number, 1, 0.5 + number / 10, 1.0)
        study.finish(number, "completed")
    found += [study.ask().params for _ in range(4)]
    assert len({params["temperature"] for params in found}) == 8
    assert {params["target"] for params in found} == {"score", "attention"}


def test_another_seed_suggests_otherwise(tmp_path: Path):
    found = [
        opened(tmp_path / str(seed), SearchSettings(sampler=sampler, seed=seed)).ask().params
        for sampler in ("tpe", "qmc")
        for seed in (0, 1)
        if not (tmp_path / str(seed)).unlink(missing_ok=True)
    ]
    assert len({params["temperature"] for params in found}) == 4


# Torn, empty, missing and damaged journals.


def ends_of_lines(content: bytes) -> list[int]:
    return [0] + [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]


def before_opening(journal: Path) -> bytes:
    """The journal without the line by which Optuna notes each opening."""
    *lines, last = journal.read_bytes().splitlines(keepends=True)
    assert b'"op_code":0' in last
    return b"".join(lines)


def test_a_journal_torn_at_any_byte_keeps_all_whole_entries(tmp_path: Path, journal: Path):
    a_journal_of_three(journal)
    content = journal.read_bytes()
    ends = ends_of_lines(content)
    torn = tmp_path / "torn"
    for size in range(ends[-3], len(content) + 1):
        torn.write_bytes(content[:size])
        opened(torn)
        assert before_opening(torn) == content[: max(end for end in ends if end <= size)]


def test_a_journal_torn_in_any_line_can_be_read_and_gone_on_with(tmp_path: Path, journal: Path):
    a_journal_of_three(journal)
    content = journal.read_bytes()
    ends = ends_of_lines(content)
    torn, whole = tmp_path / "torn", tmp_path / "whole"
    for start, end in pairwise(ends):
        whole.write_bytes(content[:start])
        for size in (start + 1, (start + end) // 2, end - 1):
            torn.write_bytes(content[:size])
            known = read_records(whole)
            assert read_records(torn) == known
            study = opened(torn)
            assert study.records() == known
            study.adopt()
            number = study.ask().number
            study.report(number, 1, 0.75, 1.0)
            assert number == len(known)
            assert read_records(torn)[-1].curve == {1: 0.75}
            assert len(seen_by_optuna(torn)) == len(known) + 1


@pytest.mark.parametrize(
    "tail",
    [b"\0" * 512, b"{", b'{"op_code":4', b"\xff\xfe\n", b"nonsense\n", b'{"op":\n{"op":\n'],
)
def test_rubbish_at_the_end_is_cut_off(journal: Path, tail: bytes):
    a_journal_of_three(journal)
    content = journal.read_bytes()
    journal.write_bytes(content + tail)
    assert len(opened(journal)) == 3
    assert before_opening(journal) == content


def test_a_whole_journal_is_left_alone(journal: Path):
    a_journal_of_three(journal)
    content = journal.read_bytes()
    opened(journal)
    assert before_opening(journal) == content


def test_reading_changes_nothing_even_when_torn(journal: Path):
    a_journal_of_three(journal)
    torn = journal.read_bytes()[:-20]
    journal.write_bytes(torn)
    assert len(read_records(journal)) == 3
    assert journal.read_bytes() == torn
    assert [path.name for path in journal.parent.iterdir()] == [journal.name]


def test_an_empty_journal_has_no_trials(journal: Path):
    journal.touch()
    assert read_records(journal) == []
    assert opened(journal).ask().number == 0


def test_a_study_that_has_just_begun_has_no_trials(journal: Path):
    opened(journal)
    assert read_records(journal) == []


def test_no_journal_is_an_error_of_the_user(journal: Path):
    with pytest.raises(RunError, match=r"study\.journal: no such file; the run has no study"):
        read_records(journal)
    assert not journal.exists()


def test_a_journal_in_a_missing_folder_cannot_be_opened(tmp_path: Path):
    with pytest.raises(RunError, match=r"cannot be opened: .*No such file"):
        opened(tmp_path / "nowhere" / "study.journal")


@pytest.mark.parametrize(
    "line", [b"nonsense", b"\xff\xfe", b"7", b"null", b"{}", b'{"op_code":99}']
)
def test_damage_in_the_middle_is_an_error_of_the_user(journal: Path, line: bytes):
    a_journal_of_three(journal)
    lines = journal.read_bytes().split(b"\n")
    lines[4] = line
    damaged = b"\n".join(lines)
    journal.write_bytes(damaged)
    for read in (read_records, opened):
        with pytest.raises(RunError, match="the study is damaged") as refused:
            read(journal)
        assert "\n" not in str(refused.value)
    assert journal.read_bytes() == damaged


def test_a_journal_of_another_study_is_damaged(journal: Path):
    storage = JournalStorage(JournalFileBackend(str(journal)))
    optuna.create_study(study_name="another", storage=storage)
    with pytest.raises(RunError, match="the study is damaged"):
        read_records(journal)


# Reading during writing.


def test_records_can_be_read_while_they_are_written(journal: Path):
    study = opened(journal)
    stop, counts, failures = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                counts.append(len(read_records(journal)))
            except RunError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(12):
        train(study, study.ask())
    stop.set()
    reader.join()
    assert failures == []
    assert counts == sorted(counts)
    assert len(counts) > 1
    assert len(read_records(journal)) == 12


def test_a_killed_drivers_lock_file_delays_nobody(journal: Path):
    Path(f"{journal}.lock").touch()
    study = opened(journal)
    train(study, study.ask())
    assert len(read_records(journal)) == 1


# A full disk.


def test_a_failed_append_leaves_a_readable_journal(
    journal: Path, monkeypatch: pytest.MonkeyPatch
):
    study = opened(journal)
    train(study, study.ask())
    number = study.ask().number
    before = journal.read_bytes()

    def full(descriptor: int) -> None:
        # Half of the line is on the disk already when the disk turns out to be full.
        written = os.fstat(descriptor).st_size
        os.ftruncate(descriptor, len(before) + (written - len(before)) // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        study.report(number, 1, 0.75, 1.0)
    monkeypatch.undo()
    assert journal.read_bytes() == before
    assert study.report(number, 1, 0.75, 1.0)
    study.finish(number, "completed")
    assert [record.state for record in read_records(journal)] == ["completed", "completed"]
    assert len(opened(journal)) == 2
