from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from beatgan_cases import CPU, student, trained_teacher, training_data

from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.targets import teacher_targets
from kdsearch.methods.protocol import Task


def test_only_what_the_students_need_is_computed() -> None:
    data = training_data()
    teacher, method = trained_teacher(data), BeatGan()
    for used in (
        ["none"],
        ["published"],
        ["neighbours"],
        ["score"],
        ["attention", "reconstruction"],
        ["score+attention", "score"],
    ):
        students = [student(target=target) for target in used]
        found = method.targets(students, Task(data, CPU, teacher))
        assert sorted(found) == sorted(set("+".join(used).split("+")) - {"none", "published"})


def test_targets_have_a_row_per_beat() -> None:
    data = training_data(leads=2, length=64)
    teacher = trained_teacher(data)
    kinds = ("score", "neighbours", "reconstruction", "attention")
    found = teacher_targets(kinds, Task(data, CPU, teacher))
    shapes = {
        "score": (26,),
        "neighbours": (26,),
        "reconstruction": (26, 2, 64),
        "attention": (26, 2),
    }
    assert {name: rows.shape for name, rows in found.items()} == shapes
    assert all(rows.dtype == np.float32 for rows in found.values())
    np.testing.assert_allclose(np.linalg.norm(found["attention"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["score", "neighbours", "reconstruction", "attention"])
def test_rows_follow_their_beats(kind: str) -> None:
    data = training_data(length=64)
    teacher = trained_teacher(data)
    order = np.random.default_rng(0).permutation(26)
    straight = teacher_targets([kind], Task(data, CPU, teacher))[kind]
    shuffled = teacher_targets(
        [kind], Task(replace(data, train=data.train[order]), CPU, teacher)
    )[kind]
    np.testing.assert_allclose(shuffled, straight[order], rtol=1e-4, atol=1e-6)


def test_scores_are_the_teachers_scores() -> None:
    data = training_data()
    teacher = trained_teacher(data)
    found = teacher_targets(["score"], Task(data, CPU, teacher))["score"]
    np.testing.assert_array_equal(found, BeatGan().score(teacher, data.train, CPU))


def test_neighbours_call_the_beat_abnormal_that_is_like_no_other() -> None:
    data = training_data()
    train = data.train.copy()
    train[5] = train[5, :, ::-1] * np.sign(np.sin(np.arange(32)))
    task = Task(replace(data, train=train), CPU)
    found = teacher_targets(["neighbours"], task)["neighbours"]
    assert int(found.argmax()) == 5
    assert (found > 0).all()
