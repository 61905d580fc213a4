"""Draw charts as PNG or SVG with matplotlib, without a browser."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import Axis, Chart, Section, Series
from kdsearch.files.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Format = Literal["png", "svg"]
MARKERS = {"circle": "o", "square": "s", "x": "X", "star": "*"}
ERROR = LinearSegmentedColormap.from_list("error", ["#D55E0000", "#D55E008C"])
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": palette.GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E8EC",
    "legend.frameon": False,
    "legend.fontsize": 8,
    # The same picture is the same file.
    "svg.hashsalt": "kdsearch",
}


def write_pictures(folder: Path, sections: Sequence[Section], form: Format) -> list[Path]:
    """Draw one file per section that has charts.

    Returns:
        The files, in order.
    """
    written = []
    with rc_context(STYLE):  # type: ignore[arg-type]
        for section in sections:
            if not section.groups:
                continue
            path = folder / f"{section.key}.{form}"
            buffer = io.BytesIO()
            metadata = {"Date": None} if form == "svg" else {}
            _figure(section).savefig(buffer, format=form, dpi=200, metadata=metadata)
            write_bytes(path, buffer.getbuffer())
            written.append(path)
    return written


def _figure(section: Section) -> Figure:
    """All charts of a section, its groups below each other."""
    rows = list(_rows(section))
    heights = [max(chart.height for chart in charts) / 95 for _, charts, _ in rows]
    figure = Figure(figsize=(9, sum(heights) + 0.3), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    seen: set[str] = set()
    for part, (title, charts, columns) in zip(parts, rows, strict=True):
        if title:
            part.suptitle(_text(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
        grid = part.subplots(1, columns, squeeze=False)[0]
        small = len(charts) > 2 or columns > 2
        new = [chart.legend and _new(chart, seen) for chart in charts]
        for axes, chart, legend in zip(grid, charts, new, strict=False):
            _draw(axes, chart, legend=legend and not small)
        if small and any(new):
            _legend(part, grid[new.index(True)], loc="outside lower right", ncols=5)
        for axes in grid[len(charts) :]:
            axes.set_axis_off()
    return figure


def _rows(section: Section) -> Iterator[tuple[str, Sequence[Chart], int]]:
    for group in section.groups:
        columns = 4 if group.small else min(2, len(group.charts))
        for start in range(0, len(group.charts), columns):
            title = group.title if start == 0 else ""
            yield title, group.charts[start : start + columns], columns


def _new(chart: Chart, seen: set[str]) -> bool:
    """Return whether a chart needs a legend: only if it has names not shown earlier."""
    names = {series.name for series in chart.series if series.in_legend}
    new = not names <= seen
    seen |= names
    return new


def _draw(axes: Axes, chart: Chart, *, legend: bool) -> None:
    if chart.shade is not None:
        _shade(axes, chart)
    for series in chart.series:
        _series(axes, series, chart)
    for x, text in chart.lines:
        axes.axvline(x, color=palette.INK, linewidth=1, linestyle=":", zorder=1)
        if text:
            axes.annotate(
                _text(text), (x, 0.98), xycoords=("data", "axes fraction"), fontsize=8,
                xytext=(3, 0), textcoords="offset points", va="top",
            )  # fmt: skip
    for label in chart.labels:
        axes.text(label.x, label.y, _text(label.text), ha=label.align, va="center", fontsize=8,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    _axis(axes, "x", chart.x, chart.ticks("x"))
    _axis(axes, "y", chart.y, chart.ticks("y"))
    axes.set_title(_text(chart.title))
    if chart.scale is not None:
        title, low, high = chart.scale
        colours = ScalarMappable(Normalize(low, high), palette.SCALE)
        figure = axes.get_figure()
        assert figure is not None
        figure.colorbar(colours, ax=axes, label=_text(title), pad=0.02, aspect=30)
    if legend:
        _legend(axes, axes)


def _shade(axes: Axes, chart: Chart) -> None:
    assert chart.shade is not None
    assert chart.y.limits is not None
    x = np.asarray(chart.series[0].x)
    extent = (float(x[0]), float(x[-1]), *chart.y.limits)
    image = np.asarray(chart.shade)[None]
    axes.imshow(image, aspect="auto", extent=extent, cmap=ERROR, vmin=0, vmax=1, zorder=0)


def _series(axes: Axes, series: Series, chart: Chart) -> None:
    name: str | None = _text(series.name) if series.in_legend else None
    if series.kind == "bars":
        axes.barh(np.asarray(series.y), np.asarray(series.x), 0.6, color=series.colour)
    elif series.kind == "points":
        _points(axes, series, chart, name)
    else:
        x, y = np.asarray(series.x), np.asarray(series.y)
        area = series.kind == "area"
        axes.plot(
            x, y, color=series.colour, linewidth=0.7 * series.width, alpha=series.opacity,
            linestyle="--" if series.dash else "-", marker="o" if len(x) == 1 else None,
            markersize=3, label=name, drawstyle="steps-mid" if area else "default",
        )  # fmt: skip
        if area:
            axes.fill_between(x, y, step="mid", color=series.colour, alpha=0.1, linewidth=0)


def _points(axes: Axes, series: Series, chart: Chart, name: str | None) -> None:
    if series.low is not None and series.high is not None:
        lines, at = (axes.vlines, series.x) if series.upright else (axes.hlines, series.y)
        lines(at, series.low, series.high, color=series.colour, linewidth=2)
    colours: dict[str, Any] = {"color": series.colour}
    if series.values is not None and chart.scale is not None:
        _, low, high = chart.scale
        colours = {"c": series.values, "cmap": palette.SCALE, "vmin": low, "vmax": high}
    axes.scatter(
        np.asarray(series.x), np.asarray(series.y), s=0.5 * series.size**2, label=name,
        marker=MARKERS[series.symbol], alpha=series.opacity, linewidths=0.4,
        edgecolors="white", zorder=3, **colours,
    )  # fmt: skip


def _axis(
    axes: Axes,
    which: Literal["x", "y"],
    axis: Axis,
    ticks: tuple[tuple[float, str], ...] | None,
) -> None:
    own = axes.xaxis if which == "x" else axes.yaxis
    if axis.log:
        axes.set(**{f"{which}scale": "log"})
        own.set_minor_locator(NullLocator())
    if axis.limits is not None:
        axes.set(**{f"{which}lim": axis.limits})
    if ticks is not None:
        # Ticks outside would widen the axis to hold them.
        low, high = sorted(own.get_view_interval())
        ticks = tuple(tick for tick in ticks if low <= tick[0] <= high)
        own.set_ticks([p for p, _ in ticks], [_text(text) for _, text in ticks])
    if axis.hidden:
        own.set_ticks([])
        axes.spines["left" if which == "y" else "bottom"].set_visible(False)
    else:
        own.set_label_text(_text(axis.title))


def _legend(where: Axes | SubFigure, axes: Axes, **options: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    if once:
        where.legend(list(once.values()), list(once.keys()), **options)


def _text(text: str) -> str:
    """Escape dollar signs, which begin a formula."""
    return text.replace("$", r"\$")
