"""Which trials are worth their cost."""

from __future__ import annotations

from collections.abc import Mapping


def pareto_front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Numbers that no other beats in both: a lower cost and a higher score.

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
