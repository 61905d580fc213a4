"""Tables in a terminal: within its width, nothing important cut off, plain in a pipe."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest

from kdsearch.analysis.terminal import Screen, draw, judged

TABLE = pd.DataFrame(
    {
        "rank": ["1", "2", "-", "-"],
        "trial": ["0", "1", "2", "teacher"],
        "state": ["completed", "stopped", "failed", ""],
        "val_auc": ["0.9000", "0.8000", "-", "0.9500"],
        "seconds": ["1.5", "0.5", "0.1", "12.5"],
        "reason": ["", "", "ValueError: the loss [/b] is nan in epoch 1 of this trial", ""],
    }
)


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_a_pipe_gets_no_colours_and_everything():
    text = draw(TABLE, Screen(), marked=[0], dispensable=["seconds"])
    assert "\x1b" not in text
    assert len(text.splitlines()) == 5
    assert "ValueError: the loss [/b] is nan in epoch 1 of this trial" in text
    assert Screen.of(io.StringIO()) == Screen(None)


def test_a_terminal_shows_states_in_colours():
    text = draw(TABLE, Screen(200), marked=[0])
    assert "\x1b[1m" in text.splitlines()[1]
    assert "\x1b[31m" in text.splitlines()[3]
    lines = plain(text)
    assert lines[0].split() == list(TABLE.columns)
    assert lines[3].endswith("ValueError: the loss [/b] is nan in epoch 1 of this trial")
    assert "not shown" not in text


@pytest.mark.parametrize("width", [50, 60, 80])
def test_a_narrow_terminal_keeps_the_figures(width: int):
    lines = plain(draw(TABLE, Screen(width), dispensable=["seconds", "rank"]))
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(figure in text for figure in ("0.9000", "0.8000", "0.9500", "completed"))
    assert "…" not in text
    assert lines[-1] == "not shown, too narrow: seconds, rank"


def test_a_verdict_is_one_sentence():
    judgements = {"b": "not distinguishable", "a": "better", "d": "worse", "c, e": "better"}
    assert judged("trial 3", judgements) == (
        "Trial 3 is better than a and c, e; worse than d; not distinguishable from b."
    )
    assert judged("trial 3", {"a": "worse"}) == "Trial 3 is worse than a."
    assert judged("trial 3", {}) == ""
