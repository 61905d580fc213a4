"""Draw flagged beats, their reconstructions and the differences."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.beats import FloatArray
from kdsearch.files.atomic import write_bytes
from kdsearch.student.scored import SHOWN, Scored
from kdsearch.texts import in_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
# Distance between leads, which are scaled to [-1, 1], so that they do not overlap.
LEAD_DISTANCE = 2.4
BEAT, EXPECTED, ERROR, QUIET = "#1f2933", "#0b7fab", "#d64545", "#9aa5b1"


def draw(scored: Scored, path: Path) -> None:
    """Draw all scores and the beats with the highest ones, flagged ones first, as PNG.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  # slow to import

    # Flagged beats that fill the picture, or some others if none is flagged.
    flagged = int(scored.flagged.sum())
    shown = min(SHOWN, flagged) if flagged else min(COLUMNS, len(scored.scores))
    rows = -(-shown // COLUMNS)
    figure = Figure(figsize=(13, 3 + 2.4 * rows), layout="constrained", dpi=110)
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.1] + [1] * rows)
    overview = figure.add_subplot(grid[0, :])
    places = [grid[1 + i // COLUMNS, i % COLUMNS] for i in range(shown)]
    _draw_scores(overview, scored)
    first, *_ = _draw_beats([figure.add_subplot(place) for place in places], scored)
    # Beside the scores, since no corner of a beat is sure to be empty.
    handles = [*overview.get_legend_handles_labels()[0], *first.get_legend_handles_labels()[0]]
    overview.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    title = in_unit(_title(scored, shown), scored.student.card.data.unit)
    figure.suptitle(title, fontsize=12)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getbuffer())


def _title(scored: Scored, shown: int) -> str:
    flagged, n = int(scored.flagged.sum()), len(scored.scores)
    if not flagged:
        return f"{scored.name}: none of {n:,} beats flagged; below, the {shown} highest scores"
    below = "all of them" if shown == flagged else f"the {shown} highest scores"
    return f"{scored.name}: {flagged:,} of {n:,} beats flagged; below, {below}"


def _draw_scores(axes: Axes, scored: Scored) -> None:
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    if scored.time_s is not None and len(set(scored.record)) == 1:
        x, unit = scored.time_s / 60, "minutes"
    else:
        x = np.arange(len(scored.scores), dtype=np.float64)
        unit = scored.student.card.data.unit
    flagged = scored.flagged
    axes.plot(x[~flagged], scored.scores[~flagged], ".", color=QUIET, ms=3, label="not flagged")
    axes.plot(x[flagged], scored.scores[flagged], ".", color=ERROR, ms=5, label="flagged")
    axes.axhline(scored.student.threshold, color=BEAT, lw=0.8, ls="--", label="threshold")
    if scored.scores.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.set_xlabel(unit)
    axes.set_ylabel("score")
    axes.margins(x=0.01)


def _draw_beats(grid: list[Axes], scored: Scored) -> list[Axes]:
    beats = scored.student.normalised(scored.highest.x)
    expected = scored.expected(len(grid))
    for i, axes in enumerate(grid):
        _draw_beat(axes, beats[i], None if expected is None else expected[i], scored)
        axes.set_title(scored.caption(int(scored.highest.row[i])), fontsize=9)
        if i + COLUMNS < len(grid):
            axes.set_xlabel("")
    return grid


def _draw_beat(
    axes: Axes, beat: FloatArray, expected: FloatArray | None, scored: Scored
) -> None:
    """Draw one beat, shape (leads, length), its leads below each other."""
    time, unit = scored.time_axis()
    name = scored.student.card.data.unit
    for lead in range(len(beat)):
        down = LEAD_DISTANCE * lead
        first = lead == 0
        axes.plot(time, beat[lead] - down, color=BEAT, lw=1.1, label=name if first else None)
        if expected is None:
            continue
        axes.plot(
            time,
            expected[lead] - down,
            color=EXPECTED,
            lw=1,
            ls="--",
            label="reconstruction" if first else None,
        )
        axes.fill_between(
            time,
            beat[lead] - down,
            expected[lead] - down,
            color=ERROR,
            alpha=0.25,
            lw=0,
            label="error" if first else None,
        )
    axes.set_yticks([])
    axes.set_ylim(-1.1 - LEAD_DISTANCE * (len(beat) - 1), 1.1)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0)
