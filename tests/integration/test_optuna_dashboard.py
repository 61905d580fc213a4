"""A run in optuna-dashboard, looked at in a real browser."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, chromium
from search_cases import write_report

from kdsearch.config.space_file import parse_config
from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Suggestion
from kdsearch.runs.study_view import StudyView
from kdsearch.runs.trial_folder import TrialRecord

SPACE = {
    "data": {"source": "simulated"},
    "teacher": {},
    "student": {},
    "space": {
        "temperature": {"loguniform": [0.5, 4]},
        "alpha": {"loguniform": [0.01, 1]},
        "w_adv": {"uniform": [0.5, 5]},
        "lr": 0.001,
    },
    "search": {"num_samples": 3},
}
CURVES: dict[str, list[float]] = {
    "completed": [0.5, 0.75, 0.8125],
    "stopped": [0.25],
    "failed": [0.625],
}


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard that shows a run of three trials."""
    folder, config = RunFolder(tmp_path / "kd"), parse_config(SPACE, "kd.yaml")
    folder.write_config(config.as_dict(), {})
    view = StudyView(folder, config.space, print)
    view.open([])
    for number, (state, curve) in enumerate(CURVES.items()):
        params = {"temperature": 1.0, "alpha": 0.1, "w_adv": 1.0}
        record = TrialRecord(number, "running", params)  # type: ignore[arg-type]
        view.started(Suggestion(number, record.params))
        history: list[EpochReport] = []
        for epoch, best_so_far in enumerate(curve, start=1):
            report = EpochReport(epoch, {}, 1.0, best_so_far, best_so_far)
            write_report(folder.trial(number), report, history, {}, None)
            history.append(report)
            so_far = dict(enumerate(curve[:epoch], 1))
            view.reported(replace(record, curve=so_far), 3)
        reason = "boom" if state == "failed" else ""
        ended = replace(record, state=state, curve=dict(enumerate(curve, 1)), reason=reason)  # type: ignore[arg-type]
        folder.trial(number).write_record(ended)
        view.ended(number, ended.state, reason)
    view.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), "--port", str(port)]
    with (tmp_path / "dashboard.log").open("w") as log:
        server = subprocess.Popen(
            [*command, str(folder.study_file)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def answer(url: str) -> Any:
    """What the server says, once it has started."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)
        except OSError:
            assert time.monotonic() < deadline, "the dashboard does not start"
            time.sleep(0.1)


def test_the_dashboard_shows_every_trial(dashboard: str):
    (study,) = answer(f"{dashboard}/api/studies")["study_summaries"]
    trials = answer(f"{dashboard}/api/studies/{study['study_id']}")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Pruned", "Fail"]
    values = [[v["value"] for v in trial["intermediate_values"]] for trial in trials]
    assert values == list(CURVES.values())

    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"{dashboard}/dashboard/studies/{study['study_id']}/trials")
        for state in ("Complete", "Pruned", "Fail"):
            page.get_by_text(state, exact=True).first.wait_for()
        page.get_by_text("Trial 2", exact=False).first.click()
        page.get_by_text("reason").first.wait_for()
        page.get_by_text("boom").first.wait_for()
        browser.close()
