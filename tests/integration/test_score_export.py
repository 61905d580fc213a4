"""What a user does with the best student: score records and files, export it, run it."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import onnx
import onnxruntime
import pytest
import wfdb
import yaml
from wfdb_cases import PEAKS, RATE, SECONDS, write_record

import kdsearch
from kdsearch.cli.main import main
from kdsearch.config.space_file import parse_config
from kdsearch.data import Beats, DataSettings, load_beats, prepare
from kdsearch.data.ecg import CUTTING
from kdsearch.data.recordings import cut_record
from kdsearch.data.wfdb_files import first_leads, read_header
from kdsearch.errors import DataError
from kdsearch.methods.beatgan.settings import TeacherSettings
from kdsearch.methods.beatgan.stack import BeatGanStack
from kdsearch.methods.protocol import Compute, Task
from kdsearch.runs.folder import RunFolder
from kdsearch.student.inputs import read_input
from kdsearch.student.scored import score_sources
from kdsearch.student.source import Reading
from kdsearch.student.student import COMPUTE, Student, describe_student

SYMBOLS = ["N", "A", "V", "+", *"N" * (len(PEAKS) - 4)]
SMALL = {"width": 4, "latent": 5, "batch_size": 32, "epochs": 1}
SIMULATED = DataSettings.model_validate({"simulated": {"patients": 6, "beats": 600}})


def make_best(run: Path, beats: Beats, leads: int = 1, context: str = "none") -> Path:
    """A BeatGAN of one epoch, written as a search writes its best student."""
    chosen = {"leads": leads, "split": "stratified", "context": context}
    dataset = prepare(beats, SIMULATED.model_copy(update=chosen))
    config = parse_config(
        {
            "data": {},
            "teacher": SMALL,
            "student": SMALL,
            "space": {"temperature": 1, "alpha": 0.1, "w_adv": 1, "lr": 0.001},
            "search": {"num_samples": 1},
        },
        "space.yaml",
    )
    trained = TeacherSettings.model_validate({**SMALL, "lr": 1e-3})
    stack = BeatGanStack(trained, 1, Task(dataset.training, Compute()))
    stack.put_in(0, trained, seed=3)
    stack.advance()
    weights = stack.weights(0)
    scores = config.method.score(weights, dataset.training.validation.x, COMPUTE)
    threshold = float(np.quantile(scores, 0.9))
    card = describe_student(config, config.student_settings({}), dataset, threshold)
    RunFolder(run).write_best(weights, card, {}, {})
    return run


@pytest.fixture(scope="module")
def beats() -> Beats:
    return load_beats(SIMULATED, Path("unused"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, beats: Beats) -> Path:
    return make_best(tmp_path_factory.mktemp("runs") / "kd", beats)


@pytest.fixture(scope="module")
def student(run: Path) -> Student:
    return kdsearch.load_student(run)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of beats of two leads and 45 samples that were not cut by kdsearch."""
    rng = np.random.default_rng(0)
    x = np.sin(np.linspace(0, 6, 45) + rng.uniform(0, 2, (100, 2, 1))).astype(np.float32)
    classes = np.where(np.arange(100) % 5 == 0, "abnormal", "N")
    cut = Beats(x, classes, None, "f" * 64, "foreign.npz, 100 beats")
    return make_best(tmp_path_factory.mktemp("runs") / "foreign", cut, leads=2)


