"""A trial's folder: its record, what survives a kill, what a finished trial keeps."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from search_cases import new_driver, report, write_report, write_trial

from kdsearch.errors import RunError
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import Superseded, TrialFolder, TrialRecord, TrialState


def state(epoch: int) -> dict:
    return {"weights": torch.full((3,), float(epoch)), "epoch": epoch}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "kd")


@pytest.fixture
def trial(folder: RunFolder) -> TrialFolder:
    return folder.trial(3, new_driver(folder))


def write_epochs(trial: TrialFolder, aucs: list[float]) -> None:
    """Keep epochs as a trial does, each best one with its weights."""
    history = []
    for epoch, auc in enumerate(aucs, start=1):
        improved = all(auc > earlier.val_auc for earlier in history)
        write_report(
            trial, report(epoch, auc), history, state(epoch), state(epoch) if improved else None
        )
        history.append(report(epoch, auc))


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
        write_report(trial, report(2, 0.9), [report(1, 0.6)], state(2), state(2))
    monkeypatch.undo()
    assert renamed == list(KEPT[:written])
    found = trial.checkpoint()
    assert found.history == [report(1, 0.6)]
    assert found.state["epoch"] == 1


def test_an_epoch_written_again_stands_once(trial: TrialFolder):
    write_epochs(trial, [0.6, 0.7])
    write_report(trial, report(2, 0.7), [report(1, 0.6)], state(2), state(2))
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
    metrics.write_bytes(lines[1] + lines[2])
    assert trial.history() == []


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
    old = folder.trial(0, new_driver(folder))
    write_epochs(old, [0.6])
    new = folder.trial(0, new_driver(folder))
    before = {path.name: path.read_bytes() for path in old.path.iterdir()}
    with pytest.raises(Superseded, match="a newer search has taken over"):
        write_report(old, report(2, 0.9), [report(1, 0.6)], state(2), state(2))
    for write in (
        lambda: old.write_best(state(2)),
        lambda: old.write_checkpoint(2, state(2)),
        lambda: old.write_error("ValueError: of an earlier driver's worker"),
    ):
        with pytest.raises(Superseded, match="a newer search has taken over"):
            write()
    assert {path.name: path.read_bytes() for path in old.path.iterdir()} == before
    write_report(new, report(2, 0.9), [report(1, 0.6)], state(2), None)
    assert len(new.history()) == 2


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


# The record.

RECORD = TrialRecord(
    number=3,
    state="failed",
    params={"lr": 0.001, "target": "score", "width": 4, "flag": True},
    curve={1: 0.5, 2: 0.75, 3: 0.75},
    seconds=0.75,
    reason="größer",
    order=7,
    seed=5_000_018,
    began="2026-11-27T10:00:00.000+00:00",
    ended="2026-11-27T11:00:00.000+00:00",
)


def test_a_record_comes_back(folder: RunFolder):
    trial = write_trial(folder, RECORD)
    assert trial.record() == RECORD
    plain = json.loads((trial.path / "trial.json").read_text())
    assert (plain.pop("curve"), plain.pop("seconds")) == (
        [[1, 0.5], [2, 0.75], [3, 0.75]],
        0.75,
    )
    assert plain.keys() == {
        *("number", "params", "state", "reason", "order", "seed", "began", "ended"),
        "repeats",
        "costs",
        "refused",
    }


def test_rungs_within_the_first_epoch_come_back(folder: RunFolder):
    curve = {0.25: 0.5, 0.75: 0.625, 1: 0.625, 2: 0.75}
    running = replace(RECORD, state="running", curve=curve, order=None, seconds=1.0)
    found = write_trial(folder, running).record()
    assert found == running
    assert [repr(epoch) for epoch in found.curve] == ["0.25", "0.75", "1", "2"]
    assert (found.epochs, found.best_epoch) == (2, 2)
    ended = replace(found, state="stopped", reason="")
    folder.trial(3).write_record(ended)
    assert folder.trial(3).record() == ended
    assert [repr(epoch) for epoch in ended.curve] == ["0.25", "0.75", "1", "2"]


def test_an_epoch_behind_the_end_does_not_count(folder: RunFolder):
    """A worker may have trained on while the driver decided to stop it."""
    trial = write_trial(folder, replace(RECORD, state="stopped", reason=""))
    metrics = trial.path / "metrics.jsonl"
    line = json.dumps(vars(report(4, 0.9)))
    metrics.write_text(metrics.read_text() + line + "\n")
    assert trial.record().curve == RECORD.curve


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "trial.json is missing"),
        (b"", "trial.json is damaged: Invalid JSON: EOF"),
        (b"{", "trial.json is damaged: Invalid JSON: EOF"),
        (b"[]", "trial.json is damaged: Input should be an object"),
        (b"\xff", "trial.json is damaged: Invalid JSON"),
        (b'{"number": 3, "params": {}}', "trial.json is damaged: state: Field required"),
        (
            b'{"number": 3, "params": {}, "state": "completed", "seconds": 1.0}',
            "trial.json is damaged: curve and seconds: missing",
        ),
        (
            b'{"number": 3, "params": {}, "state": "lost"}',
            "trial.json is damaged: state: Input should be 'completed', 'stopped', 'failed' or",
        ),
        (
            b'{"number": 4, "params": {}, "state": "running"}',
            "trial.json is damaged: it belongs to trial 4",
        ),
        (
            b'{"number": 3, "params": {"lr": [1]}, "state": "running"}',
            "trial.json is damaged: params.lr",
        ),
    ],
)
def test_a_trial_with_a_damaged_record_is_unfinished(
    folder: RunFolder, content: bytes | None, reason: str
):
    trial = write_trial(folder, RECORD)
    if content is None:
        (trial.path / "trial.json").unlink()
    else:
        (trial.path / "trial.json").write_bytes(content)
    found = trial.record()
    assert (found.number, found.state, found.params) == (3, "running", {})
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason
    assert found.curve == RECORD.curve


@pytest.mark.parametrize("state", ["completed", "stopped", "failed"])
def test_a_finished_trial_needs_its_record_alone(folder: RunFolder, state: TrialState):
    trial = write_trial(folder, replace(RECORD, state=state))
    (trial.path / "metrics.jsonl").unlink()
    assert trial.record() == replace(RECORD, state=state)


def test_a_record_that_cannot_be_reached_is_not_taken_for_lost(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    trial = write_trial(folder, RECORD)

    def unreachable(self: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", unreachable)
    with pytest.raises(OSError, match="Input/output error"):
        trial.record()


def test_a_checkpoint_holds_the_trials_settings(folder: RunFolder):
    generation = new_driver(folder)
    trial = folder.trial(3, generation, {"lr": 0.001, "target": "score"})
    assert trial.checkpoint_params() is None
    write_report(trial, report(1), [], state(1), None)
    assert folder.trial(3).checkpoint_params() == {"lr": 0.001, "target": "score"}
    (trial.path / "metrics.jsonl").unlink()
    assert folder.trial(3).checkpoint_params() is None, "it cannot continue"


def test_a_cleared_trial_cannot_come_back(trial: TrialFolder, monkeypatch: pytest.MonkeyPatch):
    """A power cut must not leave a record of new settings beside the old checkpoint."""
    write_epochs(trial, [0.5])
    synced: list[list[str]] = []

    def sync(folder: Path) -> None:
        synced.append([path.name for path in folder.iterdir()])

    monkeypatch.setattr("kdsearch.runs.trial_folder.sync", sync)
    trial.clear()
    assert synced == [[]]
