"""Compare searches: the best score by number of trials and by training time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from kdsearch.runs.trial_folder import TrialRecord

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def best_so_far(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """The best value after each trial, in the order in which trials began.

    Returns:
        A row per trial with ``trials``, ``epochs`` and ``seconds`` spent until then, and
        ``best``; NaN before the first epoch. A failed trial costs, but counts for nothing.
    """
    rows = []
    trials, seconds, best = 0, 0.0, math.nan
    epochs: int | float = 0
    for record in sorted(records, key=lambda record: record.number):
        trials, epochs = trials + 1, epochs + record.epochs
        seconds += record.seconds
        if record.state != "failed":
            best = max(best, record.value, key=lambda v: -math.inf if math.isnan(v) else v)
        rows.append((trials, epochs, seconds, best))
    return pd.DataFrame(rows, columns=["trials", "epochs", "seconds", "best"])


def over_trials(runs: Mapping[str, Sequence[TrialRecord]]) -> pd.DataFrame:
    """Best so far after 1, 2, 4, 8, … trials; a column per run, NaN where it has fewer."""
    curves = {name: best_so_far(records) for name, records in runs.items()}
    longest = max((len(curve) for curve in curves.values()), default=0)
    marks = [2**power for power in range(longest.bit_length()) if 2**power < longest]
    marks += [longest] if longest else []
    return _at(curves, "trials", marks)


def over_compute(runs: Mapping[str, Sequence[TrialRecord]]) -> pd.DataFrame:
    """Return the best so far at equal training times, up to the shortest run."""
    curves = {name: best_so_far(records) for name, records in runs.items()}
    spent = [curve["seconds"].iloc[-1] for curve in curves.values() if len(curve)]
    return _at(curves, "seconds", [share * min(spent) for share in SHARES] if spent else [])


def _at(curves: Mapping[str, pd.DataFrame], axis: str, marks: Sequence[float]) -> pd.DataFrame:
    table = pd.DataFrame({axis: list(marks)})
    for name, curve in curves.items():
        table[name] = [_value(curve, axis, mark) for mark in marks]
    return table


def _value(curve: pd.DataFrame, axis: str, mark: float) -> float:
    """Return the best value of a run at ``mark``; NaN if the run did not get that far."""
    # A share of a sum may fall short of the sum by a rounding error.
    reached = curve[curve[axis] <= mark * (1 + 1e-9)]
    beyond = axis == "trials" and mark > len(curve)
    return math.nan if reached.empty or beyond else float(reached["best"].iloc[-1])


def pareto_front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Return the numbers of the Pareto front of lower cost and higher score.

    Args:
        points: Cost and score by number.

    Returns:
        By rising cost; of equal points the first.
    """
    front: list[int] = []
    best = -float("inf")
    for number, (_, score) in sorted(points.items(), key=lambda p: (p[1][0], -p[1][1], p[0])):
        if score > best:
            front.append(number)
            best = score
    return front
