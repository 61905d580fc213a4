"""What a command line asks for, and what a resume keeps of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console
from search_cases import space_file

from kdsearch.config.space_file import parse_config, read_yaml
from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.teachers.existing import read_sources
from kdsearch.tuning.request import Request, check_resume, make_request


def request(
    folder: RunFolder,
    *,
    resume: bool | Literal["auto"] = False,
    settings: Sequence[str] = (),
    **given: Any,
) -> Request:
    return make_request(
        parse_config(space_file(), "kd.yaml"),
        given,
        folder,
        resume=resume,
        address=None,
        console=Console(file=io.StringIO()),
        optuna_storage=None,
        settings=settings,
    )


def begun(folder: RunFolder, **given: Any) -> Request:
    """A search that was started and killed before its first trial."""
    started = request(folder, **given)
    folder.write_config(started.config.as_dict(), started.overrides)
    return started


def test_a_resume_from_another_folder_finds_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    started = begun(folder, data="beats.npz", settings=["data.patients=patients.csv"])
    assert started.config.data.source == str(tmp_path / "beats.npz")
    monkeypatch.chdir("/")
    resumed = request(folder, resume=True, data=None)
    assert resumed.config.data == started.config.data
    assert resumed.config.data.patients == str(tmp_path / "patients.csv")
    assert request(folder, resume=True, data="moved.npz").config.data.source == "/moved.npz"


def test_a_method_that_a_run_folder_names_is_not_imported_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = RunFolder(tmp_path / "run")
    started = begun(folder)
    (folder.path / "stranger.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(folder.path)
    overrides = {"method": "stranger:Method"}
    folder.write_config(started.config.as_dict(), overrides)
    with pytest.raises(ConfigError, match="is in the run folder, whose code is not run"):
        request(folder, resume=True)


DETECTOR = "sklearn.neighbors.LocalOutlierFactor"


@pytest.mark.parametrize("named", [(), (f"teacher.detector={DETECTOR}",)])
def test_a_detector_is_imported_only_if_the_command_line_names_it(
    named: Sequence[str], tmp_path: Path
):
    folder = RunFolder(tmp_path / "run")
    options = "teacher.options={novelty: true}"
    begun(folder, settings=[f"teacher.detector={DETECTOR}", options])
    resumed = request(folder, resume=True, settings=[*named, *([options] if named else [])])
    assert resumed.config.teacher_source.detector == DETECTOR
    if named:
        assert read_sources(resumed.config)[0].kind == f"detector {DETECTOR}"
    else:
        with pytest.raises(RunError, match=f"{DETECTOR} is named by a run folder and is not"):
            read_sources(resumed.config)


def test_a_detector_in_a_whole_section_is_foreign_too(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    started = begun(folder, settings=["teacher={detector: a.B}"])
    assert started.overrides.keys() == {"teacher"}
    assert not started.config.foreign
    assert request(folder, resume=True).config.foreign


# --set.

SETTINGS = {
    "student.width=16": ("student", "width", 16),
    "search.num_samples=8": ("search", "num_samples", 8),
    "search.max_concurrent=": ("search", "max_concurrent", None),
    "teacher.lr=1e-3": ("teacher", "lr", 0.001),
    "space.lr={loguniform: [1e-5, 1e-3]}": ("space", "lr", {"loguniform": [1e-5, 1e-3]}),
    "space.w_adv.uniform=[1, 2]": ("space", "w_adv", {"uniform": [1, 2]}),
    "space.width={choice: [2, 4]}": ("space", "width", {"choice": [2, 4]}),
    "confirm.top=0": ("confirm", "top", 0),
    "data.simulated.beats=500": (
        "data",
        "simulated",
        {"patients": 24, "beats": 500, "abnormal": 0.16, "noise_mv": 0.02},
    ),
}


@pytest.mark.parametrize(("text", "expected"), SETTINGS.items(), ids=SETTINGS)
def test_any_key_of_the_space_file_can_be_set(
    tmp_path: Path, text: str, expected: tuple[str, str, Any]
):
    section, key, value = expected
    plain = parse_config(space_file(), "kd.yaml").as_dict()
    plain["student"].pop(key, None)
    plain[section][key] = value
    folder = RunFolder(tmp_path / "run")
    config = begun(folder, settings=[text]).config
    assert config.as_dict() == parse_config(plain, "kd.yaml").as_dict()
    stored = read_yaml(folder.config_file)
    assert isinstance(stored, dict)
    assert stored[section][key] == value


def test_the_threshold_and_a_whole_section_can_be_set(tmp_path: Path):
    settings = ["threshold={sensitivity: 0.9}", "scheduler={name: none}", "search.seed=3"]
    config = request(RunFolder(tmp_path / "run"), settings=settings).config
    assert config.threshold.as_plain() == {"sensitivity": 0.9}
    assert (config.scheduler.name, config.scheduler.grace_period) == ("none", 1)
    assert config.search.seed == 3


BAD_SETTINGS = {
    "student.width": "--set: expected KEY=VALUE, such as student.width=16, but found",
    "=3": "--set: expected KEY=VALUE",
    "student..width=3": "--set: expected KEY=VALUE",
    "student.width=[": "--set student.width: broken YAML: ",
    "student.width=0": "kd.yaml with --set student.width: student.width: input should be",
    "student.widht=16": "with --set student.widht: unknown key 'student.widht' .*'width'",
    "serach.seed=1": "unknown key 'serach' .*'search'",
    "student.width.wide=1": r"unknown key 'student.width.wide' \('width' has no keys\)",
    "space.lr={uniform: [2, 1]}": "with --set space.lr: space.lr: low must be below high",
    "data.simulated.beets=9": "unknown key 'data.simulated.beets' .*'beats'",
}


@pytest.mark.parametrize(("text", "message"), BAD_SETTINGS.items(), ids=BAD_SETTINGS)
def test_what_is_set_is_checked_like_the_file(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        request(RunFolder(tmp_path / "run"), settings=[text])


def test_a_key_is_not_set_twice(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    message = r"--set search\.seed: this key is already set by another flag"
    with pytest.raises(ConfigError, match=message):
        request(folder, seed=1, settings=["search.seed=2"])
    with pytest.raises(ConfigError, match=message):
        request(folder, settings=["search.seed=1", "search.seed=2"])


def test_a_resume_keeps_what_was_set_and_takes_new_values(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    started = begun(folder, settings=["student.width=3", "search.num_samples=8"])
    resumed = request(folder, resume=True)
    assert resumed.config.as_dict() == started.config.as_dict()
    check_resume(resumed)
    assert request(folder, resume=True, num_samples=9).config.search.num_samples == 9
    with pytest.raises(RunError, match=r"holds a search with student\.width=3, not 4"):
        check_resume(request(folder, resume=True, settings=["student.width=4"]))


# --resume auto.


def test_a_resume_by_another_metric_is_refused(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    begun(folder)
    other = request(folder, resume=True, settings=["search.metric=val_ap"])
    message = r"search\.objectives=\['val_auc'\], not \['val_ap'\]: resume it with its own"
    with pytest.raises(RunError, match=message):
        check_resume(other)


def test_an_automatic_resume_starts_and_then_continues(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    started = request(folder, resume="auto", seed=5)
    assert not started.resume
    check_resume(started)
    begun(folder, seed=5)
    resumed = request(folder, resume="auto")
    assert resumed.resume
    assert resumed.config.search.seed == 5
    check_resume(resumed)
    # Another driver was faster: this request was made before there was a run.
    with pytest.raises(RunError, match="this run exists already"):
        check_resume(started)


@pytest.mark.parametrize("left", ["search.yaml is lost", "search.yaml is damaged"])
def test_an_automatic_resume_of_a_damaged_run_starts_no_second_search(
    tmp_path: Path, left: str
):
    folder = RunFolder(tmp_path / "run")
    folder.trials.mkdir(parents=True)
    if left == "search.yaml is damaged":
        folder.config_file.write_text("- a")
    with pytest.raises((RunError, ConfigError), match=r"search\.yaml: (no such file|damaged)"):
        check_resume(request(folder, resume="auto"))
