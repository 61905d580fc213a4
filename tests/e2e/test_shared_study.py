"""A search whose study lies in a PostgreSQL server: killed, refused, resumed."""

from __future__ import annotations

import json

import optuna
from promises import check_promises
from services import Postgres
from workplace import Workplace, kill_driver


def test_killed_search_with_a_study_in_a_database(place: Workplace, postgres: Postgres) -> None:
    place.environment["FAULTY_PAUSE_S"] = "0.4"
    process = place.start("--study", postgres.url)
    place.wait_for_epochs(6)
    postgres.control("restart", "-m", "fast")
    place.wait_for_epochs(10)
    kill_driver(process)
    before = {row["trial"]: row for row in place.trials()}
    assert any(row["state"] == "running" for row in before.values())
    # Without a password the server refuses, and says so before anything is trained.
    done = place.search("--resume")
    assert done.returncode == 2
    assert "password" in done.stderr
    assert "Traceback" not in done.stderr
    place.environment.clear()
    # The run remembers all but the password, which libpq finds in its own variable.
    place.environment["PGPASSWORD"] = "secret"
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    check_promises(place, before, kills=1, study=study_in(place, postgres))
    assert "nothing to do" in place.search("--resume").stderr
    assert not (place.run / "study.journal").exists()
    kept = [path for path in place.run.rglob("*") if path.is_file()]
    assert all(b"secret" not in path.read_bytes() for path in kept)


def study_in(place: Workplace, postgres: Postgres) -> optuna.Study:
    note = json.loads((place.run / "study.json").read_text())
    url = postgres.url.replace("postgresql://", "postgresql+psycopg://")
    return optuna.load_study(study_name=note["study"], storage=url)
