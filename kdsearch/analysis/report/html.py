"""The report as one page that opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from kdsearch.analysis.report.chart import Section
from kdsearch.analysis.report.plotly_charts import figure_json


@dataclass(frozen=True)
class Live:
    """State of a running search, as its page shows it.

    Attributes:
        written: When it was written, for people.
        overdue_ms: Milliseconds since 1970 after which a newer page should be there.
        reload_s: How often it reloads itself.
    """

    written: str
    overdue_ms: int
    reload_s: int


def page_text(*, title: str, notice: str, facts: Sequence[str], sections: Sequence[Section],
              live: Live | None = None) -> str:  # fmt: skip
    """Return the page.

    Args:
        title: Its headline.
        notice: A warning at the top, or an empty text.
        facts: Lines below the headline.
        sections: In order.
        live: None where the search does not run.
    """
    # A run folder may come from another person: its content is escaped.
    environment = Environment(
        loader=PackageLoader("kdsearch.analysis.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template("report.html").render(
        title=title,
        notice=notice,
        facts=facts,
        live=live,
        sections=sections,
        figure=lambda chart, small: Markup(figure_json(chart, small=small)),
        style=_own("report.css"),
        script=_own("report.js"),
        # Markup: these come with their packages.
        plotly=Markup(get_plotlyjs()),
        tables_style=Markup(_datatables("dt_bundle.css").decode()),
        tables_script=base64.b64encode(_datatables("dt_bundle.js")).decode(),
    )
    return page


def _own(name: str) -> Markup:
    return Markup((resources.files("kdsearch.analysis.report") / "page" / name).read_text())


def _datatables(name: str) -> bytes:
    return (resources.files("itables") / "html" / name).read_bytes()
