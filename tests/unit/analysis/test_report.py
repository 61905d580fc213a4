"""The report of runs in every state, made from files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from search_cases import write_trial

from kdsearch.analysis.report import SECTIONS, SIMULATED, write_html, write_plots
from kdsearch.analysis.report.beat_sections import (
    NOTHING_DRAWN,
    beats_section,
    epochs_section,
)
from kdsearch.analysis.report.chart import log_ticks
from kdsearch.analysis.report.contents import gather
from kdsearch.analysis.report.score_sections import (
    POINTS,
    classes_section,
    histograms_section,
    thinned,
)
from kdsearch.analysis.report.search_sections import losses_section
from kdsearch.analysis.report.verdict_section import words
from kdsearch.analysis.run import open_run
from kdsearch.config.dimensions import Choice, Dimension, Float, to_yaml
from kdsearch.data import DataSettings, load_dataset
from kdsearch.data.beats import Dataset
from kdsearch.errors import RunError
from kdsearch.evaluation.finalists import (
    Answers,
    answers_of,
    choose_examples,
    evaluate_run,
    read_evaluation,
)
from kdsearch.methods.progress import PROGRESS, shown_rows
from kdsearch.methods.protocol import Compute
from kdsearch.metrics.ranking import evaluate
from kdsearch.metrics.threshold import Rule
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import FEWEST_FOR_IMPORTANCE, importances
from kdsearch.runs.trial_folder import TrialRecord

SPACE: dict[str, Dimension] = {
    "temperature": Float(0.5, 4, log=True),
    "alpha": Float(0.01, 1, log=True),
    "lr": Float(1e-4, 1e-2, log=True),
    "target": Choice(("score", "<b>other</b>")),
}
ATTACK = "</script><script>alert(1)</script>"


class Mirror:
    """A method that scores by the spread of a beat, and expects its mean."""

    name = "mirror"

    def score(self, weights: dict[str, Any], x: np.ndarray, compute: Compute) -> np.ndarray:
        return x.std(axis=(1, 2)) * weights["scale"]

    def reconstruct(
        self, weights: dict[str, Any], x: np.ndarray, compute: Compute
    ) -> np.ndarray:
        return np.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape).astype(np.float32)


class Silent:
    """The same without reconstructions."""

    name = "silent"
    score = Mirror.score


def begin(path: Path) -> RunFolder:
    """A run folder right after the search's start."""
    folder = RunFolder(path)
    config = {
        "student": {"width": 4},
        "space": {**{key: to_yaml(dimension) for key, dimension in SPACE.items()}, "w_adv": 1},
        "search": {"num_samples": 20},
    }
    path.mkdir(parents=True)
    folder.config_file.write_text(yaml.safe_dump(config))
    return folder


def record(number: int, **changes: Any) -> TrialRecord:
    rng = np.random.default_rng(number)
    params = {
        "temperature": float(rng.uniform(0.5, 4)),
        "alpha": float(rng.uniform(0.01, 1)),
        "lr": float(rng.uniform(1e-4, 1e-2)),
        "target": ("score", "<b>other</b>")[number % 2],
    }
    # What is best depends on alpha alone.
    auc = 0.9 - 0.3 * abs(params["alpha"] - 0.5)
    state = "completed" if number % 2 else "stopped"
    made = TrialRecord(number, state, params, {1: auc - 0.1, 2: auc}, seconds=1.5)  # type: ignore[arg-type]
    return TrialRecord(**{**vars(made), **changes})


def search(folder: RunFolder, records: list[TrialRecord]) -> None:
    for one in records:
        write_trial(folder, one)


def measure(
    folder: RunFolder,
    method: Any = None,
    cache: Path = Path("unused"),
    teacher: Answers | None = None,
) -> Any:
    settings = DataSettings.model_validate({"simulated": {"patients": 6, "beats": 900}})
    method, dataset = method or Mirror(), load_dataset(settings, cache)
    return evaluate_run(
        folder,
        dataset,
        trial=1,
        epoch=6,
        rule=Rule(),
        student=answers_of(method, {"scale": 1.0, **progress(dataset)}, dataset, Compute()),
        teacher=teacher or answers_of(method, {"scale": 2.0}, dataset, Compute()),
    )


def progress(dataset: Dataset) -> dict[str, Any]:
    """Reconstructions after epochs 1, 2 and 4 of six."""
    x = dataset.training.validation.x[shown_rows(dataset.training.validation)]
    return {PROGRESS: {epoch: torch.from_numpy(x / epoch) for epoch in (1, 2, 4)}}


