"""The report of a running search, and the table of one in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from search_cases import space_file, write_trial

from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning import live_report, notebook
from kdsearch.tuning.live_report import LiveReport
from kdsearch.tuning.notebook import NotebookTable

PARAMS = {"temperature": 1.0, "alpha": 0.5, "w_adv": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "kd")
    folder.write_config(space_file(), {})
    return folder


def end_trial(folder: RunFolder, number: int) -> None:
    write_trial(folder, TrialRecord(number, "completed", PARAMS, {1: 0.8}))


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not what():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.01)


def test_the_page_is_there_from_the_first_finished_trial(folder: RunFolder):
    live = LiveReport(folder)
    live.reported(TrialRecord(0, "running", PARAMS, {1: 0.7}), 3)
    end_trial(folder, 0)
    assert not folder.report_file.exists()
    live.ended(0, "completed", "")
    wait_for(folder.report_file.exists)
    page = folder.report_file.read_text()
    assert 'id="live"' in page
    assert "The search is running." in page
    live.close()
    page = folder.report_file.read_text()
    assert 'id="live"' not in page
    assert "The search had not ended when this was written." in page


def test_a_search_that_goes_on_has_its_page_at_once(folder: RunFolder):
    end_trial(folder, 0)
    live = LiveReport(folder, folder.records())
    wait_for(folder.report_file.exists)
    live.close()


def test_a_page_is_not_begun_before_its_share_of_the_time_has_room_for_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_report, "INTERVAL_S", 0.01)
    monkeypatch.setattr(live_report, "SHARE", 0.5)
    end_trial(folder, 0)
    begun: list[tuple[float, float]] = []
    write = LiveReport._write

    def watched(live: LiveReport, wait_s: float) -> None:
        begun.append((time.monotonic(), live.seconds))
        write(live, wait_s)

    monkeypatch.setattr(LiveReport, "_write", watched)
    start = time.monotonic()
    live = LiveReport(folder, folder.records())

    def written(times: int) -> bool:
        live.confirmed()
        return live.written >= times

    wait_for(lambda: written(3))
    live.close()
    spent = [seconds for _, seconds in begun]
    for (began, before), last in zip(
        begun[1:], (b - a for a, b in pairwise(spent)), strict=True
    ):
        assert before + last <= 0.5 * (began - start)


def test_a_page_that_cannot_be_written_costs_nothing(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
):
    end_trial(folder, 0)
    folder.report_file.mkdir()
    live = LiveReport(folder, folder.records())
    wait_for(lambda: "report: not written" in caplog.text)
    live.close()
    assert live.written == 0


def test_a_notebook_shows_the_run_and_takes_its_share_at_most(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    shown: list[str] = []
    table = NotebookTable(folder, shown.append)
    end_trial(folder, 0)
    table.ended(0, "completed", "")
    assert len(shown) == 1
    assert "0.8" in shown[0]
    end_trial(folder, 1)
    monkeypatch.setattr(notebook, "INTERVAL_S", 1000)
    table.close()
    assert shown[-1].count("<tr") == 3, "a heading and two trials"
    table.reported(TrialRecord(1, "running", PARAMS, {1: 0.8}), 3)
    assert len(shown) == 2
