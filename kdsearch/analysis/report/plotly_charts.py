"""Convert charts to Plotly figures, for the page."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kdsearch.analysis.report import palette
from kdsearch.analysis.report.chart import Axis, Chart, Series

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
GRID = "#E4E8EC"
# A trace that shows nothing but its entry in the legend, or its scale of colours.
NOTHING: dict[str, Any] = {"type": "scatter", "x": [None], "y": [None], "mode": "markers"}


def figure_json(chart: Chart, *, small: bool) -> str:
    """The figure for Plotly's JavaScript, safe inside a script element of a page."""
    figure = go.Figure(_traces(chart, small=small), _layout(chart, small=small))
    # `<`, `>` and `/` come out as escapes.
    text: str = figure.to_json(engine="json")
    return text


def _traces(chart: Chart, *, small: bool) -> list[dict[str, Any]]:
    traces = [] if chart.shade is None else [_shade(chart)]
    seen: set[str] = set()
    for series in chart.series:
        trace = _bars(series) if series.kind == "bars" else _scatter(series, chart)
        first = series.in_legend and series.name not in seen and chart.legend and not small
        seen |= {series.name}
        named = {"name": escape(series.name), "legendgroup": escape(series.name)}
        own = first and series.values is None
        traces.append({**trace, **named, "showlegend": own, **_hover(series)})
        if first and series.values is not None:
            # Points on a colour scale have a neutral entry.
            neutral = {"symbol": series.symbol, "size": series.size, "color": series.colour}
            traces.append({**NOTHING, "marker": neutral, **named})
    if chart.scale is not None and all(series.values is None for series in chart.series):
        # The lines are coloured individually.
        marker = {"color": [chart.scale[1]], "opacity": 0, **_scale(chart)}
        traces.append({**NOTHING, "marker": marker, "showlegend": False, "hoverinfo": "skip"})
    return traces


def _hover(series: Series) -> dict[str, Any]:
    if not len(series.hover):
        return {"hoverinfo": "skip"}
    if isinstance(series.hover, str):
        figures = "%{x:.4~g}, %{y:.4~g}" if series.kind in ("line", "area") else ""
        text = "<br>".join(filter(None, [escape(series.hover), figures]))
        return {"hovertemplate": f"{text}<extra></extra>"}
    # A line per part, so that a box fits onto a phone.
    texts = [escape(t).replace("; ", "<br>").replace(", ", "<br>") for t in series.hover]
    return {"text": texts, "hovertemplate": "%{text}<extra></extra>"}


def _bars(series: Series) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(series.x),
        "y": list(series.y),
        "marker": {"color": series.colour},
        "width": 0.6,
        "textposition": "outside",
        "cliponaxis": False,
    }


def _scatter(series: Series, chart: Chart) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "x": np.asarray(series.x, dtype=np.float32),
        "y": np.asarray(series.y, dtype=np.float32),
        "opacity": series.opacity,
    }
    if series.kind == "points":
        marker: dict[str, Any] = {
            "symbol": series.symbol,
            "size": series.size,
            "line": {"width": 0 if series.symbol == "x" else 1, "color": "white"},
            "color": series.colour,
        }
        if series.values is not None and chart.scale is not None:
            marker |= {"color": list(series.values), **_scale(chart)}
        trace |= {"mode": "markers", "marker": marker}
        if series.low is not None and series.high is not None:
            middle = series.y if series.upright else series.x
            trace["error_y" if series.upright else "error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": np.subtract(series.high, middle),
                "arrayminus": np.subtract(middle, series.low),
                "thickness": 2.5,
                "width": 0,
            }
        return trace
    dash = "dash" if series.dash else "solid"
    trace |= {
        # A line of one point would be invisible.
        "mode": "lines" if len(series.x) > 1 else "markers",
        "line": {"color": series.colour, "width": series.width, "dash": dash},
        "marker": {"color": series.colour, "size": 6},
    }
    if series.kind == "area":
        red, green, blue = (int(series.colour[i : i + 2], 16) for i in (1, 3, 5))
        trace |= {"fill": "tozeroy", "fillcolor": f"rgba({red},{green},{blue},0.10)"}
        trace["line"]["shape"] = "hvh"
    return trace


def _scale(chart: Chart) -> dict[str, Any]:
    assert chart.scale is not None
    title, low, high = chart.scale
    return {
        "cmin": low,
        "cmax": high,
        "colorscale": palette.scale_stops(),
        "showscale": True,
        "colorbar": {
            "title": {"text": escape(title), "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
        },
    }


def _shade(chart: Chart) -> dict[str, Any]:
    assert chart.shade is not None
    assert chart.y.limits is not None
    low, high = chart.y.limits
    return {
        "type": "heatmap",
        "x": np.asarray(chart.series[0].x, dtype=np.float32),
        "y": [low, high],
        "z": np.round(np.stack([chart.shade, chart.shade]).astype(np.float64), 3),
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "rgba(213,94,0,0)"], [1, "rgba(213,94,0,0.55)"]],
        "showscale": False,
        "hoverinfo": "skip",
    }


def _layout(chart: Chart, *, small: bool) -> dict[str, Any]:
    return {
        "template": "none",
        "height": chart.height,
        "margin": {
            "l": 12 if chart.y.hidden else 58,
            "r": 12,
            "t": 12,
            "b": 44 if chart.x.title else 24,
        },
        "font": {"family": FONT, "size": 11 if small else 13, "color": palette.INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "white",
        "hovermode": "closest",
        # A finger on a chart scrolls the page.
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": _axis(chart.x, chart.ticks("x")),
        "yaxis": _axis(chart.y, chart.ticks("y")),
        "shapes": [
            {
                "type": "line",
                "x0": x,
                "x1": x,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "layer": "below",
                "line": {"color": palette.INK, "width": 1.2, "dash": "dot"},
            }
            for x, _ in chart.lines
        ],
        "annotations": _annotations(chart),
    }


def _axis(axis: Axis, ticks: tuple[tuple[float, str], ...] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": {"text": escape(axis.title), "standoff": 8},
        "type": "log" if axis.log else "linear",
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        "showline": not axis.hidden,
        "linecolor": palette.GREY,
    }
    if axis.limits is not None:
        found["range"] = list(axis.limits)
    if ticks is not None:
        found["tickvals"] = [position for position, _ in ticks]
        found["ticktext"] = [escape(text) for _, text in ticks]
    if axis.hidden:
        found |= {
            "showticklabels": False,
            "ticks": "",
            "showgrid": False,
            "title": {"text": ""},
        }
    return found


def _annotations(chart: Chart) -> list[dict[str, Any]]:
    plain = {"showarrow": False, "font": {"size": 12}, "bgcolor": "white"}
    inside: list[dict[str, Any]] = [
        {
            **plain,
            "x": label.x,
            "y": label.y,
            "text": escape(label.text),
            "xanchor": label.align,
        }
        for label in chart.labels
    ]
    for x, text in (line for line in chart.lines if line[1]):
        position = float(np.log10(x)) if chart.x.log and x > 0 else x
        inside.append(
            {
                **plain,
                "x": position,
                "y": 1,
                "yref": "paper",
                "text": escape(text),
                "xanchor": "left",
                "yanchor": "top",
                "xshift": 4,
            }
        )
    return inside
