"""The leaderboard: order, ranks and columns, and that its texts can be read back."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from search_cases import space_file

from kdsearch.analysis.leaderboard import best_record, best_yaml, leaderboard, render
from kdsearch.config.space_file import parse_config
from kdsearch.runs.trial_folder import TrialRecord

SEARCHED = ["temperature", "target"]
COLUMNS = [
    *("rank", "trial", "state", "val_auc", "best_epoch", "epochs"),
    *("temperature", "target"),
    *("seconds", "reason"),
]


def record(number: int, state: str, curve: dict[int, float], reason: str = "") -> TrialRecord:
    params = {"temperature": 0.1 + number / 3, "target": "score"}
    return TrialRecord(number, state, params, curve, 1.5 * len(curve), reason)


COMPLETED = record(0, "completed", {1: 0.7, 2: 0.9, 3: 0.9})
STOPPED = record(1, "stopped", {1: 0.95})
FAILED_LATE = record(2, "failed", {1: 0.99}, "the loss became nan in epoch 2")
TIED = record(3, "completed", {1: 0.5, 2: 0.6, 3: 0.9})
RUNNING = record(4, "running", {1: 0.8})
STARTING = record(5, "running", {})
FAILED_AT_ONCE = record(6, "failed", {}, 'a "reason", with | and\nlines')
TORN = TrialRecord(7, "running", {"temperature": 2.5})
LAST = record(8, "completed", {1: 0.1 + 0.2, 2: 1 / 3})
ALL = [COMPLETED, STOPPED, FAILED_LATE, TIED, RUNNING, STARTING, FAILED_AT_ONCE, TORN, LAST]
EXPECTED = {1: 1, 0: 2, 3: 2, 4: 4, 8: 5, 2: None, 5: None, 6: None, 7: None}


@pytest.mark.parametrize("records", [ALL, ALL[::-1], ALL[4:] + ALL[:4]])
def test_ranks_and_order(records: list[TrialRecord]):
    table = leaderboard(records, SEARCHED)
    assert list(table.columns) == COLUMNS
    ranks = [None if pd.isna(rank) else int(rank) for rank in table["rank"]]
    assert dict(zip(table["trial"], ranks, strict=True)) == EXPECTED
    assert list(table["trial"]) == list(EXPECTED)


def test_a_row_tells_what_the_study_knows():
    row = leaderboard([COMPLETED], SEARCHED).iloc[0].to_dict()
    assert row == {
        "rank": 1,
        "trial": 0,
        "state": "completed",
        "val_auc": 0.9,
        "best_epoch": 2,
        "epochs": 3,
        "temperature": 0.1,
        "target": "score",
        "seconds": 4.5,
        "reason": "",
    }


def test_an_empty_study_has_every_column_and_no_row():
    table = leaderboard([], SEARCHED)
    assert list(table.columns) == COLUMNS
    assert len(table) == 0
    assert render(table, "csv") == ",".join(COLUMNS)
    assert json.loads(render(table, "json")) == []
    assert render(table, "markdown").splitlines()[0] == "| " + " | ".join(COLUMNS) + " |"


def test_only_failed_trials_have_no_rank_and_no_best():
    failed = [FAILED_AT_ONCE, FAILED_LATE]
    table = leaderboard(failed, SEARCHED)
    assert table["rank"].isna().all()
    assert list(table["trial"]) == [2, 6]
    assert best_record(failed) is None
    assert best_record([]) is None
    assert best_record([STARTING, TORN]) is None


def test_the_best_is_the_first_row_and_of_equals_the_earlier_trial():
    assert best_record(ALL) == STOPPED
    assert best_record([TIED, COMPLETED]) == COMPLETED
    assert best_record([FAILED_LATE, RUNNING]) == RUNNING
    for records in (ALL, ALL[3:], [TIED, COMPLETED]):
        assert leaderboard(records, SEARCHED)["trial"][0] == best_record(records).number


def missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def test_csv_comes_back_exactly():
    table = leaderboard(ALL, SEARCHED)
    found = pd.read_csv(io.StringIO(render(table, "csv")), float_precision="round_trip")
    assert list(found.columns) == COLUMNS
    assert len(found) == len(ALL)
    for column in COLUMNS:
        for value, expected in zip(found[column], table[column], strict=True):
            if missing(expected) or expected == "":
                assert missing(value)
            else:
                assert value == expected


def test_json_comes_back_exactly():
    table = leaderboard(ALL, SEARCHED)
    text = render(table, "json")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [list(row) for row in found] == [COLUMNS] * len(ALL)
    for row, expected in zip(found, table.to_dict("records"), strict=True):
        for column in COLUMNS:
            if missing(expected[column]):
                assert row[column] is None
            else:
                assert row[column] == expected[column]
    assert isinstance(found[0]["rank"], int)
    assert isinstance(found[0]["trial"], int)


def test_json_keeps_every_digit_of_a_small_number():
    tiny = TrialRecord(0, "completed", {"lr": 1.2345678901234567e-05}, {1: 1 / 3}, 0.1)
    (row,) = json.loads(render(leaderboard([tiny], ["lr"]), "json"))
    assert row["lr"] == 1.2345678901234567e-05
    assert row["val_auc"] == 1 / 3


def test_markdown_is_one_line_a_trial():
    lines = render(leaderboard(ALL, SEARCHED), "markdown").splitlines()
    assert len(lines) == 2 + len(ALL)
    assert lines[0] == "| " + " | ".join(COLUMNS) + " |"
    assert lines[1] == "|" + " --- |" * len(COLUMNS)
    cells = [line.replace("\\|", "¦").strip("|").split("|") for line in lines]
    assert {len(row) for row in cells} == {len(COLUMNS)}
    first = [cell.strip() for cell in cells[2]]
    assert first == ["1", "1", "stopped", "0.9500", "1", "1", "0.433", "score", "1.5", ""]
    assert lines[-2].endswith('| a "reason", with \\| and |')


def test_the_table_rounds_and_marks_what_is_missing():
    lines = render(leaderboard([COMPLETED, STARTING], SEARCHED), "table").splitlines()
    assert lines[0].split() == COLUMNS
    assert lines[1].split() == [
        "1",
        "0",
        "completed",
        "0.9000",
        "2",
        "3",
        "0.1",
        "score",
        "4.5",
    ]
    assert lines[2].split() == ["-", "5", "running", "-", "0", "0", "1.77", "score", "0.0"]


STACK = """[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate \
memory: you tried to allocate 137438953472 bytes. Error code 12 (Cannot allocate memory)
frame #0: c10::ThrowEnforceNotMet(char const*, int, char const*, std::string const&) + 0x4a
frame #1: alloc_cpu + 0x21f
"""


def test_a_reason_is_one_line_of_words():
    reasons = [STACK, "", "word " * 500, "\n\n  too late\nand more"]
    table = leaderboard([record(n, "failed", {}, r) for n, r in enumerate(reasons)], [])
    first, second, third, fourth = table["reason"]
    assert first == (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 137438953472 "
        "bytes. Error code 12 (Cannot allocate memory)"
    )
    assert (second, fourth) == ("", "too late")
    assert len(third) == 200
    assert third.endswith("word wo...")


def test_no_searched_setting_takes_the_place_of_a_column():
    names = [*COLUMNS[:6], "seconds", "reason", "run"]
    trial = TrialRecord(0, "completed", dict.fromkeys(names, 7), {1: 0.5}, 1.0)
    table = leaderboard([trial], names)
    assert list(table.columns) == [
        *COLUMNS[:6],
        *(f"space.{name}" for name in names),
        *("seconds", "reason"),
    ]
    row = json.loads(render(table, "json"))[0]
    assert (row["epochs"], row["space.epochs"]) == (1, 7)


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_reason_cannot_steer_the_terminal(form: str):
    hostile = record(0, "failed", {}, "\x1b[2Jgone\r\n\x07")
    shown = render(leaderboard([hostile], SEARCHED), form)
    assert not any(ord(character) < 32 for character in shown.replace("\n", ""))
    assert " [2Jgone" in shown
    assert len(shown.splitlines()) == (2 if form == "table" else 3)


def test_the_best_configuration_can_be_pasted_into_a_space_file():
    config = parse_config(space_file(), "kd.yaml")
    params = {"temperature": 1.2345678901234567e-05, "alpha": 0.25, "w_adv": 3.0}
    pasted = config.as_dict() | yaml.safe_load(best_yaml(config.as_dict(), params))
    again = parse_config(pasted, "pasted.yaml")
    assert again.student_settings({}) == config.student_settings(params)
    for key, value in params.items():
        opened = pasted["space"] | {key: config.as_dict()["space"][key]}
        again = parse_config(pasted | {"space": opened}, "pasted.yaml")
        assert again.student_settings({key: value}) == config.student_settings(params)


def test_a_space_without_a_word_column_needs_none():
    table = leaderboard([TORN, COMPLETED], ["temperature"])
    assert list(table.columns) == [column for column in COLUMNS if column != "target"]


def test_the_front_is_marked_where_a_cost_is_an_objective():
    sizes = {0: 300, 1: 300, 3: 100, 4: 50, 8: 400}
    records = [replace(one, costs={"parameters": sizes.get(one.number, 1)}) for one in ALL]
    records += [record(9, "completed", {1: 0.4})]
    table = leaderboard(records, SEARCHED, ["parameters"])
    assert list(table.columns) == [*COLUMNS[:-2], "parameters", "front", *COLUMNS[-2:]]
    marked = table[table["front"] == "yes"]
    assert list(marked["trial"]) == [1, 3, 4], "best first, none that failed or has no size"
    assert list(marked["parameters"]) == [300, 100, 50]
