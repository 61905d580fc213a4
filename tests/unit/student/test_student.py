"""The best student of a search: loaded from what the search wrote, and asked wrongly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from search_cases import CPU, space_file

import kdsearch
from kdsearch.config.space_file import Config, parse_config
from kdsearch.data import Beats, DataSettings, prepare
from kdsearch.data.beats import Dataset
from kdsearch.errors import ConfigError, DataError, RunError, UserError
from kdsearch.files.tensors import load_tensors, save_tensors
from kdsearch.methods.beatgan.settings import TeacherSettings
from kdsearch.methods.beatgan.stack import BeatGanStack
from kdsearch.methods.protocol import State, Task
from kdsearch.metrics.ranking import rank
from kdsearch.metrics.threshold import parse_rule
from kdsearch.runs.folder import RunFolder
from kdsearch.student.student import COMPUTE, Student, describe_student

LEADS, LENGTH, PADDED = 2, 45, 64


def raw_beats(n: int, seed: int = 0, leads: int = LEADS, length: int = LENGTH) -> np.ndarray:
    """Noisy waves in mV, neither normalised nor padded."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2, size=(n, leads, 1))
    wave = np.sin(np.linspace(0, 6, length) + phase)
    return (0.7 + 1.3 * wave + 0.1 * rng.normal(size=wave.shape)).astype(np.float32)


@dataclass(frozen=True)
class Best:
    """A run with its best student, and the pieces that it was made of."""

    run: Path
    config: Config
    dataset: Dataset
    weights: State
    x: np.ndarray

    @property
    def folder(self) -> Path:
        return self.run / "best"


def make_best(run: Path, leads: int = LEADS) -> Best:
    x = raw_beats(120, leads=leads)
    classes = np.where(np.arange(120) % 5 == 0, "V", "N")
    settings = DataSettings(leads=leads, split="stratified")
    dataset = prepare(Beats(x, classes, None, "f" * 64, "made-up waves"), settings)
    small = {"width": 4, "latent": 5, "batch_size": 16, "epochs": 1}
    config = parse_config(space_file(teacher=small, student=small), "space.yaml")
    trained = TeacherSettings.model_validate({**small, "lr": 1e-3})
    stack = BeatGanStack(trained, 1, Task(dataset.training, CPU))
    stack.put_in(0, trained, seed=7)
    stack.advance()
    weights = stack.weights(0)
    scores = config.method.score(weights, dataset.training.validation.x, COMPUTE)
    searched = {"temperature": 1.0, "alpha": 0.1, "w_adv": 1.0}
    card = describe_student(
        config, config.student_settings(searched), dataset, float(np.median(scores))
    )
    abnormal = dataset.training.validation.abnormal
    validation = {"scores": scores, "abnormal": abnormal}
    RunFolder(run).write_best(weights, card, {"trial": 0}, validation)
    return Best(run, config, dataset, weights, x)


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Best:
    return make_best(tmp_path_factory.mktemp("runs") / "kd")


