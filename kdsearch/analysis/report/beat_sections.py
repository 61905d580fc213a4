"""Sections that draw beats: examples, and reconstructions over the epochs."""

from __future__ import annotations

import numpy as np

from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import Axis, Chart, Group, Section, Series
from kdsearch.analysis.report.contents import Contents
from kdsearch.analysis.report.score_sections import classes_of
from kdsearch.data.beats import NORMAL, FloatArray
from kdsearch.evaluation.finalists import Evaluation, Progress

# Distance between leads, which are scaled to [-1, 1], so that they do not overlap.
LEAD_DISTANCE = 2.4
NOTHING_DRAWN = "This method reconstructs no beats and compares them with none."


def beats_section(contents: Contents) -> Section:
    """Example beats of every kind with their reconstructions and errors."""
    key, title = "beats", "Example beats"
    evaluation = contents.evaluation
    if evaluation is None:
        return Section(key, title, missing=contents.evaluation_missing)
    examples = evaluation.examples
    drawn = (examples.student, examples.teacher, examples.nearest)
    if all(fakes is None for fakes in drawn):
        return Section(key, title, missing=NOTHING_DRAWN)
    groups = []
    for label in [*classes_of(evaluation), NORMAL]:
        for alarm in (True, False):
            chosen = evaluation.alarms()[examples.rows] == alarm
            chosen &= evaluation.test_classes[examples.rows] == label
            charts = [_beat(evaluation, int(index)) for index in np.flatnonzero(chosen)]
            if charts:
                groups.append(Group(charts, _kind(label, alarm=alarm), small=True))
    if examples.student is None and examples.teacher is None:
        beside = (
            "the nearest of the normal training beats that the teacher stores. The darker the "
            "background, the larger the difference between the two."
        )
    else:
        beside = (
            "their reconstructions by student and teacher. The darker the background, the "
            "larger the student's error, which gives the score."
        )
    return Section(
        key,
        title,
        text=f"Test beats as the networks see them, each scaled to its own range, and {beside} "
        "The beats are spread evenly from the highest to the lowest score of their kind. The "
        "title shows the student's score and the record; the axis shows the time in "
        f"{_unit(evaluation)}.",
        groups=groups,
    )


def epochs_section(contents: Contents) -> Section:
    """A few validation beats and their reconstructions over the training of the student."""
    key, title = "epochs", "Reconstructions over the epochs"
    evaluation = contents.evaluation
    if evaluation is None:
        return Section(key, title, missing=contents.evaluation_missing)
    progress = evaluation.progress
    if progress is None:
        return Section(
            key, title, missing="This method keeps no reconstructions while a student trains."
        )
    groups = [_over_epochs(evaluation, progress, beat) for beat in range(len(progress.x))]
    return Section(
        key,
        title,
        text="The first validation beat of each class, four at most, and its "
        f"reconstruction by the best student (trial {evaluation.trial}) after some epochs of "
        "its training, up to its best epoch. The darker the background, the larger the error; "
        "all pictures of a beat have the same scale. A student that detects well reconstructs "
        "normal beats (N) better than abnormal ones. The axis shows the time in "
        f"{_unit(evaluation)}.",
        groups=groups,
    )


def _over_epochs(evaluation: Evaluation, progress: Progress, beat: int) -> Group:
    """Draw one beat, with its reconstruction after each epoch that was kept."""
    x = progress.x[beat]
    errors = [_error(x, fakes[beat]) for fakes in progress.student]
    largest = max(float(error.max()) for error in errors) or 1.0
    titles = [f"epoch {epoch}" for epoch in progress.epochs]
    titles[-1] += " (best)"
    charts = [
        _drawn(title, evaluation, x, {"student": fakes[beat]}, error / largest)
        for title, fakes, error in zip(titles, progress.student, errors, strict=True)
    ]
    return Group(charts, str(evaluation.validation_classes[progress.rows[beat]]), small=True)


def _kind(label: str, *, alarm: bool) -> str:
    if label == NORMAL:
        return "N: false alarms" if alarm else "N: rightly passed"
    return f"{label}: true alarms" if alarm else f"{label}: missed"


def _beat(evaluation: Evaluation, index: int) -> Chart:
    examples = evaluation.examples
    named = {
        "teacher": examples.teacher,
        "student": examples.student,
        "nearest normal beat": examples.nearest,
    }
    beside = {name: fakes[index] for name, fakes in named.items() if fakes is not None}
    x = examples.x[index]
    of = next(name for name in ("student", "teacher", "nearest normal beat") if name in beside)
    error = _error(x, beside[of])
    row = int(examples.rows[index])
    title = f"{evaluation.student.test[row] / evaluation.student.threshold:.2f} × threshold"
    if evaluation.test_record is not None:
        title += f" · {evaluation.test_record[row]}"
    return _drawn(title, evaluation, x, beside, error / (float(error.max()) or 1.0))


def _drawn(
    title: str,
    evaluation: Evaluation,
    x: FloatArray,
    beside: dict[str, FloatArray],
    shade: FloatArray,
) -> Chart:
    """A beat (leads, length), others of its shape beside it, and a depth of colour behind."""
    time = evaluation.examples.time_ms
    axis = np.arange(x.shape[-1], dtype=np.float32) if time is None else time
    series = _traces("beat", axis, x, palette.INK, width=1.8)
    for name, leads in beside.items():
        colour = palette.STUDENT if name == "student" else palette.TEACHER
        series += _traces(name, axis, leads, colour, width=1.6, dash=name != "student")
    return Chart(
        title,
        Axis(),
        Axis(limits=(-1.25 - LEAD_DISTANCE * (len(x) - 1), 1.25), hidden=True),
        series,
        shade=shade,
        height=150 + 90 * (len(x) - 1),
    )


def _unit(evaluation: Evaluation) -> str:
    return "samples" if evaluation.examples.time_ms is None else "milliseconds from the R peak"


def _traces(
    name: str,
    axis: FloatArray,
    leads: FloatArray,
    colour: str,
    *,
    width: float,
    dash: bool = False,
) -> list[Series]:
    return [
        Series(
            name,
            axis,
            lead - LEAD_DISTANCE * number,
            colour,
            width=width,
            dash=dash,
            hover=name,
            in_legend=number == 0,
        )
        for number, lead in enumerate(leads)
    ]


def _error(x: FloatArray, other: FloatArray) -> FloatArray:
    """Compute the squared difference at each sample, summed over leads."""
    return np.asarray(((x - other) ** 2).sum(axis=0), dtype=np.float32)
