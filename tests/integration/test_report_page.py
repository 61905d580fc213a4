"""The report of a real search in a real browser, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, WIDTHS, chromium

from kdsearch.analysis.report import SECTIONS
from kdsearch.cli.main import analyze_command, search_command

SPACE = """
data:
  source: simulated
  simulated: {patients: 6, beats: 900}
  train_limit: 128
teacher: {width: 2, latent: 4, epochs: 2, lr: 1.0e-3}
student: {width: 2, latent: 4, epochs: 2}
space:
  temperature: {loguniform: [0.5, 4]}
  alpha: {loguniform: [1.0e-2, 1]}
  w_adv: {uniform: [0.5, 5]}
  lr: {loguniform: [1.0e-4, 5.0e-3]}
search: {num_samples: 5}
confirm: {top: 1, seeds: 2}
resources: {device: cpu, precision: fp32}
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """The page of a search of five trials that were confirmed."""
    chromium()
    (tmp_path / "kd.yaml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
        patch.chdir(tmp_path)
        assert search_command(["--space", "kd.yaml", "--quiet"]) == 0
        assert analyze_command(["runs/kd", "--html", "report.html"]) == 0
    return tmp_path / "report.html"


class Page:
    """The page as it was opened, and what it complained about or asked for."""

    def __init__(self, page: Any) -> None:
        self.browser = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        """Open the file and draw every chart, also those below."""
        self.browser.goto(path.as_uri())
        self.browser.wait_for_selector("#leaderboard .dt-container")
        self.browser.evaluate("dispatchEvent(new Event('beforeprint'))")
        # Not wait_for_function, which the page's own content policy may refuse.
        self.browser.wait_for_selector(".chart:not(:has(.main-svg))", state="detached")

    def column(self, number: int) -> list[str]:
        cells = f"#leaderboard tbody tr td:nth-child({number})"
        texts: list[str] = self.browser.locator(cells).all_inner_texts()
        return texts


@contextmanager
def opened(report: Path, width: int, height: int) -> Iterator[Page]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = Page(browser.new_page(viewport={"width": width, "height": height}))
        page.open(report)
        yield page
        browser.close()


def test_the_page_shows_everything_sorts_and_searches(report: Path):
    for width, height in WIDTHS.values():
        with opened(report, width, height) as page:
            check(page, report)


def check(page: Page, report: Path) -> None:
    assert page.browser.locator("section").count() == len(SECTIONS)
    assert page.browser.locator("section:has(.missing)").count() == 1  # Importance.
    assert page.browser.locator(".chart .main-svg").count() > 30

    heading = page.browser.locator("#leaderboard th", has_text="val_auc")
    heading.click()
    page.browser.wait_for_selector("#leaderboard th[aria-sort=ascending]")
    upwards = [float(text) for text in page.column(4)]
    assert upwards == sorted(upwards)
    heading.click()
    page.browser.wait_for_selector("#leaderboard th[aria-sort=descending]")
    assert [float(text) for text in page.column(4)] == upwards[::-1]

    page.browser.fill("#leaderboard input[type=search]", "no such trial")
    assert len(page.column(4)) == 0
    page.browser.fill("#leaderboard input[type=search]", f"{upwards[0]:.4f}")
    assert {float(text) for text in page.column(4)} == {upwards[0]}

    widths = "[document.documentElement.scrollWidth, innerWidth]"
    needed, given = page.browser.evaluate(widths)
    assert needed <= given, "the page itself must not scroll sideways"
    outside = [url for url in page.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [report.as_uri()]
    assert page.complaints == []
