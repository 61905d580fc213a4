"""The page of a running search in a real browser, and the verdict's chart on a phone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, WIDTHS, chromium

from kdsearch.analysis.report import html
from kdsearch.analysis.report.html import Live
from kdsearch.analysis.run import open_run
from kdsearch.methods.protocol import EpochReport
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord

BASELINE = "nearest neighbour on forty principal components of both views of a beat"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with a verdict on trials of long names, and nothing else."""
    folder = RunFolder(tmp_path / "kd")
    config = {"student": {}, "space": {"lr": 1e-3}, "search": {"num_samples": 4}}
    folder.write_config(config, {})
    difference = {"estimate": 0.1, "low": 0.05, "high": 0.15, "p_value": 0.01}
    folder.write_verdict(
        {
            "chosen": "trial-1234",
            "sentences": ["Better."],
            "configurations": [],
            "differences": [
                difference
                | {"of": "trial-1234", "against": against, "metric": "test_auc"}
                | {"covers": ["seeds", "patients"], "judgement": "better"}
                | {"sentence": "Better.", "per_seed": [{"seed": 1, "estimate": 0.1}]}
                for against in ("control-of-trial-1234", "teacher", BASELINE)
            ],
            "baselines": [],
        }
    )
    folder.trial(0).write_history([EpochReport(1, {}, 1.0, 0.8, 0.7)])
    folder.trial(0).write_record(TrialRecord(0, "completed", {}, {1: 0.8}))
    return folder


@pytest.fixture(params=WIDTHS)
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    width, height = WIDTHS[request.param]
    with playwright.sync_playwright() as driver:
        chrome = driver.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield chrome.new_page(viewport={"width": width, "height": height})
        chrome.close()


def live(seconds_left: float) -> Live:
    overdue = time.time() + seconds_left
    return Live(written="12:00:00", overdue_ms=round(1000 * overdue), reload_s=1)


def test_no_label_is_wider_than_its_chart(browser: Any, folder: RunFolder):
    path = folder.path / "page.html"
    path.write_text(html(open_run(folder.path)))
    browser.goto(path.as_uri())
    browser.wait_for_selector("#verdict .main-svg .annotation")
    # A chart without labels.
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    browser.wait_for_selector("#learning-curves .main-svg", state="attached")
    outside = browser.evaluate("""() => {
      const chart = document.querySelector("#verdict .chart").getBoundingClientRect();
      return [...document.querySelectorAll("#verdict .main-svg text")]
        .filter((text) => {
          const box = text.getBoundingClientRect();
          return box.right > chart.right + 1 || box.left < chart.left - 1;
        })
        .map((text) => text.textContent);
    }""")
    assert outside == []
    needed, given = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert needed <= given
    words = browser.locator("#verdict .annotation").all_text_contents()
    assert BASELINE.replace(" ", "") in "".join(words).replace(" ", ""), "nothing is cut off"


def test_the_page_follows_the_search_to_its_end(browser: Any, folder: RunFolder):
    path = folder.path / "page.html"
    path.write_text(html(open_run(folder.path), live(seconds_left=3600)))
    browser.goto(path.as_uri())
    browser.wait_for_selector("#live:has-text('The search is running.')")
    browser.evaluate("document.body.className = 'first'")
    browser.wait_for_selector("body:not(.first)")
    assert browser.locator("#live").count() == 1, "the same page again"
    path.write_text(html(open_run(folder.path)))
    browser.wait_for_selector("#live", state="detached")
    browser.evaluate("document.body.className = 'last'")
    browser.wait_for_timeout(2500)
    assert browser.locator("body.last").count() == 1, "it is not loaded again"


def test_a_page_that_is_not_renewed_says_so_and_rests(browser: Any, folder: RunFolder):
    path = folder.path / "page.html"
    path.write_text(html(open_run(folder.path), live(seconds_left=-1)))
    browser.goto(path.as_uri())
    browser.wait_for_selector("#live:has-text('Nothing has been written since 12:00:00')")
    browser.evaluate("document.body.className = 'first'")
    browser.wait_for_timeout(2500)
    assert browser.locator("body.first").count() == 1