def score(model: Path, given: Path, out: Path, *flags: str) -> list[dict[str, str]]:
    """The rows of the table that the command writes."""
    assert main(["score", str(model), str(given), "--out", str(out), *flags]) == 0
    check_picture(out / "flagged.png")
    with (out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def check_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width > 800
    assert height > 400


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def test_a_record_with_annotations(
    run: Path, student: Student, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_record(tmp_path / "records", symbols=SYMBOLS)
    rows = score(run, path, tmp_path / "out")
    cut = cut_record(first_leads(read_header(path)), 1)
    # The '+' is no beat, and the last one's window leaves the record.
    assert [row["class"] for row in rows] == ["N", "S", "V", *"N" * 15] == cut.classes.tolist()
    np.testing.assert_allclose(column(rows, "score"), student.score(cut.x), rtol=1e-5)
    np.testing.assert_array_equal(column(rows, "sample"), np.delete(PEAKS, 3)[:18])
    np.testing.assert_allclose(
        column(rows, "time_s"), np.delete(PEAKS, 3)[:18] / 360, atol=1e-4
    )
    flagged = [row["flagged"] == "True" for row in rows]
    np.testing.assert_array_equal(flagged, column(rows, "score") >= student.threshold)
    said = capsys.readouterr().out
    assert f"r1: {sum(flagged)} of 18 beats flagged" in said
    assert "class V: " in said
    assert "1 beat too near the record's ends not scored" in said
    assert "trained on simulated beats" in said


def test_without_annotations_beats_are_found_at_their_peaks(run: Path, tmp_path: Path, capsys):
    known = score(run, write_record(tmp_path / "a", symbols=SYMBOLS), tmp_path / "a_out")
    plain = write_record(tmp_path / "b", symbols=None)
    for path, flags in ((plain, ()), (tmp_path / "a" / "r1", ("--detect",))):
        found = score(run, path.with_name("r1.hea"), tmp_path / "out", *flags)
        assert {row["class"] for row in found} == {""}
        scores = {int(row["sample"]): float(row["score"]) for row in found}
        for row in known[3:]:
            assert scores[int(row["sample"])] == pytest.approx(float(row["score"]), rel=1e-5)
    assert "beats found by their R peaks, not annotated" in capsys.readouterr().out


def test_detected_beats_that_cannot_be_trusted(run: Path, tmp_path: Path, capsys):
    path = write_record(tmp_path / "a", symbols=SYMBOLS)
    score(run, path, tmp_path / "out", "--detect")
    assert "warning" not in capsys.readouterr().out
    rng = np.random.default_rng(0)
    for name, damage, reason in (
        ("noise", lambda signal: rng.standard_normal(signal.shape), "both agree on "),
        ("upside-down", lambda signal: -signal, "lead MLII is "),
    ):
        path = write_record(tmp_path / name, symbols=SYMBOLS, damage=damage)
        score(run, path, tmp_path / "out", "--detect")
        said = capsys.readouterr().out
        assert "warning: r1: do not trust its " in said
        assert reason in said
        score(run, path, tmp_path / "out")
        assert "warning" not in capsys.readouterr().out


def test_another_sampling_rate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    at_360 = score(run, write_record(tmp_path / "a", symbols=SYMBOLS), tmp_path / "out")
    path = write_record(tmp_path / "b", rate=500, symbols=SYMBOLS)
    at_500 = score(run, path, tmp_path / "out")
    assert "r1: resampled from 500 to 360 Hz" in capsys.readouterr().out
    assert [row["time_s"] for row in at_500] == [row["time_s"] for row in at_360]
    np.testing.assert_array_equal(
        column(at_500, "sample"), np.delete(PEAKS, 3)[:18] * 500 // 360
    )
    np.testing.assert_allclose(column(at_500, "score"), column(at_360, "score"), rtol=0.1)


def test_a_folder_of_records(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "records"
    for name in ("102", "100", "101"):
        write_record(folder, name, symbols=SYMBOLS if name == "100" else None)
    # MIT-BIH's records are known by their length as well: 102 is one, the others are not.
    header = folder / "102.hea"
    header.write_text(header.read_text().replace(f" {SECONDS * RATE}\n", " 650000\n"))
    rows = score(run, folder, tmp_path / "out")
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    assert list(dict.fromkeys(row["record"] for row in rows)) == ["100", "101"]
    assert {row["class"] for row in rows if row["record"] == "101"} == {""}
    assert "left out, as they have a pacemaker: 102" in capsys.readouterr().out


def test_a_record_on_the_lead_that_is_asked_for(run: Path, tmp_path: Path):
    path = write_record(tmp_path / "records", symbols=SYMBOLS)
    card = kdsearch.load_student(run).card
    assert card.input.cutting == CUTTING
    mlii = score(run, path, tmp_path / "out")
    v5 = score(run, path, tmp_path / "out", "--lead", "V5")
    # The same wave at half the height: each beat is scaled by its own extremes.
    np.testing.assert_allclose(column(v5, "score"), column(mlii, "score"), rtol=0.02)
    assert column(v5, "score").tolist() != column(mlii, "score").tolist()


def test_beats_of_an_npz(run: Path, beats: Beats, student: Student, tmp_path: Path, capsys):
    x, y, record = beats.x[:40], beats.classes[:40], beats.record[:40]
    np.savez(tmp_path / "all.npz", x=x, y=y, record=record)
    rows = score(run, tmp_path / "all.npz", tmp_path / "out")
    assert "all.npz: scored by the first 1 of 2 leads" in capsys.readouterr().out
    np.testing.assert_allclose(column(rows, "score"), student.score(x[:, :1]), rtol=1e-6)
    assert [row["class"] for row in rows] == y.tolist()
    assert [row["record"] for row in rows] == record.tolist()
    assert {row["sample"] for row in rows} == {""}
    np.savez(tmp_path / "plain.npz", x=x[:, 0])
    plain = score(run, tmp_path / "plain.npz", tmp_path / "out")
    np.testing.assert_array_equal(column(plain, "score"), column(rows, "score"))
    assert {row["class"] for row in plain} == {""}


def test_a_table_for_programs(run: Path, beats: Beats, student: Student, tmp_path: Path):
    np.savez(tmp_path / "b.npz", x=beats.x[:40, 0])
    out = tmp_path / "out"
    flags = ["--out", str(out), "--format", "json"]
    assert main(["score", str(run), str(tmp_path / "b.npz"), *flags]) == 0
    rows = json.loads((out / "scores.json").read_text())
    assert list(rows[0]) == ["index", "record", "sample", "time_s", "class", "score", "flagged"]
    assert rows[0]["sample"] is None
    scores = student.score(beats.x[:40, 0])
    assert [row["score"] for row in rows] == [float(value) for value in scores]
    assert [row["flagged"] for row in rows] == student.called(scores).tolist()


def csv_text(x: np.ndarray, head: str = "", tail: str = "") -> str:
    return head + "".join(",".join(map(repr, row.tolist())) + tail + "\n" for row in x)


def test_beats_of_a_csv(run: Path, beats: Beats, student: Student, tmp_path: Path):
    x = beats.x[:6, 0]
    expected = student.score(x)
    counted = ",".join(map(str, range(320))) + "\n"
    named = ",".join(f"s{i}" for i in range(320))
    file = tmp_path / "b.csv"
    for text in (
        csv_text(x),
        "\ufeff" + csv_text(x),
        csv_text(x, counted),
        csv_text(x, f"{named}\n").replace("\n", "\r\n"),
        csv_text(x, f"{named},Class,record\n", ",V,p1"),
        csv_text(x, counted.replace("\n", ",class\n"), ",1"),
    ):
        file.write_text(text, newline="")
        rows = score(run, file, tmp_path / "out")
        np.testing.assert_array_equal(column(rows, "score"), expected.astype(np.float64))
    assert {row["class"] for row in rows} == {"abnormal"}


def test_two_leads_of_a_csv_and_padding(foreign: Path, tmp_path: Path):
    x = np.random.default_rng(1).normal(size=(5, 2, 45))
    (tmp_path / "b.csv").write_text(csv_text(x.reshape(5, 90)))
    rows = score(foreign, tmp_path / "b.csv", tmp_path / "out")
    expected = kdsearch.load_student(foreign).score(x)
    np.testing.assert_allclose(column(rows, "score"), expected, rtol=1e-6)


ONES = "1," * 319


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no beats in it"),
        ("\n\n", "no beats in it"),
        (",".join(f"s{i}" for i in range(320)), "no beats in it"),
        ("1,2,3\n", "expected 320 samples in a row (1 lead of 320), but found 3"),
        ("1;2;3\n", "no beats in it"),
        (f"{ONES}1\n{ONES}1,1\n", "line 2 has 321 cells, but the first 320"),
        (f"{ONES}1\n{ONES}\n", "line 2, column 319: expected a finite number, found ''"),
        (f"{ONES}1\n{ONES}nan\n", "line 2, column 319: expected a finite number, found 'nan'"),
        (f"{ONES}inf\n", "line 1, column 319: expected a finite number, found 'inf'"),
        (f"{ONES}1\n{ONES}1.2.3\n", "line 2, column 319: expected a finite number"),
        (f"{ONES}1.2.3\n{ONES}1\n", "line 1 is neither a beat nor names of columns"),
        (
            "a\n" + "1;" * 99 + "1\n",
            "1;1;1;'; cells are separated by commas",
        ),
        (f"{ONES}1,N\n", "line 1 is neither a beat nor names of columns"),
        (f"{ONES}True\n", "line 1 is neither a beat nor names of columns"),
        (f"{ONES}1\n{ONES}True\n", "line 2, column 319: expected a finite number"),
        (f"{ONES}1e300\n", "beat 0, lead 0, sample 319 is 1e+300"),
        ("\udcff\n", "not a readable .csv"),
    ],
)
def test_a_csv_that_cannot_be_scored(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
):
    (tmp_path / "b.csv").write_text(text, errors="surrogateescape")
    refused(["score", run, tmp_path / "b.csv", "--out", tmp_path / "out"], message, capsys)


def refused(arguments: list[Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Answered in one line, exit status 2, nothing written."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    if "--out" in arguments:
        assert not Path(arguments[arguments.index("--out") + 1]).exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros(3)}, "no array 'x' in it (found: y)"),
        ({"x": np.zeros((3, 319))}, "found (3, 1, 319): this student was trained on beats of"),
        ({"x": np.zeros(320)}, "expected the shape (beats, leads, samples)"),
        ({"x": np.zeros((0, 320))}, "there are no beats"),
        ({"x": np.full((3, 320), np.nan)}, "beat 0, lead 0, sample 0 is nan"),
        ({"x": np.zeros((3, 320), dtype=bool)}, "must be real numbers, but are bool"),
        ({"x": np.zeros((3, 320)), "y": np.zeros(2)}, "one label for each of 3 beats"),
        ({"x": np.zeros((3, 320), dtype=object)}, "holds Python objects"),
    ],
)
def test_an_npz_that_cannot_be_scored(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arrays: dict[str, np.ndarray],
    message: str,
):
    np.savez(tmp_path / "b.npz", **arrays)
    refused(["score", run, tmp_path / "b.npz", "--out", tmp_path / "out"], message, capsys)


