"""The live Optuna study: what others see of a search, which does not depend on it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_cases import SPACE, write_trial
from services import Postgres

from kdsearch.errors import ConfigError
from kdsearch.runs import study_view
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.study_view import OptunaTarget, StudyView
from kdsearch.runs.trial_folder import TrialRecord

PARAMS = {"temperature": 2.0, "w_adv": 1.0, "epochs": 3, "target": "score"}
DONE = TrialRecord(0, "completed", PARAMS, {1: 0.5, 2: 0.75}, 0.5, order=0)
STOPPED = replace(DONE, number=1, state="stopped", curve={1: 0.25}, seconds=0.25, order=1)
RUNNING = replace(DONE, number=2, state="running", curve={1: 0.5}, seconds=0.25, order=None)
LOST = TrialRecord(3, "running", {}, reason="trial.json is missing")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "kd")
    folder.path.mkdir(parents=True)
    for record in (DONE, STOPPED, RUNNING):
        write_trial(folder, record)
    return folder


def search(folder: RunFolder, target: OptunaTarget | None = None) -> list[str]:
    """A driver's start that ends the trials 2, 3 and 4; returns what was said."""
    said: list[str] = []
    view = StudyView(folder, SPACE, said.append, target)
    view.open([DONE, STOPPED, RUNNING, LOST])
    for number in (2, 3, 4):
        view.started(Suggestion(number, PARAMS))
        view.reported(replace(RUNNING, number=number), 9)
        trial = folder.trial(number)
        ended = replace(RUNNING, number=number, state="failed", reason="boom", order=number)
        if number == 2:
            trial.write_record(ended)
        elif not trial.path.exists():
            write_trial(folder, ended)
        view.ended(number, "failed", "boom")
    view.close()
    return said


def check(study: optuna.Study) -> None:
    assert [trial.state.name for trial in study.trials] == [
        *("COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL")
    ]
    assert [trial.params for trial in study.trials] == [PARAMS] * 5
    assert [trial.intermediate_values for trial in study.trials] == [
        *({1: 0.5, 2: 0.75}, {1: 0.25}, {1: 0.5}, {1: 0.5}, {1: 0.5})
    ]
    assert study.trials[4].user_attrs == {"seconds": 0.25, "reason": "boom"}
    assert study.best_value == 0.75
    assert study.metric_names == ["val_auc"]


def in_journal(folder: RunFolder) -> optuna.Study:
    """As another program, such as optuna-dashboard, reads it."""
    storage = JournalStorage(JournalFileBackend(str(folder.study_file)))
    return optuna.load_study(study_name="kd", storage=storage)


def test_the_journal_shows_every_trial(folder: RunFolder):
    assert search(folder) == []
    check(in_journal(folder))


@pytest.mark.parametrize(
    "damage",
    [b"", b"nonsense\n", b'{"op_code":4', b"\0" * 99],
    ids=["empty", "nonsense", "torn", "zeros"],
)
def test_a_damaged_journal_is_written_again(
    folder: RunFolder, damage: bytes, monkeypatch: pytest.MonkeyPatch
):
    def sleep(_: float) -> None:
        raise AssertionError("Optuna waits for the lock of a dead driver")

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr("optuna.storages.journal._file.time", clock)
    folder.study_file.write_bytes(damage)
    # Of a driver that was killed while it wrote.
    Path(f"{folder.study_file}.lock").symlink_to(folder.study_file)
    assert search(folder) == []
    check(in_journal(folder))


@pytest.mark.parametrize("name", ["new/study.db", "study.log", "sqlite:///{}/study"])
def test_other_storages_show_the_same_at_every_start(
    folder: RunFolder, tmp_path: Path, name: str
):
    text = name.format(tmp_path) if "://" in name else str(tmp_path / name)
    target = OptunaTarget.parse(text)
    folder.study_file.write_text("of an earlier start")
    for _ in range(2):
        assert search(folder, target) == []
        check(optuna.load_study(study_name="kd", storage=target.open()))
    assert not folder.study_file.exists(), "one view, and no outdated one beside it"


