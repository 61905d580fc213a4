"""A search that maximises the average precision, where that ranks trials differently."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from run_cases import make_config, make_run
from search_cases import tiny_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdsearch.analysis.follow import headline
from kdsearch.analysis.optuna_storage import write_optuna
from kdsearch.analysis.report import html
from kdsearch.analysis.run import Run, open_run
from kdsearch.analysis.summary import summarise
from kdsearch.analysis.tensorboard import write_tensorboard
from kdsearch.errors import ConfigError
from kdsearch.evaluation.adaptive import SeedResult, plan
from kdsearch.evaluation.descent import Generation, is_better
from kdsearch.evaluation.verdict import Confirmed, Costs, choose, conclude
from kdsearch.methods.protocol import EpochReport, TrainedEpoch
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.statistics import area
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study_view import OptunaTarget
from kdsearch.tuning.confirm import candidates
from kdsearch.tuning.progress import SearchProgress
from kdsearch.tuning.workers.training import Trainer, Training

BY_PRECISION = {"metric": "val_ap"}
# Of a third abnormal beats: one normal beat is above all of them, or one of them is below all
# normal ones. The first has the better AUC, the second the better average precision.
BETTER_AUC, BETTER_AP = (0.875, 0.679), (0.75, 0.833)
EPOCHS = {0: [BETTER_AUC], 1: [BETTER_AP], 2: [BETTER_AUC, BETTER_AP]}
BEATS = tiny_dataset().training.validation


def scores(better: tuple[float, float]) -> np.ndarray:
    abnormal, normal = np.flatnonzero(BEATS.abnormal), np.flatnonzero(~BEATS.abnormal)
    found = np.zeros(len(BEATS.abnormal), dtype=np.float32)
    if better == BETTER_AUC:
        found[abnormal], found[normal[0]] = 1, 2
    else:
        found[abnormal], found[abnormal[0]] = 1, -1
    return found


def test_the_two_metrics_disagree():
    for better in (BETTER_AUC, BETTER_AP):
        ranking = rank(scores(better) + np.linspace(0, 0.1, 12), BEATS.abnormal)
        found = ranking.roc_auc(), ranking.average_precision()
        assert found == pytest.approx(better, abs=1e-3)


def reports(epochs: list[tuple[float, float]]) -> list[EpochReport]:
    return [EpochReport(n, {}, 0.25, *figures) for n, figures in enumerate(epochs, start=1)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    curves = {
        number: ("running" if number == 2 else "completed", [ap for _, ap in epochs])
        for number, epochs in EPOCHS.items()
    }
    folder = make_run(tmp_path / "kd", curves, teacher=True, search=BY_PRECISION)
    for number, epochs in EPOCHS.items():
        folder.trial(number).write_history(reports(epochs))
    return open_run(folder.path)


class Scripted:
    """A stack of one student: an epoch of the better AUC, then one of the better AP."""

    slots, steps, epoch = 1, 1, 0

    def put_in(self, slot: int, settings: Any, *, seed: int, state: Any = None) -> None:
        pass

    def advance(self, steps: int) -> dict[int, TrainedEpoch]:
        self.epoch += 1
        found = scores(BETTER_AUC if self.epoch == 1 else BETTER_AP) + np.linspace(0, 0.1, 12)
        return {0: TrainedEpoch(self.epoch, {}, 0.1, found)}

    def save(self, slot: int) -> dict[str, Any]:
        return {"epoch": self.epoch}

    weights = save


@pytest.mark.parametrize(("metric", "epoch"), [("val_auc", 1), ("val_ap", 2)])
def test_the_best_epoch_is_chosen_by_the_metric(tmp_path: Path, metric: Any, epoch: int):
    folder, stack = RunFolder(tmp_path).trial(0), Scripted()
    settings: Any = type("Settings", (), {"epochs": 2})
    training = Training(settings, seed=0, folder=folder, metric=metric)
    training.enter(stack, 0)
    trainer = Trainer(BEATS, 1, behind=False)
    for _ in range(2):
        assert trainer.advance(stack, [training]) == {}
    assert training.best.epoch == epoch
    assert folder.best_weights() == {"epoch": epoch}
    assert training.result(2)["best_so_far"] == training.history[epoch - 1].value(metric)


def test_an_unfinished_trial_is_judged_by_its_epochs_precision(run: Run):
    assert run.records[2].curve == {1: 0.679, 2: 0.833}
    assert run.folder.records("val_auc")[2].curve == {1: 0.875, 2: 0.875}


def test_trials_are_ranked_by_precision(run: Run):
    table = run.leaderboard()
    assert list(table.columns[:4]) == ["rank", "trial", "state", "val_ap"]
    assert list(table["trial"]) == [1, 2, 0]
    assert run.best is not None
    assert (run.best.trial, run.best.value) == (1, 0.833)
    assert "best val_ap 0.8330" in repr(run)
    assert headline(run).endswith("best val_ap 0.8330 (trial 1)")


def test_what_people_read_names_the_metric(run: Run):
    said = summarise([run])
    assert "val_ap" in said
    assert "val_auc" not in said
    assert "0.7500" in said.split("teacher")[1]
    page = html(run)
    assert "Validation AP by epoch" in page
    assert "val_auc" not in page
    assert "alidation AUC" not in page


def test_the_progress_line_names_the_metric(run: Run):
    progress = SearchProgress(Console(file=io.StringIO()), 4, run.records, run.metric)
    assert "best val_ap 0.8330 (trial 1: " in progress.line().plain


def test_other_programs_see_the_metric(run: Run, tmp_path: Path):
    import optuna  # noqa: PLC0415

    target = OptunaTarget.parse(str(tmp_path / "k.log"))
    write_optuna([run], target)
    study = optuna.load_study(study_name="kd", storage=target.open())
    assert study.metric_names == ["val_ap"]
    assert study.best_trial.number == 1
    assert study.user_attrs["teacher's val_ap"] == 0.75
    write_tensorboard([run], tmp_path / "board")
    events = EventAccumulator(str(tmp_path / "board" / "kd" / "trial-002")).Reload()
    assert [e.value for e in events.Scalars("final/best_epoch")] == [2]


def test_a_precision_below_the_share_of_abnormal_beats_has_a_hint(tmp_path: Path):
    for value, said in ((0.1, True), (0.3, False)):
        curves = {0: ("completed", [value])}
        folder = make_run(tmp_path / str(value), curves, teacher=True, search=BY_PRECISION)
        hint = "Hint: the best validation AP is 0.1000, which is worse than chance (0.1250)"
        assert (hint in summarise([open_run(folder.path)])) == said


def test_searches_by_different_metrics_are_not_ranked_together(run: Run, tmp_path: Path):
    other = make_run(tmp_path / "other", {0: ("completed", [0.9])})
    message = r"kd and .*other: a search by val_ap and one by val_auc cannot be ranked together"
    with pytest.raises(ConfigError, match=message):
        summarise([run, open_run(other.path)])


def test_the_best_by_precision_are_confirmed(run: Run):
    config = make_config(search=BY_PRECISION, confirm={"top": 1})
    records = [r for r in run.records if r.finished]
    assert "trial-1" in [c.name for c in candidates(config, records)]


def result(better: tuple[float, float], seed: int = 0) -> SeedResult:
    found = scores(better) + np.linspace(0, 0.1, 12)
    of_test = area(found, BEATS.abnormal, None)
    return SeedResult(better[0] + seed / 1000, of_test, better[1] + seed / 1000)


def test_the_candidate_is_chosen_by_the_metric():
    confirmed = [
        Confirmed(name, "candidate", {seed: result(better, seed) for seed in (1, 2, 3)})
        for name, better in (("trial-0", BETTER_AUC), ("trial-1", BETTER_AP))
    ]
    assert choose(confirmed, "val_auc") == "trial-0"
    assert choose(confirmed, "val_ap") == "trial-1"


def test_an_adaptive_confirmation_follows_the_metric():
    roles = {"trial-0": "candidate", "trial-1": "candidate"}

    def read(name: str, position: int) -> SeedResult:
        return result(BETTER_AUC if name == "trial-0" else BETTER_AP, position % 2)

    assert plan(roles, 9, read, "val_auc").leader == "trial-0"
    planned = plan(roles, 9, read, "val_ap")
    assert planned.leader == "trial-1"
    assert planned.reasons["trial-0"] == "dropped after 3 seeds, because trial 1 is better"


def test_the_smallest_student_is_judged_by_the_metric(tmp_path: Path):
    dataset, folder = tiny_dataset(), RunFolder(tmp_path)
    roles = {"trial-0": "candidate", "trial-1": "candidate"}
    for name in roles:
        for seed in (1, 2, 3):
            kept = folder.confirmation(name, seed)
            found = scores(BETTER_AUC if name == "trial-0" else BETTER_AP)
            found = (found + np.linspace(0, 0.1, 12)).astype(np.float32)
            kept.write_scores({"validation": found, "test": found})
            kept.write_result({"best_epoch": 1, "epochs": 1, "seconds": 1.0})
    costs = Costs("parameters", {"trial-0": 10, "trial-1": 20})
    verdict = conclude(folder, roles, [1, 2, 3], dataset, {}, costs=costs, metric="val_ap")
    assert verdict["chosen"] == "trial-1"
    # Equal with all seeds: worse beyond doubt.
    assert verdict["smallest"]["name"] == "trial-1"
    by_auc = conclude(folder, roles, [1, 2, 3], dataset, {}, costs=costs)
    assert by_auc["chosen"] == by_auc["smallest"]["name"] == "trial-0"
    json.dumps(verdict, allow_nan=False)


def test_generations_are_compared_by_the_metric(tmp_path: Path):
    line = [
        Generation(
            number,
            RunFolder(tmp_path),
            number,
            Confirmed("g", "generation", {1: result(better)}),
            None,
            "val_ap",
        )
        for number, better in ((1, BETTER_AUC), (2, BETTER_AP))
    ]
    assert is_better(line[1], line[0])
    assert not is_better(replace(line[1], metric="val_auc"), replace(line[0], metric="val_auc"))
