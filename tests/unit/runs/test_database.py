"""A study in a real PostgreSQL server: what a journal promises, and the lock."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import optuna
import pytest
from search_cases import SPACE, report
from services import Postgres

from kdsearch.config.space_file import SearchSettings
from kdsearch.runs.database import Database
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.recovery import recover, study_records
from kdsearch.runs.folder import Note, RunFolder
from kdsearch.runs.study import Study, read_records

SETTINGS = SearchSettings(num_samples=9, startup_trials=2)


@pytest.fixture
def place(postgres: Postgres) -> Database:
    return Database(postgres.url, f"kd-{uuid.uuid4().hex}")


def search(place: Path | Database) -> Study:
    """Three trials: one completed, one failed, one on its way."""
    study = Study(place, SPACE, SETTINGS)
    first, second, third = study.ask(), study.ask(), study.ask()
    for epoch, auc in ((1, 0.1 + 0.2), (2, 0.9), (3, 0.9)):
        study.report(first.number, epoch, auc, epoch / 3)
    study.finish(first.number, "completed")
    study.finish(second.number, "failed", "the sensor caught fire")
    study.report(third.number, 1, 0.5, 1.0)
    return study


def test_a_database_holds_what_a_journal_holds(place: Database, tmp_path: Path):
    in_database, in_journal = search(place), search(tmp_path / "study.journal")
    assert in_database.records() == in_journal.records()
    assert read_records(place) == read_records(tmp_path / "study.journal")
    in_database.close()
    again = Study(place, SPACE, SETTINGS)
    assert [left.number for left in again.adopt()] == [2]
    assert not again.report(2, 1, 0.5, 1.0), "known from the driver before"
    assert again.report(2, 2, 0.6, 2.0)
    again.close()


def test_a_second_driver_is_refused_until_the_first_is_gone(
    place: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kdsearch.runs.database.TAKEOVER_S", 0.3)
    program = (
        "import sys; from kdsearch.runs.database import Database\n"
        "Database(*sys.argv[1:]).lock().take(); print('taken', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, place.url, place.study],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"taken\n"
    with pytest.raises(RunError, match="another search is running on this study") as refusal:
        Study(place, SPACE, SETTINGS)
    assert "secret" not in str(refusal.value)
    Study(Database(place.url, "another run"), SPACE, SETTINGS).close()
    first.kill()
    first.wait()
    Study(place, SPACE, SETTINGS).close()


def test_a_restarted_server_is_waited_for_and_a_lost_study_is_not_written_to(
    place: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    study = search(place)
    postgres.control("restart", "-m", "immediate")
    assert study.report(2, 2, 0.7, 2.0)
    # The connection breaks again, and this time somebody else is faster.
    postgres.control("restart", "-m", "immediate")
    monkeypatch.setattr("kdsearch.runs.database.TAKEOVER_S", 0.3)
    other = place.lock()
    other.take()
    with pytest.raises(OSError, match="another search is running"):
        study.report(2, 3, 0.8, 3.0)
    assert read_records(place)[2].curve == {1: 0.5, 2: 0.7}
    other.release()


def test_a_server_that_is_gone_ends_the_search_in_order(
    place: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kdsearch.runs.database.PATIENCE_S", 0.3)
    study = search(place)
    postgres.control("stop", "-m", "immediate")
    try:
        with pytest.raises(OSError, match=r"the database: .*connection to server"):
            study.report(2, 2, 0.7, 2.0)
        with pytest.raises(RunError, match=r"postgresql://kds@.*the database: "):
            Study(place, SPACE, SETTINGS)
    finally:
        postgres.control("start")


def test_a_dropped_study_is_rebuilt_from_the_folders(place: Database, tmp_path: Path):
    folder = RunFolder(tmp_path / "kd")
    folder.write_database(place.public_url, place.study)
    study = search(place)
    known = study.records()
    for record in known:
        folder.trial(record.number).write_note(Note(record.params, record.state, record.reason))
        for epoch, auc in record.curve.items():
            earlier = folder.trial(record.number).history()
            folder.trial(record.number).write(report(epoch, auc), earlier, {}, None)
    study.close()
    assert recover(folder, place, SPACE) == "", "a whole study is left alone"
    optuna.delete_study(study_name=place.study, storage=place.storage())
    assert "3 trials" in recover(folder, place, SPACE)
    rebuilt = read_records(place)
    assert rebuilt == study_records(folder), "readers need no database"
    assert [(r.state, r.params, r.curve) for r in rebuilt] == [
        (r.state, r.params, r.curve) for r in known
    ]
    assert "secret" not in folder.database_file.read_text()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://user:secret@host/db", "expected postgresql://user@host/database, but found"),
        ("study.db", "cannot be read as postgresql://"),
        ("postgresql://user:secret@host:port/db", "cannot be read as postgresql://"),
    ],
)
def test_other_databases_are_refused_without_their_password(url: str, message: str):
    with pytest.raises(ConfigError, match=message) as refusal:
        Database(url, "kd")
    assert "secret" not in str(refusal.value)


def test_no_password_is_shown_or_kept():
    place = Database("postgresql://me:secret@host/db?password=secret&sslmode=require", "kd")
    assert place.public_url == "postgresql://me@host/db?sslmode=require"
    assert "secret" not in f"{place} {place!r}"
