"""Sections about scores: ROC and precision-recall, classes, histograms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import Axis, Cell, Chart, Group, Section, Series, Table
from kdsearch.analysis.report.contents import Contents, Curve
from kdsearch.data.beats import NORMAL, BoolArray
from kdsearch.evaluation.finalists import Evaluation
from kdsearch.metrics.ranking import Ranking, rank

COLOURS = {
    "student": palette.STUDENT,
    "control": palette.CONTROL,
    "teacher": palette.TEACHER,
}
POINTS = 400
BINS = 40


def curves_section(contents: Contents) -> Section:
    """ROC and precision-recall on the test beats."""
    key, title = "roc", "ROC and precision–recall"
    evaluation = contents.evaluation
    if evaluation is None:
        return Section(key, title, missing=contents.evaluation_missing)
    abnormal = evaluation.test_classes != NORMAL
    ranked = [(curve, rank(curve.scores, abnormal)) for curve in contents.curves()]
    text = (
        f"On {len(abnormal):,} test beats, {abnormal.sum():,} of them abnormal, which were "
        "not used to choose anything. The dots are the thresholds chosen on validation beats."
    )
    if contents.controls:
        text += " The control is drawn once per seed."
    else:
        text += " There is no control, because nothing was confirmed or nothing is distilled."
    return Section(key, title, text=text, groups=[Group([_roc(ranked), _pr(ranked)])])


Ranked = Sequence[tuple[Curve, Ranking]]


def _roc(ranked: Ranked) -> Chart:
    series = [_line([0.0, 1.0], [0.0, 1.0])]
    aucs = [(curve.name, ranking.roc_auc()) for curve, ranking in ranked]
    for curve, ranking in ranked:
        x = np.append(0.0, ranking.false_positives / ranking.false_positives[-1])
        y = np.append(0.0, ranking.true_positives / ranking.true_positives[-1])
        at = ranking.confusion(curve.threshold)
        series += _curve(
            curve, _named(curve, "AUC", aucs), x, y, (1 - at.specificity, at.sensitivity)
        )
    return Chart(
        "ROC",
        Axis("1 − specificity", limits=(0, 1)),
        Axis("sensitivity", limits=(0, 1.02)),
        series,
        height=440,
    )


def _pr(ranked: Ranked) -> Chart:
    positives = ranked[0][1].true_positives[-1]
    share = float(positives / (positives + ranked[0][1].false_positives[-1]))
    series = [_line([0.0, 1.0], [share, share])]
    precisions = [(curve.name, ranking.average_precision()) for curve, ranking in ranked]
    for curve, ranking in ranked:
        x = ranking.true_positives / positives
        y = ranking.true_positives / (ranking.true_positives + ranking.false_positives)
        at = ranking.confusion(curve.threshold)
        point = None if at.ppv is None else (at.sensitivity, at.ppv)
        series += _curve(curve, _named(curve, "AP", precisions), x, y, point)
    return Chart(
        "Precision–recall",
        Axis("sensitivity (recall)", limits=(0, 1)),
        Axis("PPV (precision)", limits=(0, 1.02)),
        series,
        height=440,
    )


def _named(curve: Curve, what: str, figures: Sequence[tuple[str, float]]) -> str:
    """Return the legend entry that all seeds of a network share."""
    own = [figure for name, figure in figures if name == curve.name]
    ends = dict.fromkeys(f"{end:.3f}" for end in (min(own), max(own)))
    return f"{curve.name}, {what} {'–'.join(ends)}"


def _line(x: list[float], y: list[float]) -> Series:
    return Series("chance", x, y, palette.GREY, dash=True, width=1, in_legend=False)


def _curve(
    curve: Curve,
    name: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    point: tuple[float, float] | None,
) -> list[Series]:
    colour, thin = COLOURS[curve.who], curve.who == "control"
    rows = thinned(x, y)
    width, opacity = (1.4, 0.8) if thin else (2.4, 1.0)
    line = Series(name, x[rows], y[rows], colour, width=width, opacity=opacity, hover=name)
    if point is None:
        return [line]
    at = f"{curve.name} at its threshold"
    dot = Series(at, [point[0]], [point[1]], colour, kind="points", hover=at, in_legend=False)
    return [line, dot]


def thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return at most `POINTS` rows, evenly along the curve, with both ends."""
    if len(x) <= POINTS:
        return np.arange(len(x))
    way = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    rows = np.searchsorted(way, np.linspace(0, way[-1], POINTS))
    return np.unique(np.append(np.minimum(rows, len(x) - 1), [0, len(x) - 1])).astype(np.int64)


