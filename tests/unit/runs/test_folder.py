"""The run folder: who may write to it, and what of it is up to date."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from search_cases import space_file, write_trial

from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord


def state(epoch: int) -> dict:
    return {"weights": torch.full((3,), float(epoch)), "epoch": epoch}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "kd")


# Names and whether a folder is a run.


@pytest.mark.parametrize("name", ["kd", "fold-0", "2026.11_a", "A" * 100])
def test_a_plain_name_lies_in_the_runs_folder(tmp_path: Path, name: str):
    assert RunFolder.named(tmp_path, name).path.parent == tmp_path


BAD_NAMES = ["", ".", "..", "../kd", "a/b", "/kd", "a\\b", "~", "-n", ".hidden", "a b", "a\n"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "ä", "a\0b", "a" * 101])
def test_a_name_cannot_escape(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="--name: letters, digits") as refused:
        RunFolder.named(tmp_path, name)
    assert "\n" not in str(refused.value)


def test_only_a_folder_with_a_search_is_a_run(tmp_path: Path):
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        RunFolder.existing(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"not a run folder, it has no search\.yaml"):
        RunFolder.existing(tmp_path)
    folder = RunFolder(tmp_path)
    assert not folder.exists()
    folder.write_config(space_file(), {"seed": 3})
    assert folder.exists()
    assert RunFolder.existing(tmp_path).path == tmp_path


def test_the_stored_configuration_is_the_given_one_and_the_overrides(folder: RunFolder):
    folder.write_config(space_file(), {"search.seed": 3})
    stored = yaml.safe_load(folder.config_file.read_text())
    assert stored.pop("overrides") == {"search.seed": 3}
    assert stored == space_file()
    assert list(stored) == list(space_file())


def test_json_that_cannot_be_read_says_which(folder: RunFolder):
    folder.path.mkdir(parents=True)
    with pytest.raises(RunError, match=r"teacher\.json: no such file"):
        folder.read_json(folder.teacher_file)
    for damage in (b'{"seconds": 1', b"\xff\xfe", b""):
        folder.teacher_file.write_bytes(damage)
        with pytest.raises(RunError, match=r"teacher\.json: cannot be read"):
            folder.read_json(folder.teacher_file)
    folder.teacher_file.write_text("[1]")
    with pytest.raises(RunError, match=r"teacher\.json: damaged: expected keys and values"):
        folder.read_json(folder.teacher_file)


# The lock.


def take(folder: RunFolder) -> None:
    with folder.lock():
        pass


def test_a_driver_makes_safe_what_a_killed_one_only_wrote(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    """Its user is shown these trials: a power cut must not undo them any more."""
    write_trial(folder, TrialRecord(0, "completed", {}, {1: 0.5}))
    synced: list[Path] = []
    monkeypatch.setattr(
        "os.fsync",
        lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()),
    )
    with folder.lock():
        run = folder.path
        assert {run.parent, run, run / "trials", run / "trials" / "0"} <= {*synced}


def test_the_lock_refuses_a_second_holder(folder: RunFolder):
    with folder.lock(), pytest.raises(RunError, match="another search is running in this fol"):
        take(folder)
    take(folder)


def test_the_lock_refuses_another_process_until_that_one_is_killed(folder: RunFolder):
    program = (
        "import sys, pathlib\n"
        "from kdsearch.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock():\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another search is running in this folder"):
            take(folder)
        holder.send_signal(signal.SIGKILL)
    take(folder)


def test_a_failing_search_gives_the_lock_back(folder: RunFolder):
    with pytest.raises(TimeoutError, match="of the search itself"), folder.lock():
        raise TimeoutError("of the search itself")
    take(folder)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path):
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match=r"runs/kd: cannot be written: Not a directory"):
        take(RunFolder(tmp_path / "runs" / "kd"))


def test_the_best_is_swapped_as_one(folder: RunFolder):
    for epoch in (1, 2):
        folder.write_best(state(epoch), {"method": "beatgan"}, {"trial": epoch}, {})
        names = sorted(path.name for path in folder.best.iterdir())
        assert names == [
            "README.md",
            "config.yaml",
            "metrics.json",
            "model.safetensors",
            "validation.npz",
        ]
        assert folder.read_json(folder.best / "metrics.json") == {"trial": epoch}
    assert [path.name for path in folder.path.iterdir()] == ["best"]


def test_a_teachers_description_comes_after_its_weights(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("kdsearch.runs.folder.save_state", full)
    with pytest.raises(OSError, match="no space left"):
        folder.write_teacher(state(1), {"fingerprint": "f"})
    assert not folder.teacher_file.exists()


# Trials.


def test_trial_folders_are_in_order_of_value(folder: RunFolder):
    assert folder.trial_files() == {}
    for name in ("10", "9", "0", "x", ".tmp", "007", "٣", "5"):
        (folder.trials / name).mkdir(parents=True)
        if name != "5":
            (folder.trials / name / "trial.json").touch()
    (folder.trials / "3").write_text("a file")
    (folder.trials / "9" / "best.pt").touch()
    assert list(folder.trial_files()) == [0, 9, 10]
    assert folder.trial_files()[9] == {"trial.json", "best.pt"}


def test_a_stray_number_is_one_record(folder: RunFolder):
    write_trial(folder, TrialRecord(0, "completed", {}, {1: 0.5}))
    write_trial(folder, TrialRecord(300_000, "completed", {}, {1: 0.5}))
    assert [record.number for record in folder.records()] == [0, 300_000]


def test_a_run_keeps_its_identity(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    known = folder.identity()
    folder.path.rename(folder.path.with_name("moved"))
    assert RunFolder(folder.path.with_name("moved")).identity() == known
    assert RunFolder(folder.path).identity() != known
    monkeypatch.setattr("kdsearch.runs.folder.write_text", raise_read_only)
    foreign = RunFolder(folder.path.with_name("foreign"))
    assert foreign.identity() == foreign.identity(), "of a run that cannot be written"


def raise_read_only(*_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_derived_files_count_once_the_work_has_ended(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.concluded, "nothing is there"
    folder.begin_work()
    folder.write_best({}, {}, {"trial": 0}, {})
    assert not folder.concluded, "killed before the end"
    folder.end_work()
    assert folder.concluded
    folder.begin_work()
    assert not folder.concluded, "extended: what is there speaks of fewer trials"
