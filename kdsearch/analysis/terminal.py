"""Format tables: coloured and within the width of a terminal, plain text in a pipe."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

# The styles of rows by what a cell says, of the first one that does.
STYLES = {
    "better": "green",
    "worse": "red",
    "failed": "red",
    "running": "yellow",
    "teacher": "italic",
    "stopped": "dim",
}
# How a sentence continues after each judgement, in the order in which they are said. The names
# that follow may have commas.
JUDGED = {
    "better": "better than",
    "worse": "worse than",
    "not distinguishable": "not distinguishable from",
}
GAP = 2
LONGEST_WHOLE = 20


@dataclass(frozen=True)
class Screen:
    """Where a text is shown.

    Attributes:
        width: Columns of the terminal; None for a pipe or a file.
    """

    width: int | None = None

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """The terminal that a stream writes to, if it is one."""
        console = Console(file=stream)
        return cls(console.width if console.is_terminal else None)


def draw(
    table: pd.DataFrame,
    screen: Screen,
    *,
    marked: Sequence[int] = (),
    dispensable: Sequence[str] = (),
) -> str:
    """Draw a table of texts, from `kdsearch.analysis.leaderboard.rounded`.

    Args:
        marked: Rows in bold.
        dispensable: Columns that are left out, the first ones first, where the terminal is
            too narrow; a line below the table names them.
    """
    if screen.width is None:
        return str(table.to_string(index=False))
    shown, dropped = table, []
    for column in dispensable:
        if _width(shown) <= screen.width or column not in shown:
            break
        shown = shown.drop(columns=column)
        dropped.append(column)
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in shown.columns:
        numbers = all(_is_number(cell) for cell in shown[column])
        # Figures and intervals stay whole; names and reasons take several lines.
        short = max([len(str(cell)) for cell in shown[column]], default=0) <= LONGEST_WHOLE
        drawn.add_column(Text(column), justify="right" if numbers else "left", no_wrap=short)
    for index, row in enumerate(shown.itertuples(index=False)):
        cells = [str(cell) for cell in row]
        style = next((style for word, style in STYLES.items() if word in cells), "")
        style = f"bold {style}".strip() if index in marked else style
        drawn.add_row(*[Text(cell) for cell in cells], style=style)
    file = io.StringIO()
    Console(file=file, width=screen.width, force_terminal=True).print(drawn)
    lines = [line.rstrip() for line in file.getvalue().rstrip("\n").split("\n")]
    note = [f"not shown, too narrow: {', '.join(dropped)}"] if dropped else []
    return "\n".join([*lines, *note])


def judged(name: str, judgements: Mapping[str, str]) -> str:
    """One sentence: ``Trial 3 is better than a; not distinguishable from b and c.``

    Args:
        judgements: ``better``, ``worse`` or ``not distinguishable`` by the name of the other.
    """
    parts = []
    for judgement, words in JUDGED.items():
        others = [other for other, found in judgements.items() if found == judgement]
        if others:
            *most, last = others
            listed = f"{', '.join(most)} and {last}" if most else last
            parts.append(f"{words} {listed}")
    return f"{name[0].upper()}{name[1:]} is {'; '.join(parts)}." if parts else ""


def _width(table: pd.DataFrame) -> int:
    widest = [
        max([len(str(column)), *(len(str(cell)) for cell in table[column])])
        for column in table.columns
    ]
    return sum(widest) + GAP * len(widest)


def _is_number(cell: object) -> bool:
    text = str(cell).replace(",", "").replace("±", "").replace(" ", "")
    return text in ("", "-") or text.lstrip("+-").replace(".", "").replace("e-", "").isdigit()
