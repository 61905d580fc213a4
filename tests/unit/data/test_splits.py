"""Splits: published sizes, nothing on two sides, and clear words where none is possible."""

import numpy as np
import pytest

from kdsearch.data import Beats, DataSettings
from kdsearch.data.mitbih import DS1, DS2
from kdsearch.data.splits import (
    DS1_VALIDATION,
    limit_training,
    limit_validation,
    resolve,
    split,
)
from kdsearch.errors import DataError

MITBIH = {"N": 86_717, "S": 3_026, "V": 7_008, "F": 802, "Q": 15}


def beats_of(classes, record=None) -> Beats:
    classes = np.array(classes)
    x = np.zeros((len(classes), 1, 32), dtype=np.float32)
    record = None if record is None else np.array(record)
    return Beats(x, classes, record, "0" * 64, "hand-made beats")


def beats_by_count(counts: dict[str, int]) -> Beats:
    return beats_of(np.repeat(list(counts), list(counts.values())))


def counts_of(beats: Beats, rows) -> dict[str, int]:
    names, counts = np.unique(beats.classes[rows], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def assert_disjoint(parts) -> None:
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    assert len(np.unique(rows)) == len(rows)


def test_the_fold_split_has_the_published_sizes():
    beats = beats_by_count(MITBIH)
    parts = split(beats, DataSettings(split="fold", fold=3))
    assert counts_of(beats, parts.train) == {"N": 62_437}
    assert counts_of(beats, parts.validation) == {
        "N": 6_937,
        "S": 302,
        "V": 700,
        "F": 80,
        "Q": 1,
    }
    assert counts_of(beats, parts.test) == {
        "N": 17_343,
        "S": 2_724,
        "V": 6_308,
        "F": 722,
        "Q": 14,
    }
    assert_disjoint(parts)


def test_each_normal_beat_but_the_rest_of_the_division_is_tested_in_one_fold():
    beats = beats_by_count({"N": 103, "V": 20})
    parts = [split(beats, DataSettings(fold=fold)) for fold in range(5)]
    tested = np.concatenate([p.test[beats.classes[p.test] == "N"] for p in parts])
    assert len(tested) == len(np.unique(tested)) == 100
    # The abnormal beats are divided the same way in every fold, as published.
    for p in parts:
        np.testing.assert_array_equal(p.test[-18:], parts[0].test[-18:])


def test_seeds_shuffle():
    beats = beats_by_count({"N": 200, "V": 20})
    first, again, other = (split(beats, DataSettings(seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.parametrize(("count", "validated"), [(1, 0), (2, 1), (19, 1), (20, 2)])
def test_rare_classes_are_validated_if_there_are_two_beats(count: int, validated: int):
    beats = beats_by_count({"N": 100, "V": 30, "Q": count})
    parts = split(beats, DataSettings(split="fold"))
    assert counts_of(beats, parts.validation).get("Q", 0) == validated
    assert counts_of(beats, parts.test)["Q"] == count - validated


def test_the_stratified_split():
    beats = beats_by_count({"N": 100, "abnormal": 30})
    parts = split(beats, DataSettings(split="stratified"))
    assert counts_of(beats, parts.train) == {"N": 60}
    assert counts_of(beats, parts.validation) == {"N": 20, "abnormal": 15}
    assert counts_of(beats, parts.test) == {"N": 20, "abnormal": 15}
    assert_disjoint(parts)


@pytest.mark.parametrize(
    ("classes", "kind"),
    [(["N", "S", "V"], "fold"), (["N", "abnormal"], "stratified"), (["N", "VT"], "stratified")],
)
def test_auto_goes_by_the_classes(classes, kind: str):
    assert resolve(beats_of(classes), DataSettings()) == kind
    assert resolve(beats_of(classes), DataSettings(split="inter_patient")) == "inter_patient"


def test_mit_bih_is_split_into_ds1_and_ds2():
    records = np.repeat([*DS1, *DS2], 10)
    beats = beats_of(["N"] * 8 + ["S", "V"], None)
    beats = beats_of(np.tile(beats.classes, 44), records)
    parts = split(beats, DataSettings(split="inter_patient"))
    assert set(records[parts.test]) == set(DS2)
    assert set(records[parts.validation]) == set(DS1_VALIDATION)
    assert set(records[parts.train]) == set(DS1) - set(DS1_VALIDATION)
    assert counts_of(beats, parts.train) == {"N": 17 * 8}


def test_other_patients_are_halved_by_seed():
    records = np.repeat([f"p{i}" for i in range(20)], 10)
    beats = beats_of(["N"] * 8 + ["S", "V"])
    beats = beats_of(np.tile(beats.classes, 20), records)
    first, other = (split(beats, DataSettings(split="inter_patient", seed=s)) for s in (0, 1))
    sides = [set(records[rows]) for rows in (first.train, first.validation, first.test)]
    assert [len(side) for side in sides] == [8, 2, 10]
    assert not sides[0] & sides[1]
    assert not sides[2] & (sides[0] | sides[1])
    assert not np.array_equal(first.test, other.test)


def test_patients_are_divided_so_that_each_side_can_be_judged():
    # Two of eight patients have abnormal beats: one must validate and the other test.
    records = np.repeat([f"p{i}" for i in range(8)], 10)
    classes = np.full(80, "N")
    classes[[5, 15]] = "V"
    for seed in range(20):
        parts = split(
            beats_of(classes, records), DataSettings(split="inter_patient", seed=seed)
        )
        assert {len(set(records[rows])) for rows in (parts.test,)} == {4}
        assert (classes[parts.validation] == "V").sum() == 1
        assert (classes[parts.test] == "V").sum() == 1


NO_SPLIT = {
    "patients not known": (
        beats_of(["N"] * 50 + ["V"] * 50),
        "inter_patient",
        "hand-made beats: the split 'inter_patient' needs the patient",
    ),
    "one patient": (
        beats_of(["N"] * 50 + ["V"] * 50, ["p"] * 100),
        "inter_patient",
        "no normal beats to train on, no normal beats for test, no abnormal beats for test",
    ),
    "one patient with abnormal beats": (
        beats_of(["N"] * 50 + ["V"] * 10, ["a"] * 20 + ["b"] * 20 + ["c"] * 20),
        "inter_patient",
        "the split 'inter_patient' leaves no abnormal beats for",
    ),
    "few normal beats": (
        beats_of(["N"] * 5 + ["V"] * 50),
        "fold",
        "hand-made beats: the split 'fold' leaves no normal beats for validation; use more",
    ),
    "one abnormal beat": (
        beats_of(["N"] * 50 + ["V"]),
        "fold",
        "leaves no abnormal beats for validation; use more beats or another data.split",
    ),
    "one normal beat": (
        beats_of(["N"] + ["V"] * 9),
        "stratified",
        "no normal beats to train on",
    ),
}


@pytest.mark.parametrize(("beats", "kind", "message"), NO_SPLIT.values(), ids=NO_SPLIT.keys())
def test_splits_that_are_not_possible(beats: Beats, kind, message: str):
    with pytest.raises(DataError, match=message):
        split(beats, DataSettings(split=kind))


def test_a_training_limit_is_a_sorted_part_of_a_larger_one():
    rows = np.arange(100, 200)
    small, large = (limit_training(rows, limit, 0) for limit in (10, 50))
    assert len(small) == 10
    assert set(small) < set(large) < set(rows)
    assert (np.diff(small) > 0).all()
    assert not np.array_equal(small, limit_training(rows, 10, 1))
    assert limit_training(rows, 100, 0) is rows
    assert limit_training(rows, None, 0) is rows


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, {"N": 1, "V": 1}),
        (3, {"N": 1, "V": 1, "S": 1}),
        (4, {"N": 1, "V": 1, "S": 1, "Q": 1}),
        (100, {"N": 69, "V": 20, "S": 10, "Q": 1}),
        (998, {"N": 699, "V": 200, "S": 98, "Q": 1}),
    ],
)
def test_a_validation_limit_keeps_the_classes_shares(limit: int, expected: dict[str, int]):
    beats = beats_by_count({"N": 700, "V": 200, "S": 98, "Q": 2})
    rows = np.arange(1000)
    chosen = limit_validation(rows, beats.classes, limit, seed=0)
    assert len(np.unique(chosen)) == limit
    found = counts_of(beats, chosen)
    assert found.keys() == expected.keys()
    for name, count in expected.items():
        assert abs(found[name] - count) <= 1


def test_no_class_is_asked_for_more_than_it_has():
    beats = beats_by_count({"N": 5, "V": 5, "S": 1})
    for limit in range(2, 12):
        chosen = limit_validation(np.arange(11), beats.classes, limit, seed=0)
        assert len(chosen) == limit
