"""What a search takes over from an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from search_cases import space_file, write_trial

from kdsearch.config.space_file import Config, parse_config
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.learned import from_json, to_json
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.earlier_runs import learn_from

PARAMS = {"temperature": 2.0, "alpha": 0.1, "w_adv": 1.0}
RECORDS = [
    TrialRecord(0, "completed", PARAMS, {1: 0.5, 2: 0.75}, order=0),
    TrialRecord(1, "stopped", {**PARAMS, "alpha": 0.01}, {1: 0.625}, order=1),
    TrialRecord(2, "failed", PARAMS, {}, order=2, reason="boom"),
    TrialRecord(3, "running", PARAMS, {1: 0.9}),
    TrialRecord(4, "completed", {**PARAMS, "temperature": 0.5}, {1: 0.875}, order=3),
]


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    folder = RunFolder(tmp_path / "a")
    folder.write_config(config().as_dict(), {})
    for record in RECORDS:
        write_trial(folder, record)
    return str(folder.path)


def config(**space: Any) -> Config:
    return parse_config(space_file(space=space), "kd.yaml")


def test_finished_trials_are_taken(earlier: str):
    learned = learn_from(earlier, config())
    assert [(r.number, r.params, r.curve) for r in learned.trials] == [
        (r.number, r.params, r.curve) for r in RECORDS if r.number in (0, 1, 4)
    ]
    assert learned.best() == [RECORDS[n].params for n in (4, 0, 1)]
    assert str(learned) == f"learned from {earlier}: 3 trials; its best are tried first"
    assert from_json(to_json([learned]).encode(), "learned.json") == [learned]


def test_trials_of_a_search_by_another_metric_count_with_the_new_one(earlier: str):
    by_precision = parse_config(space_file(search={"metric": "val_ap"}), "kd.yaml")
    learned = learn_from(earlier, by_precision)
    # Here the average precision of every epoch is half its AUC.
    assert [r.curve for r in learned.trials] == [{1: 0.25, 2: 0.375}, {1: 0.3125}, {1: 0.4375}]
    assert "3 trials, judged by their val_ap; its best" in str(learned)
    assert from_json(to_json([learned]).encode(), "learned.json") == [learned]


def test_trials_outside_the_new_bounds_are_left_out_and_counted(earlier: str):
    learned = learn_from(earlier, config(temperature={"loguniform": [1, 8]}))
    assert [r.number for r in learned.trials] == [0, 1]
    assert "2 trials (1 more are outside this space); " in str(learned)


def test_what_was_fixed_there_has_its_value(earlier: str):
    learned = learn_from(earlier, config(lr={"loguniform": [1e-4, 1e-2]}, alpha=0.3))
    assert learned.trials[0].params == {
        "temperature": 2.0,
        "w_adv": 1.0,
        "lr": 0.001,
    }


def test_another_kind_of_setting_is_refused(earlier: str):
    with pytest.raises(
        ConfigError, match=r"a searches another kind of 'alpha': float, here ch"
    ):
        learn_from(earlier, config(alpha={"choice": [0.1, 1]}))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        learn_from(str(tmp_path / "nowhere"), config())


@pytest.mark.parametrize("content", [b"", b"{", b"[{}]", b'[{"run": "a", "trials": [1]}]'])
def test_a_damaged_copy_is_one_line(content: bytes):
    with pytest.raises(RunError, match=r"learned\.json: damaged: ") as refused:
        from_json(content, "learned.json")
    assert "\n" not in str(refused.value)