def classes_section(contents: Contents) -> Section:
    """Each class against the normal beats, at the threshold chosen on validation."""
    key, title = "classes", "Class by class"
    evaluation = contents.evaluation
    if evaluation is None:
        return Section(key, title, missing=contents.evaluation_missing)
    curves = contents.curves()
    rows = [
        _class_row([curve for curve in curves if curve.who == who], label, evaluation)
        for label in [*classes_of(evaluation), "all"]
        for who in dict.fromkeys(curve.who for curve in curves)
    ]
    columns = ["class", "network", "beats", "AUC", "sensitivity", "specificity", "PPV", "F1"]
    columns += ["accuracy", "TP", "FP", "TN", "FN"]
    return Section(
        key,
        title,
        text="Each class of the test beats against the normal ones, at "
        f"{contents.run.threshold_rule}. PPV and F1 count the false alarms of all normal "
        "beats against the class, so that rare classes have low ones. TP and FN are beats of "
        "the class that are flagged and missed, FP and TN normal beats that are flagged and "
        "passed. The control's figures are means over its seeds. The second table is the "
        "student's confusion matrix at the same threshold.",
        tables=[Table(columns, rows, searchable=True), _confusion_matrix(evaluation)],
    )


def _confusion_matrix(evaluation: Evaluation) -> Table:
    """Every class by what the student calls it, normal beats first."""
    alarms, rows = evaluation.alarms(), []
    for label in [NORMAL, *classes_of(evaluation)]:
        members = evaluation.test_classes == label
        flagged, total = int(alarms[members].sum()), int(members.sum())
        cells = [Cell(f"{n:,}", float(n)) for n in (total - flagged, flagged, total)]
        part = flagged / total if total else float("nan")
        rows.append([Cell(label), *cells, Cell("–" if not total else f"{part:.3f}", part)])
    columns = ["true class (student)", "called normal", "called abnormal", "beats", "flagged"]
    return Table(columns, rows)


def classes_of(evaluation: Evaluation) -> list[str]:
    """Return the abnormal classes of the test beats, those of AAMI first."""
    found = {str(label) for label in np.unique(evaluation.test_classes)} - {NORMAL}
    known = [label for label in ("S", "V", "F", "Q") if label in found]
    return known + sorted(found - set(known))


def _class_row(curves: Sequence[Curve], label: str, evaluation: Evaluation) -> list[Cell]:
    """Return the row of one network, with means over its seeds."""
    classes = evaluation.test_classes
    members = (classes != NORMAL) if label == "all" else (classes == label)
    figures = np.mean([_figures(curve, members, classes == NORMAL) for curve in curves], axis=0)
    return [
        Cell(label),
        Cell(curves[0].who),
        Cell(f"{members.sum():,}", float(members.sum())),
        *(Cell("–", -1.0) if np.isnan(v) else Cell(f"{v:.3f}", float(v)) for v in figures[:6]),
        *(Cell(f"{count:,.0f}", float(count)) for count in figures[6:]),
    ]


def _figures(curve: Curve, members: BoolArray, normal: BoolArray) -> list[float]:
    """AUC, sensitivity, specificity, PPV (NaN without any alarm), F1, accuracy and counts."""
    kept = members | normal
    ranking = rank(curve.scores[kept], members[kept])
    at = ranking.confusion(curve.threshold)
    ppv = float("nan") if at.ppv is None else at.ppv
    figures = [ranking.roc_auc(), at.sensitivity, at.specificity, ppv, at.f1, at.accuracy]
    counts = (at.true_positives, at.false_positives, at.true_negatives, at.false_negatives)
    return [*figures, *map(float, counts)]


def histograms_section(contents: Contents) -> Section:
    """How the scores of each class are distributed."""
    key, title = "scores", "Scores by class"
    evaluation = contents.evaluation
    if evaluation is None:
        return Section(key, title, missing=contents.evaluation_missing)
    shown = [curve for curve in contents.curves() if curve.who in ("student", "teacher")]
    charts = [
        [_histogram(curve, evaluation, log=log) for log in (False, True)]
        if (curve.scores > 0).all()
        else [_histogram(curve, evaluation, log=False)]
        for curve in shown
    ]
    return Section(
        key,
        title,
        text="Every class has the same area. Beats to the right of the line raise an alarm. "
        "Positive scores are also drawn on a logarithmic axis, where small scores are further "
        "apart.",
        groups=[Group(pair) for pair in charts],
    )


def _histogram(curve: Curve, evaluation: Evaluation, *, log: bool) -> Chart:
    scores = curve.scores.astype(np.float64)
    edges = _edges(scores, log=log)
    middles = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    series = []
    for label in [NORMAL, *classes_of(evaluation)]:
        own = scores[evaluation.test_classes == label]
        if len(own):
            share = np.histogram(own, edges)[0] / len(own)
            name = f"{label} ({len(own):,})"
            series.append(
                Series(name, middles, share, palette.of_class(label), kind="area", hover=name)
            )
    return Chart(
        curve.name,
        Axis("anomaly score (logarithmic)" if log else "anomaly score", log=log),
        Axis("share of the class"),
        series,
        lines=[(curve.threshold, "threshold")],
        height=360,
    )


def _edges(scores: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    low, high = float(scores.min()), float(scores.max())
    if high <= low:
        high = low * 1.1 if log else low + 1
    # The outermost edges are a little wider, so that rounding loses no beat.
    if log:
        return np.geomspace(low * 0.999, high * 1.001, BINS + 1)
    return np.linspace(low, high, BINS + 1)
