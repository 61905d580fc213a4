"""Colours that colour-blind readers can distinguish (Okabe and Ito), each with one meaning."""

from __future__ import annotations

from typing import Literal

from plotly.colors import sample_colorscale

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
VERMILION, PURPLE = "#D55E00", "#CC79A7"
GREY, INK = "#8A94A0", "#1F2933"

Symbol = Literal["circle", "square", "x", "star"]

COLOURS = {"completed": BLUE, "stopped": ORANGE, "failed": VERMILION, "running": GREEN}
SYMBOLS: dict[str, Symbol] = {
    "completed": "circle",
    "stopped": "square",
    "failed": "x",
    "running": "star",
}
STUDENT, CONTROL, TEACHER = BLUE, ORANGE, GREEN
CLASSES = {"N": GREY, "S": BLUE, "V": VERMILION, "F": PURPLE, "Q": GREEN}

# Even in lightness, so that it survives a copier as well.
SCALE = "viridis"


def of_class(label: str) -> str:
    """Return the colour of a class; all classes without an AAMI name have one colour."""
    return CLASSES.get(label, VERMILION)


def on_scale(value: float, low: float, high: float) -> str:
    """The colour of a figure between ``low`` and ``high``."""
    part = (value - low) / (high - low) if high > low else 1.0
    (colour,) = sample_colorscale(SCALE, part, colortype="tuple")
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)


def scale_stops() -> list[tuple[float, str]]:
    """The colour scale as positions between 0 and 1 and their colours."""
    return [(eighth / 8, on_scale(eighth, 0, 8)) for eighth in range(9)]
