"""Requests of ``kdsearch stop``: what is refused, and what a driver sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_cases import report, space_file, write_trial

from kdsearch.cli.main import main
from kdsearch.errors import RunError
from kdsearch.files.bucket import Place, parse_path
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.stop_requests import StopRequests
from kdsearch.runs.trial_folder import TrialRecord


@pytest.fixture(params=["on disk", "in a bucket"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A run with a finished trial 0 and a running trial 1."""
    path: Place = tmp_path / "kd"
    if request.param == "in a bucket":
        request.getfixturevalue("s3")
        path = parse_path(f"s3://bucket/stop/{tmp_path.name}")
    folder = RunFolder(path)
    folder.write_config(space_file(), {})
    for record in (
        TrialRecord(0, "completed", {}, {1: 0.5}, order=0),
        TrialRecord(1, "running", {}, {1: 0.5}),
    ):
        folder.trial(record.number).write_history([report(1, 0.5)])
        folder.trial(record.number).write_record(record)
    return path


def test_a_trial_is_stopped_through_a_file(run: Place, capsys: pytest.CaptureFixture[str]):
    assert not StopRequests(RunFolder(run)).trial_stopped(1)
    assert main(["stop", str(run), "1"]) == 0
    assert capsys.readouterr().out == f"{run}: trial 1 stops after its current epoch\n"
    seen = StopRequests(RunFolder(run))
    assert (seen.trial_stopped(1), seen.trial_stopped(0), seen.search_paused()) == (
        True,
        False,
        False,
    )


def test_a_running_search_is_paused_through_a_file(
    run: Place, capsys: pytest.CaptureFixture[str]
):
    folder = RunFolder(run)
    with folder.lock():
        assert main(["stop", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}: the search pauses; continue it with --resume\n"
    assert StopRequests(folder).search_paused()
    StopRequests(folder).forget_pause()
    assert not StopRequests(folder).search_paused()


def test_what_cannot_be_stopped_is_refused(tmp_path: Path):
    folder = RunFolder(tmp_path / "kd")
    folder.write_config(space_file(), {})
    requests = StopRequests(folder)
    with pytest.raises(RunError, match="kd: no search is running here"):
        requests.pause_search()
    with pytest.raises(RunError, match=r"kd: no trial 3 \(found: no trials yet\)"):
        requests.stop_trial(3)
    write_trial(folder, TrialRecord(0, "completed", {}, {1: 0.5}, order=0))
    with pytest.raises(RunError, match=r"kd: no trial 3 \(found: trials 0 to 0\)"):
        requests.stop_trial(3)
    with pytest.raises(RunError, match="kd: trial 0 has ended: completed"):
        requests.stop_trial(0)
    assert not (folder.path / ".stop").exists()


def test_a_driver_looks_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    requests = StopRequests(RunFolder(tmp_path))
    assert not requests.search_paused()
    (tmp_path / ".stop").mkdir()
    (tmp_path / ".stop" / "search").touch()
    assert not requests.search_paused()
    clock[0] += 1
    assert requests.search_paused()