def test_files_that_cannot_be_scored(run: Path, tmp_path: Path, capsys):
    out = ["--out", tmp_path / "out"]
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(["score", run, tmp_path / "b.npz", *out], "not a readable .npz file", capsys)
    (tmp_path / "b.txt").write_text("1,2")
    refused(["score", run, tmp_path / "b.txt", *out], "expected a WFDB record", capsys)
    refused(["score", run, tmp_path / "none", *out], "no such file or folder", capsys)
    refused(["score", run, tmp_path / "none.hea", *out], "none.hea: no such file", capsys)
    (tmp_path / "empty").mkdir()
    refused(["score", run, tmp_path / "empty", *out], "no WFDB record", capsys)
    (tmp_path / "b.csv").write_text("1")
    refused(["score", run, tmp_path / "b.csv", "--detect", *out], "for recordings", capsys)
    refused(
        ["score", tmp_path / "none", tmp_path / "b.csv", *out], "none: no such file", capsys
    )


def test_records_that_cannot_be_scored(
    run: Path, foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def no_value(signal: np.ndarray) -> np.ndarray:
        signal[70, 1] = np.nan
        return signal

    out = ["--out", tmp_path / "out"]
    write_record(tmp_path / "nan", damage=no_value, symbols=None)
    refused(["score", run, tmp_path / "nan", *out], "no value (NaN) in lead MLII", capsys)
    write_record(tmp_path / "short", damage=lambda signal: signal[:200], symbols=None)
    refused(["score", run, tmp_path / "short", *out], "not one whole beat found", capsys)
    write_record(tmp_path / "flat", damage=lambda signal: 0 * signal, symbols=None)
    assert main(["score", str(run), str(tmp_path / "flat")]) == 2
    capsys.readouterr()
    path = write_record(tmp_path / "rhythm", symbols=["+"] * len(PEAKS))
    refused(["score", run, path, *out], "none of its annotations", capsys)
    assert len(score(run, path, tmp_path / "detected", "--detect")) > 10
    path = write_record(tmp_path / "torn", symbols=SYMBOLS)
    path.with_name("r1.dat").write_bytes(path.with_name("r1.dat").read_bytes()[:999])
    refused(["score", run, path, *out], "truncated", capsys)
    path.with_name("r1.dat").unlink()
    refused(["score", run, path, *out], "r1.dat: missing, but r1.hea is there", capsys)
    path = write_record(tmp_path / "whole", symbols=SYMBOLS)
    refused(
        ["score", run, path, "--lead", "aVF", *out],
        "no lead aVF (found: MLII, V5); choose with --lead",
        capsys,
    )
    refused(["score", foreign, path, *out], "were cut elsewhere", capsys)


def test_a_lead_on_which_the_student_was_not_trained(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    best = Path(shutil.copytree(run / "best", tmp_path / "best"))
    card = yaml.safe_load((best / "config.yaml").read_text())
    card["input"]["cutting"]["leads"] = ["MLII"]
    (best / "config.yaml").write_text(yaml.safe_dump(card))
    path = write_record(tmp_path / "records", leads=("V5", "V2"), symbols=None)
    out = ["--out", tmp_path / "out"]
    message = "no lead MLII (found: V5, V2), on which the student was trained"
    refused(["score", best, path, *out], message, capsys)
    assert len(score(best, path, tmp_path / "out", "--lead", "V2")) > 10
    card["input"]["cutting"]["filter_order"] = 540
    (best / "config.yaml").write_text(yaml.safe_dump(card))
    refused(["score", best, path, "--lead", "V2"], "were cut in another way", capsys)


def test_a_student_that_knows_the_patients_own_beat(
    beats: Beats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = make_best(tmp_path / "run", beats, context="patient")
    student = kdsearch.load_student(run)
    path = write_record(tmp_path / "records", symbols=SYMBOLS)
    rows = score(run, path, tmp_path / "out")
    cut = cut_record(first_leads(read_header(path)), 1)
    expected = student.score(cut.x, cut.moments)
    np.testing.assert_allclose(column(rows, "score"), expected, rtol=1e-5)
    with pytest.raises(DataError, match="needs the time of each beat"):
        student.score(cut.x)
    with pytest.raises(DataError, match="moments: of 17 beats, but there are 18"):
        student.score(cut.x, cut.moments[np.arange(17)])
    arrays = {"x": cut.x, "time_s": cut.moments.time_s}
    np.savez(tmp_path / "timed.npz", **arrays)
    timed = score(run, tmp_path / "timed.npz", tmp_path / "timed")
    # The file does not know of the beat after the last, which was not cut.
    np.testing.assert_allclose(column(timed, "score")[:-1], expected[:-1], rtol=1e-4)
    np.savez(tmp_path / "untimed.npz", x=cut.x)
    capsys.readouterr()
    refused(["score", run, tmp_path / "untimed.npz"], "needs the time of each beat", capsys)
    file = tmp_path / "student.onnx"
    assert main(["export", str(run), "--onnx", str(file)]) == 0
    x = student.prepared(cut.x, cut.moments)
    np.testing.assert_allclose(run_onnx(file, x)[0], expected, rtol=1e-3, atol=1e-5)


def test_record_100(mitdb: Path, tmp_path: Path, run: Path, student: Student):
    path = mitdb / "100"
    rows = score(run, path, tmp_path / "out")
    counts = {label: sum(row["class"] == label for row in rows) for label in "NSV"}
    assert counts == {"N": 2237, "S": 33, "V": 1}
    # Training left out normal beats whose R peak is elsewhere; all of its others are here.
    cut = cut_record(first_leads(read_header(path)), 1)
    trained_on = iter(student.score(cut.x))
    scores = iter(column(rows, "score"))
    assert all(any(np.isclose(found, s, rtol=1e-4) for found in scores) for s in trained_on)
    assert len(rows) - len(cut.classes) <= 5
    found = score(run, path, tmp_path / "detected", "--detect")
    places, known = column(found, "sample"), column(rows, "sample")
    nearest = np.abs(places[:, None] - known[None]).min(axis=1)
    assert (nearest < 10).mean() > 0.99
    assert np.median(nearest) == 0


@pytest.mark.parametrize(
    ("name", "flags"), [("114", ()), ("203", ("--detect",)), ("232", ("--detect",))]
)
def test_a_recording_in_pieces_has_the_scores_of_the_whole(
    name: str, flags: tuple[str, ...], mitdb: Path, beats: Beats, tmp_path: Path
):
    student = kdsearch.load_student(make_best(tmp_path / "run", beats, context="patient"))
    whole, pieces = (
        score_sources(name, student, read_input(mitdb / name, student, reading))
        for reading in (
            Reading(detect=bool(flags), piece_s=3600),
            Reading(detect=bool(flags), piece_s=60, margin_s=15),
        )
    )
    assert len(whole.scores) > 1700
    np.testing.assert_array_equal(pieces.sample, whole.sample)
    np.testing.assert_allclose(pieces.scores, whole.scores, rtol=1e-5)
    np.testing.assert_array_equal(pieces.highest.row, whole.highest.row)
    np.testing.assert_allclose(pieces.expected(12), whole.expected(12), atol=1e-5)
    assert pieces.notes == whole.notes


def test_memory_does_not_grow_with_the_length_of_a_recording(
    mitdb: Path, student: Student, tmp_path: Path
):
    signal = wfdb.rdrecord(str(mitdb / "100"), sampto=15 * 60 * 360, physical=False)

    def peak_bytes(copies: int) -> int:
        signal_of_copies = np.tile(signal.d_signal, (copies, 1)).astype(np.int16)
        wfdb.wrsamp(
            f"r{copies}",
            fs=360,
            units=signal.units,
            sig_name=signal.sig_name,
            d_signal=signal_of_copies,
            fmt=["16", "16"],
            adc_gain=signal.adc_gain,
            baseline=signal.baseline,
            write_dir=str(tmp_path),
        )
        del signal_of_copies
        tracemalloc.start()
        reading = Reading(piece_s=60, margin_s=15)
        parts = read_input(tmp_path / f"r{copies}", student, reading)
        scored = score_sources("r", student, parts)
        scored.write(tmp_path / "scores.csv", "csv")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(scored.scores) > 1000 * copies
        return peak

    peak_bytes(1)  # what is imported at first use
    # In double precision, 45 minutes more of one lead are 7.8 MB.
    assert peak_bytes(4) - peak_bytes(1) < 4e6


def test_a_table_of_samples_and_an_edf_file_have_the_scores_of_the_record(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    path = write_record(tmp_path / "records", symbols=SYMBOLS)
    signal = wfdb.rdrecord(str(path)).p_signal[:, ::-1]
    names = ("MLII", "V5")
    at = dict(zip(PEAKS, SYMBOLS, strict=False))
    table = [f"{a:.5f},{b:.5f},{at.get(i, '')}" for i, (a, b) in enumerate(signal)]
    (tmp_path / "r1.csv").write_text("\n".join(["MLII,V5,symbol", *table]) + "\n")
    edfio.Edf(
        [
            edfio.EdfSignal(lead, 360, label=f"ECG {name}", physical_dimension="mV")
            for lead, name in zip(signal.T, names, strict=True)
        ],
        annotations=[edfio.EdfAnnotation(i / 360, None, symbol) for i, symbol in at.items()],
    ).write(tmp_path / "r1.edf")
    for flags in ((), ("--detect",)):
        expected = score(run, path, tmp_path / "out", *flags)
        for file, rate in (("r1.csv", ("--rate", "360")), ("r1.edf", ())):
            rows = score(run, tmp_path / file, tmp_path / "out", *rate, *flags)
            for name in ("record", "sample", "class"):
                assert [row[name] for row in rows] == [row[name] for row in expected]
            # An EDF file has 16 bits for each sample.
            np.testing.assert_allclose(
                column(rows, "score"), column(expected, "score"), rtol=0.01
            )
    v5 = score(run, tmp_path / "r1.csv", tmp_path / "out", "--rate", "360", "--lead", "V5")
    assert column(v5, "score").tolist() != column(rows, "score").tolist()
    out = ["--out", tmp_path / "none"]
    refused(
        ["score", run, tmp_path / "r1.edf", "--rate", 360, *out],
        "--rate is for a .csv with a sample per row",
        capsys,
    )
    command = ["score", run, tmp_path / "r1.csv", "--rate", 360, "--lead", "aVF", *out]
    refused(command, "no lead aVF (found: MLII, V5); choose with --lead", capsys)
    monkeypatch.setitem(sys.modules, "edfio", None)
    message = "EDF files: edfio is not installed; pip install 'kdsearch[edf]'"
    refused(["score", run, tmp_path / "r1.edf", *out], message, capsys)


# The exported file.


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "student.onnx"
    assert main(["export", str(run), "--onnx", str(file)]) == 0
    assert list(file.parent.iterdir()) == [file], "weights are inside, nothing else is left"
    return file


def run_onnx(file: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    scores, again = session.run(["score", "reconstruction"], {"beats": x.astype(np.float32)})
    return scores, again


def test_an_exported_student_scores_as_the_model_does(
    exported: Path, student: Student, beats: Beats
):
    x = beats.x[:, :1]
    scores, again = run_onnx(exported, x)
    assert scores.shape == (600,)
    np.testing.assert_allclose(scores, student.score(x), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(again, student.reconstruct(x), atol=1e-4)
    assert np.ptp(scores) > 1e-3, "beats differ in their scores"


def test_an_exported_student_takes_any_number_of_beats_of_any_height(
    exported: Path, student: Student, beats: Beats
):
    for x in (beats.x[:1, :1], 1e3 * beats.x[:7, :1], np.full((2, 1, 320), 4.0)):
        np.testing.assert_allclose(run_onnx(exported, x)[0], student.score(x), atol=1e-4)
    gap = beats.x[:3, :1].copy()
    gap[1, 0, 9] = np.nan
    np.testing.assert_array_equal(np.isnan(run_onnx(exported, gap)[0]), [False, True, False])
    with pytest.raises(Exception, match="319"):
        run_onnx(exported, beats.x[:1, :1, :319])


def test_padding_and_leads_are_in_the_file(foreign: Path, tmp_path: Path):
    assert main(["export", str(foreign), "--onnx", str(tmp_path / "s.onnx")]) == 0
    x = np.random.default_rng(3).normal(size=(50, 2, 45)).astype(np.float32)
    scores, again = run_onnx(tmp_path / "s.onnx", x)
    student = kdsearch.load_student(foreign)
    np.testing.assert_allclose(scores, student.score(x), atol=1e-4)
    np.testing.assert_allclose(again, student.reconstruct(x), atol=1e-4)
    metadata = {prop.key: prop.value for prop in onnx.load(tmp_path / "s.onnx").metadata_props}
    assert "sampling_rate_hz" not in metadata, "how these beats were cut is unknown"
    assert metadata["padding"] == "to 64 by repeating the edges, in the graph"


def test_the_file_says_what_it_needs(exported: Path, student: Student):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert metadata["sampling_rate_hz"] == "360"
    assert metadata["band_pass"].startswith(
        "FIR, 3 to 45 Hz, order 108 at 360 Hz, forwards and back"
    )
    assert metadata["samples_before_r_peak"] == "140"
    assert (metadata["leads"], metadata["length"]) == ("1", "320")
    assert float(metadata["threshold"]) == student.threshold
    assert metadata["kdsearch_version"] == kdsearch.__version__
    assert metadata["simulated"] == "true"
    assert json.loads(metadata["student"])["width"] == 4


def test_an_export_that_fails_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    file = tmp_path / "s.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(Student, "score_prepared", lambda self, x: np.full(len(x), 7.0))
        refused(["export", run, "--onnx", file], "not written: its scores would differ", capsys)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(run), "--onnx", str(file)]) == 0
    assert "not tested, because onnxruntime is not installed" in capsys.readouterr().out
    file.unlink()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(["export", run, "--onnx", file], "pip install 'kdsearch[onnx]'", capsys)
    assert list(tmp_path.iterdir()) == []


def test_the_commands_take_another_threshold(run: Path, student: Student, tmp_path: Path):
    record = write_record(tmp_path / "records", leads=("MLII",), symbols=None)
    out = tmp_path / "scores"
    flags = [str(run), str(record), "--out", str(out)]
    assert main(["score", *flags, "--threshold", "-1"]) == 0
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert {row["flagged"] for row in rows} == {"True"}
    assert main(["score", *flags, "--threshold", "sensitivity=2"]) == 2
    file = tmp_path / "student.onnx"
    assert main(["export", str(run), "--onnx", str(file), "--threshold", "0.125"]) == 0
    metadata = {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}
    assert metadata["threshold"] == "0.125"
    assert student.threshold != 0.125


# What a student needs to be used.

BLOCKED = """
import sys, time
for name in ("ray", "optuna", "pandas", "plotly", "biosppy", "wfdb", "scipy", "sklearn",
             "matplotlib", "jinja2", "itables", "tensorboardX", "joblib", "pyarrow"):
    sys.modules[name] = None
import numpy as np, torch
begin = time.process_time()
import kdsearch
student = kdsearch.load_student(sys.argv[1])
scores = student.score(np.load(sys.argv[2])["x"])
assert time.process_time() - begin < 2
print(*scores.tolist())
from kdsearch.cli.main import main
sys.exit(main(sys.argv[3:]))
"""


def test_a_student_is_used_without_what_a_search_needs(
    run: Path, student: Student, beats: Beats, tmp_path: Path
):
    file, out = tmp_path / "b.npz", tmp_path / "out"
    x = beats.x[:50, :1]
    np.savez(file, x=x)
    expected = student.score(x)

    def call(*command: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED, str(run), str(file), *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        scores = np.array(done.stdout.split("\n")[0].split(), dtype=np.float32)
        np.testing.assert_array_equal(scores, expected, err_msg=done.stderr)
        return done

    done = call("score", run, file, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    with (out / "scores.csv").open() as table:
        rows = list(csv.DictReader(table))
    np.testing.assert_array_equal(column(rows, "score"), expected.astype(np.float64))
    assert done.stdout.endswith(
        "flagged.png is not drawn: matplotlib is not installed; pip install 'kdsearch[plots]'\n"
    )
    record = write_record(tmp_path / "records", symbols=SYMBOLS)
    done = call("score", run, record, "--out", out)
    assert (done.returncode, done.stderr) == (
        2,
        "error: WFDB records: wfdb is not installed; pip install 'kdsearch[ecg]'\n",
    )
    done = call("search", "--space", "kd", "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: a search: ")
    assert done.stderr.endswith(" is not installed; pip install 'kdsearch[search]'\n")