@pytest.fixture(scope="module")
def one_lead(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return kdsearch.load_student(make_best(tmp_path_factory.mktemp("runs") / "kd", leads=1).run)


@pytest.fixture(scope="module")
def student(best: Best) -> Student:
    return kdsearch.load_student(best.run)


@pytest.fixture
def copy(best: Best, tmp_path: Path) -> Path:
    """A best/ to spoil."""
    return Path(shutil.copytree(best.folder, tmp_path / "best"))


def change_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "config.yaml"
    card = yaml.safe_load(file.read_text())
    change(card)
    file.write_text(yaml.safe_dump(card))


def test_raw_beats_score_as_prepared_ones_do(best: Best, student: Student):
    validation = best.dataset.training.validation.x
    expected = best.config.method.score(best.weights, validation, COMPUTE)
    rows = {kdsearch.data.normalise(x[None]).tobytes(): i for i, x in enumerate(best.x)}
    left = (PADDED - LENGTH) // 2
    raw = [rows[np.ascontiguousarray(x[:, left : left + LENGTH]).tobytes()] for x in validation]
    scores = student.score(best.x[raw])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scores.std() > 0


def test_the_threshold_parts_beats_where_the_validation_said(best: Best, student: Student):
    scores = student.score(best.x)
    np.testing.assert_array_equal(student.flag(best.x), scores >= np.float32(student.threshold))
    assert 0 < student.flag(best.x).sum() < len(scores)
    at = np.array([np.nextafter(np.float32(student.threshold), np.float32(0))])
    assert not student.called(at).any()
    assert student.called(np.float32([student.threshold])).all()


def test_the_unit_and_the_type_do_not_matter(best: Best, student: Student):
    scores = student.score(best.x)
    np.testing.assert_allclose(student.score(1000 * best.x), scores, rtol=1e-3)
    np.testing.assert_array_equal(student.score(best.x.astype(np.float64)), scores)
    np.testing.assert_array_equal(student.score(best.x.tolist()), scores)
    whole = (1000 * best.x).astype(np.int16)
    np.testing.assert_array_equal(student.score(whole), student.score(whole.astype(float)))


def test_beats_are_left_as_they_are_and_one_by_one_score_the_same(best: Best, student: Student):
    before = best.x.copy()
    scores = student.score(best.x)
    np.testing.assert_array_equal(best.x, before)
    alone = [student.score(beat[None])[0] for beat in best.x[:5]]
    np.testing.assert_allclose(alone, scores[:5], rtol=1e-5)


def test_a_reconstruction_is_what_the_score_is_the_error_of(best: Best, student: Student):
    again, x = student.reconstruct(best.x), student.normalised(best.x)
    assert again.shape == x.shape == best.x.shape
    whole = best.config.method.reconstruct(best.weights, student.prepared(best.x), COMPUTE)
    error = np.square(student.prepared(best.x) - whole).mean(axis=(1, 2))
    np.testing.assert_allclose(error, student.score(best.x), rtol=1e-5)
    left = (PADDED - LENGTH) // 2
    np.testing.assert_array_equal(again, whole[:, :, left : left + LENGTH])


def test_a_flat_beat_has_a_score(student: Student):
    assert np.isfinite(student.score(np.full((1, LEADS, LENGTH), 3.0))).all()


def test_one_lead_may_be_left_out_of_the_shape(one_lead: Student):
    x = raw_beats(4, leads=1)
    scores = one_lead.score(x)
    np.testing.assert_array_equal(one_lead.score(x[:, 0]), scores)
    np.testing.assert_allclose(one_lead.score(x[0, 0]), scores[:1], rtol=1e-5)
    with pytest.raises(
        DataError, match=r"\(n, 1, 45\), \(n, 45\) or \(45,\), but found \(44,\)"
    ):
        one_lead.score(x[0, 0, :44])


def test_the_student_says_what_it_is(best: Best, student: Student):
    assert student.settings == best.config.student_settings(
        {"temperature": 1.0, "alpha": 0.1, "w_adv": 1.0}
    )
    card = student.card
    assert (card.input.leads, card.input.length, card.input.padded_length) == (2, 45, 64)
    assert card.input.cutting is None
    assert card.method == "beatgan"
    assert card.data.description.startswith("made-up waves")
    assert card.kdsearch == kdsearch.__version__


@pytest.mark.parametrize("place", ["", "best", "best/model.safetensors"])
def test_a_run_its_best_and_its_model_are_the_same(best: Best, student: Student, place: str):
    found = kdsearch.load_student(str(best.run / place))
    np.testing.assert_array_equal(found.score(best.x), student.score(best.x))


def spoiled(position: tuple[int, int, int], value: float) -> np.ndarray:
    x = raw_beats(3)
    x[position] = value
    return x


@pytest.mark.parametrize(
    ("beats", "message"),
    [
        (raw_beats(3, length=44), r"\(n, 2, 45\), but found \(3, 2, 44\): .* 45 samples"),
        (raw_beats(3, length=64), r"found \(3, 2, 64\): .* and pads them itself"),
        (raw_beats(3, leads=1), r"found \(3, 1, 45\): this student was trained on 2 leads"),
        (raw_beats(3, leads=3), "trained on 2 leads"),
        (raw_beats(3)[0], r"found \(2, 45\): a beat has 2 leads of 45 samples"),
        (raw_beats(3)[:, 0], r"found \(3, 45\)"),
        (raw_beats(3)[None], r"found \(1, 3, 2, 45\)"),
        (raw_beats(3)[:0], r"found \(0, 2, 45\): there are no beats"),
        ([], r"found \(0,\)"),
        (1.0, r"found \(\)"),
        (spoiled((2, 1, 7), np.nan), "beat 2, lead 1, sample 7 is nan"),
        (spoiled((0, 0, 0), np.inf), "beat 0, lead 0, sample 0 is inf"),
        (spoiled((1, 0, 3), -1e38), r"beat 1, lead 0, sample 3 is -9.9\d*e\+37"),
        (raw_beats(3).astype(complex), "must be real numbers, but are complex"),
        (raw_beats(3) > 0, "must be real numbers, but are bool"),
        (raw_beats(3).astype(str), "must be real numbers, but are <U"),
        (raw_beats(3).astype(object), "must be real numbers, but are object"),
        (None, "must be real numbers, but are object"),
        ([[1.0, 2.0], [3.0]], "not an array of numbers"),
        (np.ma.masked_greater(raw_beats(3), 1.0), "some values are masked"),
    ],
)
@pytest.mark.parametrize("call", ["score", "flag", "reconstruct", "normalised"])
def test_what_cannot_be_scored_is_refused(
    student: Student, call: str, beats: object, message: str
):
    with pytest.raises(DataError, match=message):
        getattr(student, call)(beats)


def test_nothing_there(tmp_path: Path):
    with pytest.raises(RunError, match="no such file or folder"):
        kdsearch.load_student(tmp_path / "kd")
    with pytest.raises(
        RunError, match=r"no model.safetensors in it; expected a run folder or its best/"
    ):
        kdsearch.load_student(tmp_path)
    (tmp_path / "search.yaml").write_text("{}")
    with pytest.raises(RunError, match="no best student yet; finish it with --resume"):
        kdsearch.load_student(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 5000])
