"""The report: one page that opens without a network, or pictures for a paper.

Both need only a run folder, finished or not. A section without data says so.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdsearch.analysis.report.beat_sections import beats_section, epochs_section
from kdsearch.analysis.report.chart import Section
from kdsearch.analysis.report.contents import gather
from kdsearch.analysis.report.costs_section import costs_section
from kdsearch.analysis.report.descent_section import descent_section
from kdsearch.analysis.report.html import Live, page_text
from kdsearch.analysis.report.score_sections import (
    classes_section,
    curves_section,
    histograms_section,
)
from kdsearch.analysis.report.search_sections import (
    importance_section,
    leaderboard_section,
    learning_curves,
    losses_section,
    plane_section,
    space_section,
)
from kdsearch.analysis.report.verdict_section import verdict_section
from kdsearch.analysis.run import Run
from kdsearch.files.atomic import write_text
from kdsearch.files.bucket import Place
from kdsearch.texts import in_unit

SECTIONS = (
    verdict_section,
    leaderboard_section,
    learning_curves,
    losses_section,
    space_section,
    importance_section,
    plane_section,
    costs_section,
    curves_section,
    classes_section,
    histograms_section,
    beats_section,
    epochs_section,
)
SIMULATED = "The beats are simulated; the figures are not valid for patients."


def write_html(run: Run, path: Place) -> None:
    """Write the report of a run as one HTML file, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    write_text(path, html(run))


def html(run: Run, live: Live | None = None) -> str:
    """Return the report of a run as one HTML page.

    Args:
        live: Of a search that runs.
    """
    data = run.result.teacher.get("data", {})
    described = [data["description"], *data.get("notes", [])] if data else []
    return page_text(
        title=f"kdsearch: {run.folder.path.resolve().name}",
        notice=in_unit(SIMULATED, run.unit) if data.get("simulated") else "",
        facts=[*described, *run.result.about_teacher(), *run.result.progress],
        sections=_sections(run),
        live=live,
    )


def write_plots(run: Run, folder: Path, form: Literal["png", "svg"] = "png") -> list[Path]:
    """Draw the charts of the report as pictures, one file per section.

    Returns:
        The files that were written.

    Raises:
        OSError: The folder cannot be written.
    """
    # Most searches draw no pictures, and matplotlib takes long to import.
    from kdsearch.analysis.report.matplotlib_charts import write_pictures  # noqa: PLC0415

    return write_pictures(folder, _sections(run), form)


def _sections(run: Run) -> list[Section]:
    contents = gather(run.result)
    descent = [descent_section(run)] if run.generations else []
    sections = [*descent, *(section(contents) for section in SECTIONS)]
    return [_in_unit(section, run.unit) for section in sections]


def _in_unit(part: Any, unit: str) -> Any:
    """A section or a part of one, with another word for beats in all its texts."""
    if isinstance(part, str):
        return in_unit(part, unit)
    if isinstance(part, list | tuple):
        return type(part)(_in_unit(entry, unit) for entry in part)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    return replace(
        part, **{f.name: _in_unit(getattr(part, f.name), unit) for f in fields(part)}
    )
