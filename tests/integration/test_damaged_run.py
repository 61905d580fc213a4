"""Every file of a run deleted or torn, then read, resumed and extended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small import SPACE as SMALL

import kdsearch
from kdsearch.analysis.summary import summarise
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder

SPACE = {**SMALL, "confirm": {"top": 1, "seeds": 2}}
# Made from other files, without training anything.
DERIVED = (
    *("teacher.json", "teacher.pt", "evaluation.npz", "costs.json", "verdict.json"),
    *("leaderboard.csv", "report.html", "study.journal", "search.log", "BEST_WEIGHTS"),
    *("best/model.safetensors", "best/config.yaml", "best/metrics.json", ".generation", ".id"),
)
# Their trial or confirmation is trained again.
TRAINED = (
    "trials/0/trial.json",
    *("confirm/teacher/*0/result.json", "confirm/teacher/*1/scores.npz"),
)


def search(runs: Path, **changes: Any) -> kdsearch.Run:
    return kdsearch.search(SPACE, name="kd", runs_dir=runs, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a verdict."""
    path = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KDSEARCH_CACHE", str(path / "cache"))
        return Path(str(search(path, progress=False).path))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / "kd"))


def damaged(run: Path, name: str, damage: str) -> Path:
    if name == "BEST_WEIGHTS":
        best = json.loads((run / "best" / "metrics.json").read_text())["trial"]
        name = f"trials/{best}/best.pt"
    (file,) = run.glob(name)
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) // 2] if damage == "torn" else b"")
    return file


def figures(run: Path) -> tuple[str, Any, Any, Any]:
    """What the run says, without what depends on the machine's speed."""
    verdict = json.loads((run / "verdict.json").read_text())
    for baseline in verdict["baselines"]:
        del baseline["seconds"]
    return (
        pd.read_csv(run / "leaderboard.csv").drop(columns="seconds").to_csv(),
        json.loads((run / "best" / "metrics.json").read_text()),
        verdict,
        kdsearch.load_student(run).threshold,
    )


@pytest.mark.parametrize("damage", ["gone", "torn"])
@pytest.mark.parametrize("name", DERIVED)
def test_what_is_lost_is_made_again(
    finished: Path, run: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = damaged(run, name, damage)
    assert "2 trials: 2 completed" in summarise([kdsearch.open_run(run)])
    search(run.parent, resume=True)
    said = capsys.readouterr().err
    if name in ("teacher.json", "teacher.pt", "costs.json", "verdict.json"):
        assert f"kd: {name}: missing or damaged, and made again" in said
    assert figures(run) == figures(finished)
    if name not in ("BEST_WEIGHTS", ".id", "search.log", ".generation"):
        assert file.stat().st_size > (finished / name).stat().st_size / 2
    search(run.parent, resume=True)
    assert "complete with 2 trials; nothing to do" in capsys.readouterr().err


def test_every_file_that_can_be_made_again_is_empty(finished: Path, run: Path) -> None:
    for name in DERIVED:
        if name != "BEST_WEIGHTS":  # best/model.pt is made of them.
            damaged(run, name, "empty")
    search(run.parent, resume=True, progress=False)
    assert figures(run) == figures(finished)


@pytest.mark.parametrize("damage", ["gone", "torn", "empty"])
def test_a_configuration_that_is_lost_is_one_line(run: Path, damage: str) -> None:
    damaged(run, "search.yaml", damage)
    for action in (
        lambda: summarise([kdsearch.open_run(run)]),
        lambda: search(run.parent, resume=True),
    ):
        with pytest.raises((RunError, ConfigError), match=r"search\.yaml") as refused:
            action()
        assert "\n" not in str(refused.value)


def test_what_cannot_be_made_again_is_trained_again(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, damage in zip(TRAINED, ("torn", "gone", "torn"), strict=True):
        damaged(run, name, damage)
    # All that a leaderboard needs of a finished trial is in its record.
    damaged(run, "trials/1/metrics.jsonl", "gone")
    assert "1 running or interrupted" in summarise([kdsearch.open_run(run)])
    search(run.parent, resume=True)
    assert "trial 0 is trained again" in capsys.readouterr().err
    assert [record.finished for record in RunFolder(run).records()] == [True, True]
    # The settings of a finished trial are in its record alone.
    before, after = (
        kdsearch.open_run(path).leaderboard().set_index("trial") for path in (finished, run)
    )
    assert after["val_auc"][1] == before["val_auc"][1]
    assert json.loads((run / "verdict.json").read_text())["sentences"]
    search(run.parent, resume=True)
    assert "nothing to do" in capsys.readouterr().err


def test_a_damaged_run_is_extended(finished: Path, run: Path) -> None:
    """Weights, verdict and description are lost when a trial is added."""
    for name in ("BEST_WEIGHTS", "teacher.json", "verdict.json", "study.journal"):
        damaged(run, name, "gone")
    shutil.rmtree(run / "best")
    extended = search(run.parent, resume=True, num_samples=3, progress=False)
    before = kdsearch.open_run(finished).leaderboard().set_index("trial")["val_auc"]
    after = extended.leaderboard().set_index("trial")["val_auc"]
    assert [after[0], after[1]] == [before[0], before[1]]
    assert len(after) == 3
    assert extended.metrics["trials"] == 3
    assert extended.damaged == []


def test_an_interrupted_run_that_is_damaged_ends(finished: Path, run: Path) -> None:
    record = run / "trials" / "1" / "trial.json"
    running = {"state": "running", "epochs": None, "order": None, "ended": ""}
    record.write_text(json.dumps(json.loads(record.read_text()) | running))
    for name in ("best", "confirm"):
        shutil.rmtree(run / name)
    for name in ("verdict.json", "costs.json", "evaluation.npz", "report.html"):
        (run / name).unlink()
    (run / ".unfinished").touch()
    for name in (
        "teacher.json",
        "teacher.pt",
        "leaderboard.csv",
        "study.journal",
        ".generation",
    ):
        damaged(run, name, "torn")
    assert "1 completed, 1 running or interrupted" in summarise([kdsearch.open_run(run)])
    search(run.parent, resume=True)
    assert figures(run) == figures(finished)
