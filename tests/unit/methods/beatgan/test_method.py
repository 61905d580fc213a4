from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from beatgan_cases import CPU, SMALL, beats, student, trained_teacher, training_data

from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import TeacherSettings
from kdsearch.methods.protocol import EpochReport


def test_from_teacher_to_a_scored_student() -> None:
    data, method = training_data(), BeatGan()
    settings = TeacherSettings.model_validate(SMALL)
    school = method.teacher_stack(settings, data, CPU)
    school.put_in(0, settings, seed=settings.seed)
    school.advance()
    teacher = school.weights(0)
    pupil = student(width=2)
    targets = method.targets(teacher, [pupil], data, CPU)
    stack = method.student_stack(
        pupil, 2, data=data, teacher=teacher, targets=targets, compute=CPU
    )
    stack.put_in(1, pupil, seed=1)
    assert isinstance(stack.advance()[1], EpochReport)
    scores = method.score(stack.weights(1), data.validation.x, CPU)
    assert scores.shape == data.validation.abnormal.shape
    assert np.isfinite(scores).all()


def test_what_may_differ_are_settings_of_a_student() -> None:
    assert BeatGan.per_student <= BeatGan.student_settings.model_fields.keys()


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
        BeatGan().teacher_stack(student(), training_data(), CPU)


@pytest.mark.parametrize("call", [BeatGan.score, BeatGan.reconstruct])
def test_beats_of_another_length_are_refused(call: Callable[..., object]) -> None:
    weights = trained_teacher(training_data())
    with pytest.raises(ValueError, match=r"on beats of shape \(1, 32\), not \(1, 64\)"):
        call(BeatGan(), weights, beats(2, 0, length=64), CPU)