def test_a_journal_that_cannot_be_written_costs_one_warning(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study_view, "write_text", full)
    (said,) = search(folder)
    assert said.endswith("No space left on device; the search continues without this view")


def test_another_runs_study_is_refused(folder: RunFolder, tmp_path: Path):
    target = OptunaTarget.parse(str(tmp_path / "all.db"))
    assert search(folder, target) == []
    other = RunFolder(tmp_path / "others" / "kd")
    with pytest.raises(ConfigError, match=r"all\.db has a study 'kd' that is not this run's"):
        StudyView(other, SPACE, print, target).open([])
    check(optuna.load_study(study_name="kd", storage=target.open()))
    folder.config_file.touch()
    journal = OptunaTarget.parse(str(folder.study_file))
    with pytest.raises(ConfigError, match=r"study\.journal has a study"):
        StudyView(other, SPACE, print, journal).open([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study.txt", r"expected FILE\.log, FILE\.db, .* but found 'study\.txt'"),
        ("nonsense://me:secret@host/db", "expected FILE"),
        ("postgresql://me:secret@host:port/db", "expected FILE"),
        ("mssql+pyodbc://me:secret@host/db", "needs a driver"),
    ],
)
def test_what_is_no_storage_is_refused_without_its_password(text: str, message: str):
    with pytest.raises(ConfigError, match=message) as refused:
        OptunaTarget.parse(text)
    assert "secret" not in str(refused.value)


def test_no_password_is_shown():
    url = "postgresql://me:secret@host/db?password=secret&sslpassword=secret&sslmode=require"
    shown = "postgresql+psycopg://me:***@host/db?password=***&sslpassword=***&sslmode=require"
    assert str(OptunaTarget.parse(url)) == shown
    assert "secret" not in repr(OptunaTarget.parse(url))


# A real PostgreSQL server.


@pytest.fixture
def target(postgres: Postgres) -> OptunaTarget:
    return OptunaTarget.parse(postgres.url)


def forget(target: OptunaTarget) -> None:
    if "kd" in optuna.get_all_study_names(target.open()):
        optuna.delete_study(study_name="kd", storage=target.open())


def test_a_server_shows_the_same(folder: RunFolder, target: OptunaTarget):
    forget(target)
    for _ in range(2):
        assert search(folder, target) == []
        check(optuna.load_study(study_name="kd", storage=target.open()))
    kept = [path for path in folder.path.rglob("*") if path.is_file()]
    assert all(b"secret" not in path.read_bytes() for path in kept)


def test_a_server_that_is_gone_costs_one_warning(
    folder: RunFolder, postgres: Postgres, target: OptunaTarget
):
    forget(target)
    postgres.control("stop", "-m", "immediate")
    try:
        (said,) = search(folder, target)
    finally:
        postgres.control("start")
    assert "the search continues without this view" in said
    assert "secret" not in said


def test_a_frozen_server_costs_one_warning_and_little_time(
    tmp_path: Path,
    postgres: Postgres,
    target: OptunaTarget,
    monkeypatch: pytest.MonkeyPatch,
):
    said: list[str] = []
    folder = RunFolder(tmp_path / "frozen")
    view = StudyView(folder, SPACE, said.append, target)
    view.open([DONE])
    with frozen(postgres):
        monkeypatch.setattr(study_view, "TIMEOUT_S", 1.0)
        view.started(Suggestion(1, PARAMS))
        view.close()
        assert len(said) == 1
        StudyView(folder, SPACE, said.append, target).open([DONE])
        assert len(said) == 2
    assert all("no answer; the search continues without this view" in line for line in said)


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """Every process of the server is stopped in the middle of what it does."""
    main = int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
    processes = [psutil.Process(main), *psutil.Process(main).children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)
