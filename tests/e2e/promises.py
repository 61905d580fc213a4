"""What must hold of a search that was killed and resumed."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from workplace import Workplace

TRIALS = 6


def check_promises(
    place: Workplace,
    before: dict[int, dict[str, Any]],
    *,
    kills: int,
    study: str = "kd",
) -> None:
    """Nothing finished before is lost or changed, and little was computed twice.

    Args:
        before: The leaderboard at the kill, by trial.
        study: What the run was called when it was last searched; its study is called so.
    """
    after = {row["trial"]: row for row in place.trials()}
    assert sorted(after) == list(range(TRIALS))
    assert {row["state"] for row in after.values()} <= {"completed", "stopped"}
    for number, row in before.items():
        if row["state"] != "running":
            assert {**after[number], "rank": 0} == {**row, "rank": 0}, (
                "a finished trial changed"
            )
    computed = place.epochs()
    wanted = {(t, e) for t, row in after.items() for e in range(1, row["epochs"] + 1)}
    assert wanted <= set(computed)
    twice = sum(count - 1 for count in computed.values())
    assert twice <= 2 * kills, f"computed twice: {computed}"
    check_optuna(study_in_journal(place, study), after)


def study_in_journal(place: Workplace, name: str = "kd") -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(place.run / "study.journal"))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def check_optuna(study: optuna.Study, rows: dict[int, dict[str, Any]]) -> None:
    """It is a plain Optuna study in which every trial ended once."""
    states = {"completed": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    assert {t.number: t.state.name for t in study.trials} == {
        number: states[row["state"]] for number, row in rows.items()
    }
    for trial in study.trials:
        assert trial.value == pytest.approx(rows[trial.number]["val_auc"])
