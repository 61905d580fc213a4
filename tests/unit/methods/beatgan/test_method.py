from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from beatgan_cases import CPU, SMALL, beats, finite, student, trained_teacher, training_data

from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import StudentSettings, TeacherSettings
from kdsearch.methods.beatgan.stack import PER_STUDENT
from kdsearch.methods.protocol import Task


def test_from_teacher_to_a_scored_student() -> None:
    data, method = training_data(), BeatGan()
    settings = TeacherSettings.model_validate(SMALL)
    school = method.teacher_stack(settings, Task(data, CPU))
    school.put_in(0, settings, seed=settings.seed)
    school.advance()
    pupil = student(width=2)
    task = Task(data, CPU, school.weights(0))
    task = replace(task, targets=method.targets([pupil], task))
    stack = method.student_stack(pupil, 2, task)
    stack.put_in(1, pupil, seed=1)
    assert finite(stack.advance()[1])
    scores = method.score(stack.weights(1), data.validation.x, CPU)
    assert scores.shape == data.validation.abnormal.shape
    assert np.isfinite(scores).all()


def test_what_may_differ_are_settings_of_a_student() -> None:
    assert StudentSettings.model_fields.keys() >= PER_STUDENT
    method, base = BeatGan(), student()
    for name in StudentSettings.model_fields:
        changed = base.model_copy(update={name: "other"})
        with warnings.catch_warnings(action="ignore"):
            same = method.structure(changed) == method.structure(base)
        assert same == (name in PER_STUDENT)


@pytest.mark.parametrize("field", ["width", "latent"])
def test_a_student_as_large_as_its_teacher_may_start_from_it(field: str) -> None:
    method, teacher = BeatGan(), TeacherSettings.model_validate(SMALL)
    method.check(teacher, student(init="teacher"))
    method.check(teacher, student(**{field: 9}))
    expected = rf"^student\.init: .*, but {field} is {SMALL[field]} .* 9 in the student$"
    with pytest.raises(ValueError, match=expected):
        method.check(teacher, student(init="teacher", **{field: 9}))


def test_settings_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="TeacherSettings expected, not StudentSettings"):
        BeatGan().teacher_stack(student(), Task(training_data(), CPU))


@pytest.mark.parametrize("call", [BeatGan.score, BeatGan.reconstruct])
def test_beats_of_another_length_are_refused(call: Callable[..., object]) -> None:
    weights = trained_teacher(training_data())
    with pytest.raises(ValueError, match=r"on beats of shape \(1, 32\), not \(1, 64\)"):
        call(BeatGan(), weights, beats(2, 0, length=64), CPU)
