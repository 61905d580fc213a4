"""The pages of results have the tables as they are, and a table goes on where it was."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from kdsearch.data.beats import Moments

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from experiments.memory import FURTHER, MAIN, SEEDS  # noqa: E402
from experiments.patients import FOLDS, Patients, intervals_around  # noqa: E402
from experiments.searches import ARMS, space_of  # noqa: E402
from experiments.table import Table, read  # noqa: E402
from experiments.tables import tables, wilcoxon  # noqa: E402

PAGES = "\n".join(
    (ROOT / "docs" / name).read_text() for name in ("results.md", "results-beatgan.md")
)
# Published by BeatGAN's authors, and means over seeds that no row of a table has.
QUOTED = {"0.9458", "0.9108", "0.9071", "0.0169"}


@pytest.mark.parametrize("name", tables())
def test_the_pages_of_results_have_the_tables_as_they_are_printed(name: str):
    assert f"<!-- {name} -->\n\n{tables()[name]}\n" in PAGES, "python -m experiments.tables"


def test_figures_in_the_text_of_the_pages_are_those_of_their_tables():
    lines = PAGES.splitlines()
    text = "\n".join(line for line in lines if not line.startswith("|"))
    of_tables = "\n".join(tables().values())
    figures = set(re.findall(r"\b0\.\d{4}\b", text)) - QUOTED
    assert figures, "the text quotes the tables"
    assert {figure for figure in figures if figure not in of_tables} == set()


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
        assert changed <= {"target"}


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


def test_nothing_is_left_to_search_and_nothing_in_the_tables_is_unknown():
    results = ROOT / "experiments" / "results"
    assert {row["arm"] for row in read(results / "searches.csv")} == set(ARMS)
    trained = {
        (row["split"], row["recipe"], int(row["seed"]))
        for row in read(results / "students.csv")
    }
    assert trained == {
        (split, recipe, seed)
        for split, further in FURTHER.items()
        for recipe in (*MAIN, *further)
        for seed in SEEDS
    }


def test_the_sentence_over_all_external_tasks_is_what_the_test_says():
    every = read(ROOT / "experiments" / "results" / "external.csv")
    rows = [row for row in every if row["space"] == "memory"]
    assert len(rows) == 16
    text = " ".join(PAGES.split())
    for name in ("plain", "teacher", "baseline"):
        median, above, p_value = wilcoxon(rows, name)
        figures = rf"{median:+.3f}(, is above 0 in|,) {above}, (and Wilcoxon's )?p (is )?"
        assert re.search(rf"{figures}{p_value:.3f}", text), name


def test_folds_of_patients_share_no_record_and_score_no_beat_that_is_adapted_to():
    rng = np.random.default_rng(0)
    record = np.repeat([f"r{i}" for i in range(11)], 20)
    classes = np.where(rng.uniform(size=220) < 0.2, "V", "N")
    x = np.arange(220, dtype=np.float32)[:, None, None]
    scored = np.tile(np.arange(20) >= 7, 11)
    data = Patients(x, classes, record, scored)
    asked = []
    for train, rows in data.folds():
        learned = train[:, 0, 0].astype(int)
        assert set(record[learned]).isdisjoint(record[rows])
        assert (classes[learned] == "N").all()
        asked.append(rows)
    assert len(asked) == FOLDS
    np.testing.assert_array_equal(np.sort(np.concatenate(asked)), np.flatnonzero(scored))


def test_intervals_of_the_beats_around():
    moments = Moments.of_times(np.cumsum([1.0, 1.0, 1.0, 0.5, 1.5, 2.0, 2.0, 2.0]))
    found = intervals_around(np.full(8, "a"), moments, 1, 0.5)
    np.testing.assert_allclose(found, [1, 1, 1, 1, 1.5, 2, 2, 2])
