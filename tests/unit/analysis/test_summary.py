"""What analyze.py prints of finished, running, killed, damaged and several runs."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from run_cases import CURVES, TEACHER, make_config, make_run
from search_cases import space_file

from kdsearch.analysis.run import open_run
from kdsearch.analysis.summary import _select, summarise
from kdsearch.analysis.terminal import Screen
from kdsearch.config.space_file import parse_config
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder

COLUMNS = [
    *("rank", "trial", "state", "val_auc", "best_epoch", "epochs"),
    *("temperature", "alpha", "w_adv"),
    *("seconds", "reason"),
]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "kd", teacher=True)


def summary(paths: list[Path], **options: Any) -> str:
    return summarise([open_run(path) for path in paths], **options)


def rows(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))


# Columns and formats.


def test_csv_and_json_hold_the_trials_alone_with_the_exact_columns(run: RunFolder):
    table = rows(summary([run.path], form="csv"))
    assert list(table.columns) == COLUMNS
    assert list(table["trial"]) == [0, 3, 1, 2]
    assert list(table["state"]) == ["completed", "running", "stopped", "failed"]
    assert list(table["rank"])[:3] == [1, 2, 3]
    assert table["rank"].isna()[3]
    plain = json.loads(summary([run.path], form="json"))
    assert [list(row) for row in plain] == [COLUMNS] * 4
    assert plain[0]["val_auc"] == 0.875
    assert plain[0]["best_epoch"] == 2
    assert plain[3]["rank"] is None
    assert plain[3]["reason"] == "boom"


def test_reading_a_run_refreshes_its_leaderboard(run: RunFolder):
    text = summary([run.path], form="csv")
    assert run.leaderboard_file.read_text() == text + "\n"


def test_markdown_has_a_row_a_trial_and_the_teachers(run: RunFolder):
    lines = [
        line
        for line in summary([run.path], form="markdown").splitlines()
        if line.startswith("| ")
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == COLUMNS
    assert [row[1] for row in cells[2:]] == ["0", "3", "1", "2", "teacher"]
    assert cells[-1] == ["-", "teacher", "", "0.9375", "3", "4", "-", "-", "-", "12.5", ""]


def test_the_table_tells_where_the_search_stands(run: RunFolder):
    text = summary([run.path])
    assert text.startswith(f"{run.path}: made-up waves\n")
    assert "The beats are simulated; the figures are not valid for patients." in text
    assert (
        "4 trials: 1 completed, 1 stopped early, 1 failed, 1 running or interrupted\n" in text
    )


def test_trials_to_come_are_counted(tmp_path: Path):
    run = make_run(tmp_path / "kd", {0: CURVES[0]})
    assert "4 trials: 1 completed, 3 to come" in summary([run.path])


def test_a_run_before_its_first_trial(tmp_path: Path):
    folder = RunFolder(tmp_path / "kd")
    folder.write_config(make_config().as_dict(), {})
    text = summary([folder.path])
    assert "4 trials: 4 to come" in text
    assert "best configuration" not in text
    assert list(rows(summary([folder.path], form="csv")).columns) == COLUMNS[:]


def test_a_run_whose_trials_all_failed_has_no_best(tmp_path: Path):
    run = make_run(tmp_path / "kd", {0: CURVES[2], 1: CURVES[2]})
    text = summary([run.path])
    assert "best configuration" not in text
    assert text.count("boom") == 2


def test_reasons_are_shown_only_where_there_are_any(tmp_path: Path):
    run = make_run(tmp_path / "kd", {0: CURVES[0], 1: CURVES[1]}, teacher=True)
    assert " reason" not in summary([run.path])
    assert " reason" in summary([make_run(tmp_path / "failed").path])
    assert "reason" in summary([run.path], form="csv").splitlines()[0]


# The best configuration.


def pasted(text: str) -> dict[str, Any]:
    _, block = text.split("ready to paste\n")
    found: dict[str, Any] = yaml.safe_load(block.split("\n\n")[0])
    return found


def test_the_best_configuration_is_that_of_the_best_trial(run: RunFolder):
    text = summary([run.path])
    assert f"# best configuration of {run.path} (trial 0), ready to paste" in text
    best = open_run(run.path).records[0]
    found, config = pasted(text), make_config()
    assert set(found) == {"student", "space"}
    assert best.params.items() <= found["space"].items()
    again = parse_config(space_file() | found, "pasted.yaml")
    assert again.student_settings({}) == config.student_settings(best.params)


def test_the_best_is_measured_on_the_test_beats_beside_the_teacher(run: RunFolder):
    test: dict[str, Any] = {
        "roc_auc": 0.75,
        "average_precision": 0.5,
        "confusion": {
            "threshold": 0.5,
            "sensitivity": 0.875,
            "specificity": 0.9375,
            "ppv": 0.25,
            "f1": 0.375,
        },
        "classes": {"N": {"n": 9, "specificity": 0.9375}, "V": {"n": 7, "roc_auc": 0.625}},
    }
    teacher = copy.deepcopy(test)
    del teacher["confusion"]["ppv"]
    metrics: dict[str, Any] = {
        "trial": 0,
        "student": {"test": test},
        "teacher": {"test": teacher | {"roc_auc": 0.6875}},
    }
    run.write_best({}, {}, metrics, {})
    (block,) = [b for b in summary([run.path]).split("\n\n") if b.lstrip().startswith("test")]
    lines = block.splitlines()
    assert lines[-1] == (
        "Sensitivity, specificity, PPV and F1 at the threshold with the best F1 on the "
        "validation beats."
    )
    figures = ["0.5000", "0.8750", "0.9375", "0.2500", "0.3750", "0.6250"]
    assert [line.split() for line in lines[:-1]] == [
        ["test", "AUC", "AP", "sensitivity", "specificity", "PPV", "F1", "AUC", "V"],
        ["trial", "0", "0.7500", *figures],
        ["teacher", "0.6875", *figures[:3], "-", *figures[4:]],
    ]

    for name, auc in (("student", 0.7), ("teacher", 0.6)):
        metrics[name]["test_new_patients"] = {"roc_auc": auc, "average_precision": 0.5}
    run.write_best({}, {}, metrics, {})
    assert (
        "\nWithout the test records of patients who have another record in training or "
        "validation: student AUC 0.7000, AP 0.5000; teacher AUC 0.6000, AP 0.5000.\n"
    ) in summary([run.path])


def difference(against: str, judgement: str, interval: tuple[float, float] | None) -> dict:
    low, high = interval or (None, None)
    estimate = None if interval is None else sum(interval) / 2
    figures = {"estimate": estimate, "low": low, "high": high}
    covers = [] if interval is None else ["seeds", "patients"]
    words = {"judgement": judgement, "sentence": f"On {against}.", "covers": covers}
    return {"of": "trial-0", "against": against, "per_seed": [], **words, **figures}


@pytest.mark.parametrize("width", [None, 100])
def test_the_verdict_is_a_short_table_and_one_sentence(run: RunFolder, width: int | None):
    verdict = {
        "chosen": "trial-0",
        "sentences": ["A long sentence for the report."],
        "baselines": [],
        "configurations": [
            {
                "name": "trial-0",
                "role": "candidate",
                "reason": "",
                "seeds": {
                    seed: dict.fromkeys(("val_auc", "val_ap", "test_auc", "test_ap"), auc)
                    for seed, auc in (("1", 0.75), ("2", 0.875))
                },
            }
        ],
        "differences": [
            difference("control-of-trial-0", "not distinguishable", (-0.25, 0.5)),
            difference("teacher", "better", (0.125, 0.25)),
            difference("three numbers", "not distinguishable", None),
            {**difference("teacher", "worse", (-1, -0.5)), "of": "trial-1"},
        ],
    }
    run.write_verdict(verdict)
    text = re.sub(r"\x1b\[[0-9;]*m", "", summary([run.path], screen=Screen(width)))
    (block,) = [b for b in text.split("\n\n") if b.startswith("verdict on trial 0")]
    head, columns, *rows, sentence, scope, reason = [
        " ".join(line.split()) for line in block.splitlines()
    ]
    assert head == (
        "verdict on trial 0, chosen on validation alone: test AUC 0.8125 ± 0.0884 over 2 seeds"
    )
    assert columns == "compared with difference 95 % interval verdict"
    assert rows == [
        "the same without distillation +0.1250 -0.2500 to +0.5000 not distinguishable",
        "the teacher's recipe +0.1875 +0.1250 to +0.2500 better",
        "three numbers - - not compared",
    ]
    assert sentence == (
        "Trial 0 is better than the teacher's recipe; not distinguishable from the same "
        "without distillation."
    )
    assert scope == "The intervals are for other seeds and other patients."
    assert reason == "On three numbers.", "what was not compared says why"
    assert "A long sentence" not in text


@pytest.mark.parametrize("width", [None, 200])
def test_no_name_in_a_run_is_markup_or_steers_the_terminal(run: RunFolder, width: int | None):
    hostile = "x\x1b[2J[/b]\n"
    config = yaml.safe_load(run.config_file.read_text())
    config["space"][hostile] = {"uniform": [0, 1]}
    run.config_file.write_text(yaml.safe_dump(config))
    test = {"roc_auc": 0.5, "average_precision": 0.5, "confusion": {"threshold": 0.5}}
    test["classes"] = {hostile: {"roc_auc": 0.5}}
    scores = {"test": test}
    run.write_best({}, {}, {"trial": 0, "student": scores, "teacher": scores}, {})
    record = run.trial(2).path / "trial.json"
    reason = {"reason": "why\x1b[31mred\x1b]0;title\x07"}
    record.write_text(json.dumps(json.loads(record.read_text()) | reason))
    text = re.sub(r"\x1b\[[0-9;]*m", "", summary([run.path], screen=Screen(width)))
    assert "\x1b" not in text
    assert "why [31mred" in text
    headings = [line for line in text.splitlines() if "x [2J[/b]" in line]
    assert len(headings) == 2, "of the leaderboard and of the test figures"


# Selecting and sorting.


def trials(run: RunFolder, **options: Any) -> list[int]:
    return list(rows(summary([run.path], form="csv", **options))["trial"])


def test_top_state_and_sort(run: RunFolder):
    assert trials(run, top=2) == [0, 3]
    assert trials(run, top=99) == [0, 3, 1, 2]
    assert trials(run, states=["failed"]) == [2]
    assert trials(run, states=["stopped", "failed"]) == [1, 2]
    assert trials(run, sort="trial") == [0, 1, 2, 3]
    assert trials(run, sort="val_auc") == [0, 2, 3, 1]
    assert trials(run, sort="seconds", top=1) == [0]
    assert trials(run, sort="reason")[-1] == 2
    by_alpha = open_run(run.path).records
    expected = sorted(by_alpha, key=lambda record: -float(record.params["alpha"]))
    assert trials(run, sort="alpha") == [record.number for record in expected]


def test_searched_epochs_have_a_column_of_their_own(tmp_path: Path):
    config = make_config().replace(space={"epochs": {"choice": [1, 3]}})
    run = make_run(tmp_path / "kd", {0: CURVES[0]}, config=config)
    table = rows(summary([run.path], form="csv"))
    assert table["epochs"][0] == 3
    assert table["space.epochs"][0] in (1, 3)
    assert "space.epochs" in summary([run.path])
    assert trials(run, sort="space.epochs") == [0]
    both = rows(summary([run.path, run.path], form="csv"))
    assert list(both["space.epochs"]) == [*table["space.epochs"]] * 2


def test_a_choice_of_words_and_numbers_is_sorted_as_text():
    mixed = [{"target": 1.5}, {"target": "score"}, {}, {"target": True}]
    table = pd.DataFrame([{"trial": n, **params} for n, params in enumerate(mixed)])
    assert list(_select(table, top=None, sort="target", states=None)["trial"]) == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "val_acu"}, r"--sort: there is no 'val_acu' \(did you mean 'val_auc'\?\)"),
        ({"sort": "zzz"}, r"--sort: there is no 'zzz' \(known: rank, trial, "),
        ({"states": ["fail"]}, r"--state: there is no 'fail' \(did you mean 'failed'\?\)"),
        ({"top": 0}, "--top: must be at least 1, but found 0"),
        ({"top": -3}, "--top: must be at least 1, but found -3"),
    ],
)
def test_selections_that_cannot_be(run: RunFolder, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        summary([run.path], **options)


def test_a_state_without_trials_leaves_the_head(tmp_path: Path):
    run = make_run(tmp_path / "kd", {0: CURVES[0]})
    assert trials(run, states=["failed"]) == []
    assert "1 completed, 3 to come" in summary([run.path], states=["failed"])


# Several runs.


def test_several_runs_are_ranked_together(tmp_path: Path):
    one = make_run(tmp_path / "one", {0: CURVES[0], 1: CURVES[2]}, teacher=True)
    two = make_run(
        tmp_path / "two",
        {0: ("completed", [0.9]), 1: ("completed", [0.875])},
        teacher=True,
        space={"lr": {"uniform": [0.001, 0.002]}, "w_adv": 1.0},
    )
    text = summary([one.path, two.path], form="csv")
    table = rows(text)
    assert list(table.columns) == [
        *("run", "rank", "trial", "state", "val_auc", "best_epoch", "epochs"),
        *("temperature", "alpha", "w_adv", "lr"),
        *("seconds", "reason"),
    ]
    names = [Path(run).name for run in table["run"]]
    found = list(zip(names, table["trial"], table["rank"].fillna(-1), strict=True))
    assert found == [("two", 0, 1), ("one", 0, 2), ("two", 1, 2), ("one", 1, -1)]
    assert table["lr"].isna().tolist() == [False, True, False, True]
    shown = summary([one.path, two.path])
    assert shown.count("ready to paste") == 2
    teachers = [line for line in shown.splitlines() if " teacher " in line]
    assert [line.split()[0] for line in teachers] == [str(one.path), str(two.path)]


def test_an_empty_run_beside_a_full_one(tmp_path: Path):
    one = make_run(tmp_path / "one", {0: CURVES[0]})
    two = make_run(tmp_path / "two", {})
    table = rows(summary([one.path, two.path], form="csv"))
    assert list(table["trial"]) == [0]
    assert list(table["rank"]) == [1]


def test_runs_over_different_data_are_not_ranked_together(tmp_path: Path):
    one, two = (make_run(tmp_path / name, teacher=True) for name in ("one", "two"))
    other = {**TEACHER, "data": {**TEACHER["data"], "fingerprint": "e" * 64}}
    two.write_teacher({}, other)
    with pytest.raises(ConfigError, match=r"one and .*two: searches over different data") as no:
        summary([one.path, two.path], form="csv")
    assert "fingerprints dddddddddddd and eeeeeeeeeeee" in str(no.value)
    assert summary([two.path])


@pytest.mark.parametrize(
    ("auc", "hint"),
    [
        (
            1.0,
            "validation AUC is 1, so the validation beats cannot rank the trials (data.",
        ),
        (0.25, "validation AUC is 0.2500, which is worse than chance (0.5000): check which"),
    ],
)
def test_a_best_auc_that_means_little_has_a_hint(tmp_path: Path, auc: float, hint: str):
    limited = {"data": {"validation_limit": 2}}
    run = make_run(tmp_path / "kd", {0: ("completed", [auc])}, **limited)
    assert f"Hint: the best {hint}" in summary([run.path])
    usual = make_run(tmp_path / "usual", {0: ("completed", [0.75])}, **limited)
    assert "Hint" not in summary([usual.path])


# Damage.


def test_a_trial_without_a_readable_record_is_unfinished(run: RunFolder):
    (run.trial(0).path / "trial.json").write_text("{")
    table = rows(summary([run.path], form="csv")).set_index("trial")
    assert set(table.index) == {0, 1, 2, 3}
    assert list(table["state"][[0, 1]]) == ["running", "stopped"]
    assert table["reason"][0].startswith("trial.json is damaged: Invalid JSON")


def test_no_study_is_needed(run: RunFolder):
    assert not run.study_file.exists()
    run.study_file.write_text("nonsense")
    assert trials(run) == [0, 3, 1, 2]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.config_file.write_text("a: ["), r"search\.yaml: broken YAML"),
        (lambda run: run.config_file.write_text(""), r"search\.yaml: damaged"),
        (lambda run: run.config_file.write_text("space: {}"), r"search\.yaml: damaged"),
        (lambda run: run.config_file.unlink(), r"not a run folder, it has no search\.yaml"),
        (
            lambda run: run.config_file.write_text("student: {}\nspace: {}\nsearch: {}"),
            r"search\.yaml: damaged: search\.num_samples",
        ),
    ],
)
def test_damage_is_an_error_of_the_user(
    run: RunFolder, damage: Callable[[RunFolder], object], message: str
):
    damage(run)
    with pytest.raises((RunError, ConfigError), match=message) as refused:
        summary([run.path])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["teacher.json", "verdict.json", "costs.json", "metrics.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"trial": "x", "val_auc": []}'])
def test_a_damaged_result_is_a_line_and_left_out(run: RunFolder, name: str, content: str):
    folder = run.best if name == "metrics.json" else run.path
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    text = summary([run.path])
    whole = name == "costs.json" and content.startswith("{") and content != "{"
    said = [line for line in text.splitlines() if "--resume computes it again" in line]
    assert len(said) == (0 if whole else 1)
    assert all(line.startswith(f"{folder / name}: ") for line in said)
    assert trials(run) == [0, 3, 1, 2]


def test_no_run_is_an_error_of_the_user(tmp_path: Path):
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        summary([tmp_path / "nowhere"])