def test_a_model_that_is_damaged(copy: Path, content: bytes):
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"model\.safetensors: damaged or half-written"):
        kdsearch.load_student(copy)


def test_a_model_cut_off_or_with_one_wrong_bit(copy: Path):
    whole = (copy / "model.safetensors").read_bytes()
    for torn in (whole[:-1], whole[:100], whole[:2000] + b"\xff" + whole[2001:]):
        (copy / "model.safetensors").write_bytes(torn)
        with pytest.raises(RunError, match="damaged or half-written"):
            kdsearch.load_student(copy)


def test_a_model_without_a_card(copy: Path):
    (copy / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"config\.yaml: missing, but a model\.safetensors"):
        kdsearch.load_student(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("input"), "an older kdsearch wrote it"),
        (lambda c: c.pop("threshold"), "does not say what beats the model takes"),
        (lambda c: c.update(threshold=float("nan")), "threshold: .*finite"),
        (lambda c: c.update(threshold="high"), "threshold: .*number"),
        (lambda c: c["input"].update(length=0), "input.length: .*greater than or equal to 1"),
        (lambda c: c["input"].update(length=90), "padded to 96, but found 64"),
        (
            lambda c: c["input"].update(length=96, padded_length=96),
            r"model\.safetensors: does not score",
        ),
        (
            lambda c: c["input"].update(leads=1),
            r"model\.safetensors: does not score a beat as config",
        ),
        (lambda c: c["input"].update(normalisation="z"), "input.normalisation: .*each beat"),
        (lambda c: c["input"].update(lenght=4), "input.lenght: .*not permitted"),
        (
            lambda c: c["student"].update(width=0),
            "student: width: .*greater than or equal to 1",
        ),
        (
            lambda c: c.update(method="beatgam"),
            "expected 'beatgan', 'memory' or 'package",
        ),
        (lambda c: c.update(method="no.such:Thing"), "cannot import 'no.such:Thing'"),
    ],
)
def test_a_card_that_does_not_fit(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
):
    change_card(copy, change)
    with pytest.raises((RunError, ConfigError), match=message):
        kdsearch.load_student(copy)


