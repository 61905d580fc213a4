"""The commands of the README, as a user types them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import yaml
from workplace import Workplace


def test_search_leaderboard_resume_extend_and_move(place: Workplace) -> None:
    place.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = place.script("run_search.py", "--space", "kd.yaml")
    place.environment.clear()
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    check_imports(done.stderr)
    assert "ready to paste" in done.stdout
    done = place.script("analyze.py", "runs/kd", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert (place.run / "leaderboard.csv").read_text() == done.stdout
    check_leaderboard(place)
    check_best(place.run)
    check_resume_does_nothing(place)
    check_refusals(place)
    check_extension_after_move(place)


def check_imports(stderr: str) -> None:
    """A search imports what it needs: these take seconds together."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert {"torch", "ray", "optuna", "plotly"} <= imported
    unneeded = {"torch._dynamo", "sympy", "matplotlib", "mlflow", "wandb"}
    assert not imported & unneeded


def check_leaderboard(place: Workplace) -> None:
    trials = place.trials()
    searched = ["temperature", "alpha", "w_adv", "lr"]
    columns = ["rank", "trial", "state", "val_auc", "best_epoch", "epochs", *searched]
    assert list(trials[0]) == [*columns, "seconds", "reason"]
    assert sorted(row["trial"] for row in trials) == list(range(6))
    assert {row["state"] for row in trials} <= {"completed", "stopped"}
    assert any(row["state"] == "stopped" and row["epochs"] < 5 for row in trials)
    assert all(row["epochs"] == 5 for row in trials if row["state"] == "completed")
    ranks = [row["val_auc"] for row in trials]
    assert ranks == sorted(ranks, reverse=True)
    text = place.analyze("--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["trial"]) for row in rows] == [row["trial"] for row in trials]
    assert len(json.loads(place.analyze("--format", "json", "--top", "2").stdout)) == 2


def check_best(run: Path) -> None:
    metrics = json.loads((run / "best" / "metrics.json").read_text())
    for who in ("student", "teacher"):
        test = metrics[who]["test"]
        assert 0 < test["roc_auc"] <= 1
        assert "average_precision" in test
        assert {"f1", "ppv"} <= set(test["confusion"])
        assert all("roc_auc" in test["classes"][label] for label in "SVFQ")
    config = yaml.safe_load((run / "best" / "config.yaml").read_text())
    assert config["student"]["width"] == 2
    assert not list(run.glob("trials/*/last.pt")), "finished trials keep nothing to go on from"


def check_resume_does_nothing(place: Workplace) -> None:
    before = place.epochs()
    for flags in (("--resume",), ("--resume", "auto")):
        done = place.search(*flags)
        assert done.returncode == 0
        assert "nothing to do" in done.stderr
    assert place.epochs() == before


def check_refusals(place: Workplace) -> None:
    for change, flags, message in (
        (None, (), "exists already"),
        (("epochs: 5", "epochs: 4"), ("--resume",), "student.epochs=5, not 4"),
        (("[0.5, 4]", "[0.5, 3]"), ("--resume",), "space.temperature"),
        (("epochs: 2", "epochs: 3"), ("--resume",), "teacher.epochs=2, not 3"),
        (("beats: 900", "beats: 901"), ("--resume",), "data.simulated"),
        (None, ("--resume", "--num-samples", "3"), "more than this search asks for"),
    ):
        original = place.space.read_text()
        if change:
            place.space.write_text(original.replace(*change))
        done = place.search(*flags)
        place.space.write_text(original)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def check_extension_after_move(place: Workplace) -> None:
    before = {row["trial"]: row for row in place.trials()}
    shutil.copytree(place.run, place.run.with_name("moved"))
    shutil.rmtree(place.run)
    shutil.rmtree(place.path / "cache")  # the run keeps its own teacher
    done = place.search("--name", "moved", "--num-samples", "8", "--resume")
    assert done.returncode == 0, done.stderr
    assert not place.run.exists()
    place.run.with_name("moved").rename(place.run)
    after = {row["trial"]: row for row in place.trials()}
    assert sorted(after) == list(range(8))
    for number, row in before.items():
        assert {**after[number], "rank": 0} == {**row, "rank": 0}
    assert place.epochs()[(-1, 1)] == 1, "the teacher was trained once"


def test_dry_run_leaves_nothing(place: Workplace) -> None:
    done = place.search("--dry-run")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["search"]["num_samples"] == 6
    assert "at most 30 epochs" in done.stdout
    assert not place.run.exists()
    assert not (place.path / "epochs.log").exists()


def test_time_budget_pauses_and_resume_goes_on(place: Workplace) -> None:
    # Six trials of an epoch or more, two at a time, take at least three seconds.
    place.environment["FAULTY_PAUSE_S"] = "1"
    done = place.search("--max-concurrent", "2", "--time-budget", "2", "--quiet")
    assert done.returncode == 0, done.stderr
    assert any(row["state"] == "running" for row in place.trials()) or len(place.trials()) < 6
    place.environment.clear()
    assert place.search("--resume", "--time-budget", "600").returncode == 0
    assert sorted(row["trial"] for row in place.trials()) == list(range(6))
    assert all(row["state"] != "running" for row in place.trials())
