"""The page of results is what its tables give, and a table goes on where it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from experiments.page import page  # noqa: E402
from experiments.searches import ARMS, space_of  # noqa: E402
from experiments.table import Table, read  # noqa: E402


def test_the_page_of_results_is_made_from_the_tables():
    kept = (ROOT / "docs" / "results.md").read_text()
    assert page() == kept, "python -m experiments.page > docs/results.md"


def test_the_published_form_is_no_distillation_to_the_last_digit():
    rows = read(ROOT / "experiments" / "results" / "published.csv")
    by_recipe = {
        name: {
            row["seed"]: row
            for row in rows
            if row["recipe"] == name and row["budget"] == "reduced"
        }
        for name in ("no distillation", "published (DistillKL)", "score KL")
    }
    none, published, score = by_recipe.values()
    assert published
    for seed, row in published.items():
        same = ("val_auc", "test_auc", "test_ap", "last_val_auc", "weights_sum")
        assert [row[key] for key in same] == [none[seed][key] for key in same]
        assert float(row["last_distillation_loss"]) > 0
        assert score[seed]["weights_sum"] != none[seed]["weights_sum"]


def test_searches_of_equal_compute_differ_in_what_they_distil_alone():
    spaces = [space_of(arm).as_dict() for arm in ARMS]
    for section in ("method", "data", "teacher", "search", "scheduler", "confirm"):
        assert all(space[section] == spaces[0][section] for space in spaces)
    for space in spaces:
        drawn_first = list(space["space"])[:2], [space["space"][key] for key in ("lr", "w_adv")]
        assert drawn_first == (["lr", "w_adv"], list(spaces[0]["space"].values())[:2])
        changed = {key for key, v in space["student"].items() if v != spaces[0]["student"][key]}
        assert changed <= {"target", "init", "width"}


def test_a_table_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = Table("some.csv", ("name", "seed"), tmp_path)
    table.add({"name": "a, b", "seed": 1, "auc": 0.123456789012})
    again = Table("some.csv", ("name", "seed"), tmp_path)
    assert again.has("a, b", 1)
    assert not again.has("a, b", 2)
    again.add({"name": "a, b", "seed": 1, "auc": 0.9})
    again.add({"name": "a, b", "seed": 2, "auc": 0.5})
    assert [row["auc"] for row in read(tmp_path / "some.csv")] == ["0.123456789", "0.5"]
    assert capsys.readouterr().out.count("seed") == 2