@pytest.mark.parametrize("text", ["", "3", "[1, 2]", "a: [", "\0"])
def test_a_card_that_is_none(copy: Path, text: str):
    (copy / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: (does not say|broken YAML)"):
        kdsearch.load_student(copy)


def test_weights_of_something_else_or_without_finite_values(best: Best, copy: Path):
    save_tensors(copy / "model.safetensors", {"method": "other", "format": 1})
    with pytest.raises(RunError, match="weights of method 'beatgan' in format 1 expected"):
        kdsearch.load_student(copy)
    weights = load_tensors(best.folder / "model.safetensors")
    next(iter(weights["generator"].values())).fill_(float("nan"))
    save_tensors(copy / "model.safetensors", weights)
    with pytest.raises(RunError, match="gives no finite score"):
        kdsearch.load_student(copy)


OWN_METHOD = """
from typing import ClassVar
import numpy as np
from pydantic import BaseModel

class Settings(BaseModel):
    epochs: int = 1
    power: float = 2.0

class Distance:
    name = "distance"
    student_settings = Settings
    def score(self, weights, x, compute):
        assert x.shape[1:] == (2, 64) and abs(x).max() <= 1
        far = np.abs(x - weights["mean"].numpy())
        return (far ** weights["power"]).mean(axis=(1, 2))
"""


def test_a_method_of_the_users_own(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: Best
):
    import torch  # noqa: PLC0415

    (tmp_path / "own_method.py").write_text(OWN_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    change_card(copy, lambda c: c.update(method="own_method:Distance", student={"power": 3.0}))
    save_tensors(copy / "model.safetensors", {"mean": torch.zeros(2, 64), "power": 3.0})
    student = kdsearch.load_student(copy)
    assert student.settings.model_dump() == {"epochs": 1, "power": 3.0}
    expected = (np.abs(student.prepared(best.x)) ** 3).mean(axis=(1, 2))
    np.testing.assert_allclose(student.score(best.x), expected, rtol=1e-6)
    with pytest.raises(RunError, match=r"'own_method:Distance' has no reconstruct\(\)"):
        student.reconstruct(best.x)


def test_neither_ray_nor_optuna_is_needed(best: Best):
    code = (
        "import sys, kdsearch\n"
        "heavy = {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"student = kdsearch.load_student({str(best.run)!r})\n"
        "print(student.score([[[0.0, 1.0, 2.0] * 15] * 2]).shape)\n"
        "heavy = {'ray', 'optuna', 'pandas', 'matplotlib', 'wfdb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(1,)"), done.stderr


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'load_teacher'"):
        _ = kdsearch.load_teacher


@pytest.mark.parametrize(
    "rule", ["f1", {"sensitivity": 0.9}, {"specificity": 0.9}, "specificity=0.9", 0.5], ids=str
)
def test_another_threshold(best: Best, student: Student, rule: Any):
    validation = best.dataset.training.validation
    scores = best.config.method.score(best.weights, validation.x, COMPUTE)
    expected = parse_rule(rule).threshold(rank(scores, validation.abnormal))
    changed = student.at(rule)
    assert changed.threshold == changed.card.threshold == expected
    assert student.threshold != expected, "the student itself is as it was"
    flagged = student.flag(best.x, threshold=rule)
    assert (flagged == changed.flag(best.x)).all()
    assert (flagged == (student.score(best.x).astype(np.float64) >= expected)).all()
    assert changed.at("f1").threshold == student.at("f1").threshold


def test_a_threshold_that_cannot_be(copy: Path):
    with pytest.raises(ConfigError, match=r"threshold: expected f1, .* but found 'ppv=0\.9'"):
        kdsearch.load_student(copy).at("ppv=0.9")
    for damage in (lambda file: file.write_bytes(b"PK torn"), Path.unlink):
        damage(copy / "validation.npz")
        student = kdsearch.load_student(copy)
        with pytest.raises(RunError, match=r"validation\.npz: (not the scores|cannot be)"):
            student.at({"sensitivity": 0.9})
        assert student.at(0.25).threshold == 0.25
