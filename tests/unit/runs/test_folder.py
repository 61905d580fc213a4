"""The run folder: who may write to it, what survives a kill, what a finished trial keeps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from search_cases import report, space_file

from kdsearch.errors import ConfigError, RunError
from kdsearch.runs.folder import Note, RunFolder, Superseded, TrialFolder


def state(epoch: int) -> dict:
    return {"weights": torch.full((3,), float(epoch)), "epoch": epoch}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "kd")


@pytest.fixture
def trial(folder: RunFolder) -> TrialFolder:
    return folder.trial(3, folder.next_generation())


def write_epochs(trial: TrialFolder, aucs: list[float]) -> None:
    """Keep epochs as a trial does, each best one with its weights."""
    history = []
    for epoch, auc in enumerate(aucs, start=1):
        improved = all(auc > earlier.val_auc for earlier in history)
        trial.write(
            report(epoch, auc), history, state(epoch), state(epoch) if improved else None
        )
        history.append(report(epoch, auc))


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


def test_the_stored_configuration_is_the_given_one_and_the_flags(folder: RunFolder):
    folder.write_config(space_file(), {"seed": 3})
    stored = yaml.safe_load(folder.config_file.read_text())
    assert stored.pop("flags") == {"seed": 3}
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


# Checkpoints.


def test_a_trial_without_a_folder_begins_anew(folder: RunFolder):
    trial = folder.trial(0)
    assert trial.checkpoint() is None
    assert trial.history() == []
    with pytest.raises(RunError, match=r"best\.pt: no such file"):
        trial.best_weights()


def test_a_checkpoint_holds_the_state_and_every_epoch(trial: TrialFolder):
    write_epochs(trial, [0.6, 0.8, 0.7])
    found = trial.checkpoint()
    assert found.history == [report(1, 0.6), report(2, 0.8), report(3, 0.7)]
    assert torch.equal(found.state["weights"], state(3)["weights"])
    assert torch.equal(trial.best_weights()["weights"], state(2)["weights"])


KEPT = ("metrics.jsonl", "best.pt", "last.pt")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_kill_between_the_files_of_an_epoch_repeats_that_epoch(
    trial: TrialFolder, written: int, monkeypatch: pytest.MonkeyPatch
):
    write_epochs(trial, [0.6])
    renamed = []
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if len(renamed) == written:
            raise KeyboardInterrupt("killed")
        renamed.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        trial.write(report(2, 0.9), [report(1, 0.6)], state(2), state(2))
    monkeypatch.undo()
    assert renamed == list(KEPT[:written])
    found = trial.checkpoint()
    assert found.history == [report(1, 0.6)]
    assert found.state["epoch"] == 1


def test_an_epoch_written_again_stands_once(trial: TrialFolder):
    write_epochs(trial, [0.6, 0.7])
    trial.write(report(2, 0.7), [report(1, 0.6)], state(2), state(2))
    assert trial.history() == [report(1, 0.6), report(2, 0.7)]


def test_a_torn_metrics_line_is_no_epoch(trial: TrialFolder):
    write_epochs(trial, [0.6, 0.7, 0.8])
    metrics = trial.path / "metrics.jsonl"
    whole = metrics.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(0, len(whole), 3):
        metrics.write_bytes(whole[:size])
        assert len(trial.history()) == sum(end <= size for end in ends)
        assert trial.checkpoint() is None, "the state knows three epochs, the lines fewer"


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[1]", b"7", b"\xff", b"", b'{"epoch": 2}', json.dumps({"epoch": 9}).encode()],
)
def test_lines_behind_a_damaged_one_do_not_count(trial: TrialFolder, line: bytes):
    write_epochs(trial, [0.6, 0.7, 0.8])
    metrics = trial.path / "metrics.jsonl"
    lines = metrics.read_bytes().split(b"\n")
    lines[1] = line
    metrics.write_bytes(b"\n".join(lines))
    assert trial.history() == [report(1, 0.6)]


def test_an_epoch_that_is_missing_between_others_ends_the_history(trial: TrialFolder):
    write_epochs(trial, [0.6, 0.7, 0.8])
    metrics = trial.path / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(lines[0] + lines[2])
    assert trial.history() == [report(1, 0.6)]


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None], ids=["empty", "other", "gone"])
def test_a_trial_whose_state_is_damaged_begins_anew(trial: TrialFolder, damage: bytes | None):
    write_epochs(trial, [0.6, 0.7])
    last = trial.path / "last.pt"
    if damage is None:
        last.unlink()
    else:
        last.write_bytes(damage)
    assert trial.checkpoint() is None
    write_epochs(trial, [0.6])
    assert trial.checkpoint().history == [report(1, 0.6)]


def test_damaged_best_weights_say_so(trial: TrialFolder):
    write_epochs(trial, [0.6])
    trial.best_file.write_bytes(trial.best_file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"best\.pt: damaged or half-written"):
        trial.best_weights()


# Generations.


def test_a_worker_of_an_earlier_driver_cannot_write(folder: RunFolder):
    old = folder.trial(0, folder.next_generation())
    write_epochs(old, [0.6])
    new = folder.trial(0, folder.next_generation())
    before = {path.name: path.read_bytes() for path in old.path.iterdir()}
    with pytest.raises(Superseded, match="a newer search has taken over"):
        old.write(report(2, 0.9), [report(1, 0.6)], state(2), state(2))
    assert {path.name: path.read_bytes() for path in old.path.iterdir()} == before
    new.write(report(2, 0.9), [report(1, 0.6)], state(2), None)
    assert len(new.history()) == 2


def test_generations_only_grow(folder: RunFolder):
    found = [RunFolder(folder.path).next_generation() for _ in range(3)]
    assert found == [1, 2, 3]


# What stays.


def test_a_finished_trial_keeps_its_metrics_and_best_weights(trial: TrialFolder):
    write_epochs(trial, [0.6, 0.7])
    (trial.path / ".best.pt.0123abcd.tmp").write_bytes(b"left by a kill")
    trial.reduce(keep_weights=True)
    assert sorted(p.name for p in trial.path.iterdir()) == ["best.pt", "metrics.jsonl"]
    trial.reduce(keep_weights=False)
    assert [p.name for p in trial.path.iterdir()] == ["metrics.jsonl"]
    trial.reduce(keep_weights=False)
    assert len(trial.history()) == 2


def test_reducing_a_trial_that_never_wrote_does_nothing(folder: RunFolder):
    folder.trial(9).reduce(keep_weights=False)
    assert not folder.path.exists()


def test_an_error_is_taken_once(trial: TrialFolder):
    assert trial.take_error() == ""
    trial.write_error("ValueError: größer als erlaubt")
    assert trial.take_error() == "ValueError: größer als erlaubt"
    assert trial.take_error() == ""


def test_the_best_is_swapped_as_one(folder: RunFolder):
    for epoch in (1, 2):
        folder.write_best(state(epoch), {"method": "beatgan"}, {"trial": epoch})
        names = sorted(path.name for path in folder.best.iterdir())
        assert names == ["config.yaml", "metrics.json", "model.pt"]
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


# The driver's notes.


def test_a_note_comes_back(trial: TrialFolder):
    assert trial.note() is None
    note = Note({"lr": 0.001, "target": "score"}, "failed", "größer")
    trial.write_note(note)
    assert trial.note() == note


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"params": {}}', b'{"a": 1}'])
def test_a_damaged_note_is_none(trial: TrialFolder, damage: bytes):
    trial.path.mkdir(parents=True)
    (trial.path / "trial.json").write_bytes(damage)
    assert trial.note() is None


def test_trial_numbers_are_in_order_of_value(folder: RunFolder):
    assert folder.trial_numbers() == []
    for name in ("10", "9", "0", "x", ".tmp"):
        (folder.trials / name).mkdir(parents=True)
    assert folder.trial_numbers() == [0, 9, 10]


def test_derived_files_count_once_the_work_has_ended(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.concluded, "nothing is there"
    folder.begin_work()
    folder.write_best({}, {}, {"trial": 0})
    assert not folder.concluded, "killed before the end"
    folder.end_work()
    assert folder.concluded
    folder.begin_work()
    assert not folder.concluded, "extended: what is there speaks of fewer trials"