def cost(name: str) -> dict[str, Any]:
    """Two sizes of students, the even ones the smaller, and a larger teacher."""
    parameters = 5000 if name == "teacher" else 1000 + int(name) % 2
    return {"parameters": parameters, "operations": 10 * parameters, "microseconds": 3.0}


def verdict() -> dict[str, Any]:
    figures = ("val_auc", "val_ap", "test_auc", "test_ap")
    seeds = {"7": dict.fromkeys(figures, 0.9), "8": dict.fromkeys(figures, 0.8)}
    difference = {"estimate": 0.1, "low": 0.05, "high": 0.15, "seed": 7, "p_value": 0.01}
    return {
        "chosen": "trial-1",
        "sentences": [f"Trial 1 is better {ATTACK}."],
        "configurations": [
            {"name": name, "role": role, "reason": "", "seeds": seeds}
            for name, role in (("trial-1", "candidate"), ("control-of-trial-1", "control"))
        ]
        + [{"name": "teacher", "role": "teacher", "reason": "diverged", "seeds": {}}],
        "differences": [
            {
                **difference,
                "of": "trial-1",
                "against": "control-of-trial-1",
                "metric": "test_auc",
                "covers": ["seeds", "patients"],
                "judgement": "better",
                "sentence": "Better.",
                "per_seed": [difference],
            }
        ],
        "baselines": [{"name": "PCA 10", "seconds": 1.0, **dict.fromkeys(figures, 0.7)}],
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run that a stranger has made."""
    folder = begin(tmp_path / "runs" / "kd")
    failed = record(14, state="failed", curve={}, reason=ATTACK)
    search(folder, [*map(record, range(14)), failed])
    evaluation = measure(folder)
    folder.write_verdict(verdict())
    folder.write_costs({name: cost(name) for name in [*map(str, range(15)), "teacher"]})
    for seed in (7, 8):
        folder.confirmation("control-of-trial-1", seed).write_scores(
            {"validation": evaluation.student.validation, "test": evaluation.student.test}
        )
    return folder


def page(folder: RunFolder) -> str:
    path = folder.path.parent / "report.html"
    write_html(open_run(folder.path), path)
    return path.read_text()


def missing(text: str) -> dict[str, str]:
    """What each section says that has nothing to show."""
    parts = re.split(r'<section id="([\w-]+)">', text)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    said = {key: re.search(r'class="missing">(.*?)</p>', body) for key, body in found}
    return {key: match.group(1) for key, match in said.items() if match}


def test_a_finished_run_has_every_section_in_order(run: RunFolder):
    text = page(run)
    assert missing(text) == {}
    keys = re.findall(r'<section id="([\w-]+)">', text)
    assert len(keys) == len(SECTIONS)
    assert keys[:3] == ["verdict", "leaderboard", "learning-curves"]
    assert keys[-3:] == ["scores", "beats", "epochs"]
    assert text.index("Trial 1 is better") < text.index("0.8500 ± 0.0707")
    assert "PCA 10" in text
    assert "teacher: diverged" in text


def test_whatever_a_run_says_is_shown_as_text(run: RunFolder):
    text = page(run)
    assert ATTACK not in text
    assert "<b>other</b>" not in text
    assert text.count("&lt;/script&gt;&lt;script&gt;alert(1)") == 2


def test_the_page_asks_for_nothing(run: RunFolder):
    text = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", page(run), flags=re.DOTALL)
    assert set(re.findall(r'\b(?:src|href)="(?!#)([^"]*)"', text)) == {"data:,"}
    assert "default-src 'none'" in text


def test_simulated_beats_are_announced(run: RunFolder):
    assert SIMULATED not in page(run)
    data = {"description": "simulated", "simulated": True, "fingerprint": "f"}
    teacher = {"fingerprint": "f", "seconds": 1, "epochs": 1, "best_epoch": 1}
    teacher |= {"val_auc": 0.8, "val_ap": 0.7, "history": [], "data": data}
    run.teacher_file.write_text(json.dumps(teacher))
    assert SIMULATED in page(run)


def test_a_run_that_has_just_begun_says_what_is_not_there_yet(tmp_path: Path):
    folder = begin(tmp_path / "kd")
    said = missing(page(folder))
    assert len(said) == len(SECTIONS)
    assert "Nothing was confirmed" in said["verdict"]
    assert "No trial" in said["leaderboard"]
    assert "at the end of the search" in said["roc"]
    assert write_plots(open_run(folder.path), tmp_path / "plots") == []


def test_a_killed_run_shows_what_it_has(tmp_path: Path):
    folder = begin(tmp_path / "kd")
    search(
        folder, [record(0), record(1, state="running"), record(2, state="running", curve={})]
    )
    said = missing(page(folder))
    at_the_end = {"verdict", "importance", "costs", "roc", "classes", "scores", "beats"}
    assert said.keys() == at_the_end | {"epochs"}
    assert f"at least {FEWEST_FOR_IMPORTANCE} finished trials" in said["importance"]
    assert "there are 1" in said["importance"]


@pytest.mark.parametrize(
    ("damage", "section"),
    [
        (lambda run: run.evaluation_file.write_bytes(b"PK\3\4 torn"), "beats"),
        (lambda run: np.savez(run.evaluation_file, trial=np.array(1)), "roc"),
        (lambda run: run.verdict_file.write_text('{"chosen": 3}'), "verdict"),
    ],
)
def test_a_damaged_file_costs_its_sections_only(run: RunFolder, damage: Any, section: str):
    damage(run)
    said = missing(page(run))
    assert re.search("cannot be read|damaged|no such file", said[section])
    assert "leaderboard" not in said


def test_a_control_of_another_folder_is_not_read(run: RunFolder):
    stolen = verdict()
    stolen["configurations"][1]["name"] = "../../elsewhere"
    run.write_verdict(stolen)
    assert "no control" in page(run)


def test_a_method_without_reconstructions_has_no_example_beats(run: RunFolder):
    measure(run, Silent())
    assert missing(page(run)) == {
        "beats": NOTHING_DRAWN,
        "epochs": "This method keeps no reconstructions while a student trains.",
    }


def test_the_nearest_normal_beat_is_drawn_where_nothing_is_reconstructed(run: RunFolder):
    scores = read_evaluation(run)
    assert scores is not None
    teacher = Answers(
        scores.teacher.validation,
        scores.teacher.test,
        lambda x: None,
        nearest=lambda x: np.arange(len(x)),
    )
    evaluation = measure(run, Silent(), teacher=teacher)
    section = beats_section(gather(open_run(run.path).result))
    assert "the nearest of the normal training beats" in section.text
    charts = [chart for group in section.groups for chart in group.charts]
    assert len(charts) == len(evaluation.examples.rows)
    chart = section.groups[0].charts[0]
    assert [series.name for series in chart.series] == ["beat", "nearest normal beat"]
    beat, nearest = (np.asarray(series.y) for series in chart.series)
    difference = (beat - nearest) ** 2
    np.testing.assert_allclose(chart.shade, difference / difference.max(), rtol=1e-5)


def test_a_beat_of_each_class_is_drawn_over_the_epochs(run: RunFolder):
    section = epochs_section(gather(open_run(run.path).result))
    evaluation = read_evaluation(run)
    assert evaluation is not None
    classes = [group.title for group in section.groups]
    assert classes[0] == "N"
    assert len(set(classes)) == len(classes) == min(4, len({*evaluation.validation_classes}))
    for group in section.groups:
        titles = [chart.title for chart in group.charts]
        assert titles == ["epoch 1", "epoch 2", "epoch 4", "epoch 6 (best)"]
        beat, at_first = (np.asarray(series.y) for series in group.charts[0].series)
        np.testing.assert_array_equal(beat, at_first)
        shades = [np.asarray(chart.shade) for chart in group.charts]
        assert [float(shade.max()) for shade in shades[:1]] == [0]
        assert max(float(shade.max()) for shade in shades) == 1


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_pictures_are_a_file_per_section(run: RunFolder, form: Any, start: bytes):
    paths = write_plots(open_run(run.path), run.path.parent / "plots", form)
    names = [path.stem for path in paths]
    assert {"verdict", "space", "importance", "costs", "roc", "scores"} <= set(names)
    assert {"beats", "epochs"} <= set(names)
    assert all(path.read_bytes().startswith(start) for path in paths)


def test_the_evaluation_comes_back_as_it_was(run: RunFolder):
    written, read = measure(run), read_evaluation(run)
    assert read is not None
    assert read.trial == written.trial == 1
    np.testing.assert_array_equal(read.test_classes, written.test_classes)
    np.testing.assert_array_equal(read.test_record, written.test_record)
    np.testing.assert_array_equal(read.examples.x, written.examples.x)
    np.testing.assert_array_equal(read.examples.time_ms, written.examples.time_ms)
    assert read.metrics() == written.metrics()


def test_the_r_peak_is_where_the_time_is_zero(run: RunFolder):
    examples = measure(run).examples
    assert examples.time_ms[140] == 0
    assert examples.time_ms[141] == pytest.approx(1000 / 360)


def test_the_threshold_is_chosen_on_the_validation_beats(run: RunFolder):
    found = measure(run)
    best = evaluate(found.student.validation, found.validation_classes)
    assert found.student.threshold == best.confusion.threshold
    assert (
        found.metrics()["student"]["test"]["confusion"]["threshold"] == found.student.threshold
    )


def test_an_evaluation_that_contradicts_itself_is_refused(run: RunFolder):
    measure(run)
    with np.load(run.evaluation_file) as archive:
        arrays = dict(archive)
    run.write_evaluation({**arrays, "student_test": arrays["student_test"][1:]})
    with pytest.raises(
        RunError,
        match=r"evaluation\.npz: not a readable evaluation .ValueError: arrays of shapes",
    ):
        read_evaluation(run)


def test_examples_stand_for_every_kind_of_beat():
    classes = np.array(["N"] * 50 + ["V"] * 10 + ["Q"])
    scores = np.concatenate([np.linspace(0, 2, 50), np.linspace(0, 2, 10), [3]])
    rows = choose_examples(scores.astype(np.float32), classes, 1.0)
    kinds = {(str(classes[row]), bool(scores[row] >= 1)) for row in rows}
    assert kinds == {("Q", True), ("V", True), ("V", False), ("N", True), ("N", False)}
    assert len(set(rows)) == len(rows)
    # Evenly over the scores, neither the highest nor the lowest ones alone.
    normal = [row for row in rows if row < 50 and scores[row] >= 1]
    assert normal == [46, 40, 34, 28]


def test_importance_finds_the_setting_that_matters(run: RunFolder):
    found = importances(open_run(run.path).records, SPACE)
    assert next(iter(found)) == "alpha"
    assert sum(found.values()) == pytest.approx(1)


def test_a_thinned_curve_keeps_its_ends_and_its_shape():
    x = np.linspace(0, 1, 50_000)
    y = x**8
    rows = thinned(x, y)
    assert len(rows) <= POINTS + 2
    assert (rows[0], rows[-1]) == (0, 49_999)
    assert np.abs(np.interp(x, x[rows], y[rows]) - y).max() < 1e-3


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.5, 4, ["0.5", "1", "2", "5"]),
        (1e-4, 1e-2, ["0.0001", "0.0003", "0.001", "0.003", "0.01"]),
        (1e-6, 1, ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
    ],
)
def test_logarithmic_axes_have_round_ticks(low: float, high: float, texts: list[str]):
    found = [text for value, text in log_ticks(low, high) if low <= value <= 1.3 * high]
    assert found == [text for text in texts if float(text) <= 1.3 * high]


def test_configurations_are_named_as_people_say_them():
    assert words("control-of-trial-7") == "trial 7 without distillation"
    assert words("teacher") == "teacher"


def test_students_of_one_size_are_a_sentence_and_no_chart(run: RunFolder):
    alike = {"parameters": 1234, "operations": 56789, "microseconds": 3.0}
    run.write_costs({**{str(number): alike for number in range(15)}, "teacher": alike})
    page = run.path / "r.html"
    write_html(open_run(run.path), page)
    assert "All students of this search cost the same: 1,234 parameters" in page.read_text()


def test_beats_have_the_name_that_the_space_gives(run: RunFolder):
    def words_of(text: str) -> list[str]:
        shown = re.sub(r"<(style|script)\b[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
        return re.findall(r"(?i)\b(?:beat|window)s?\b(?![\w.=\"])", shown)

    assert "window" not in map(str.lower, words_of(page(run)))
    config = yaml.safe_load(run.config_file.read_text())
    run.config_file.write_text(yaml.safe_dump({**config, "data": {"unit": "window"}}))
    assert {word.lower() for word in words_of(page(run))} == {"window", "windows"}
    figures = write_plots(open_run(run.path), run.path / "plots", "svg")
    assert "windows" in {figure.stem for figure in figures}


def test_losses_are_drawn_by_term_and_scores_on_both_axes(run: RunFolder):
    contents = gather(open_run(run.path))
    charts = losses_section(contents).groups[0].charts
    epochs = contents.histories[contents.run.best.trial]
    for name, values in ((s.name, s.y) for s in charts[-1].series):
        assert list(values) == [report.losses[name] for report in epochs]
    for pair in histograms_section(contents).groups:
        assert [chart.x.log for chart in pair.charts] == [False, True]


def test_the_confusion_matrix_counts_every_beat_once(run: RunFolder):
    contents = gather(open_run(run.path))
    evaluation = contents.evaluation
    assert evaluation is not None
    matrix = classes_section(contents).tables[1]
    counts = {row[0].text: [cell.order for cell in row[1:4]] for row in matrix.rows}
    assert set(counts) == set(np.unique(evaluation.test_classes))
    for label, (passed, flagged, total) in counts.items():
        members = evaluation.test_classes == label
        assert total == members.sum() == passed + flagged
        assert flagged == (evaluation.alarms() & members).sum()
    assert sum(total for _, _, total in counts.values()) == len(evaluation.test_classes)
