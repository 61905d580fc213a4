"""Choose the threshold for abnormal beats by a rule on the validation beats."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kdsearch.metrics.ranking import Ranking
from kdsearch.texts import short

FORMS = "f1, {sensitivity: 0.95}, {specificity: 0.99}, or a score such as 0.02"


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        kind: ``f1``, the threshold with the best F1; ``sensitivity`` or ``specificity``, the
            one that just reaches this part of the beats; ``score``, the threshold itself.
        value: The part or the score; None for ``f1``.
    """

    kind: Literal["f1", "sensitivity", "specificity", "score"] = "f1"
    value: float | None = None

    def threshold(self, ranking: Ranking) -> float:
        """The threshold that the rule chooses on these scores.

        Of the thresholds that reach a sensitivity, the highest is chosen, which has the best
        specificity; of those that reach a specificity, the lowest.
        """
        if self.kind == "f1" or self.value is None:
            return ranking.best_f1()[1]
        if self.kind == "score":
            return self.value
        # A rounding error must not cost the threshold that reaches the part exactly.
        wanted = self.value - 1e-12
        if self.kind == "sensitivity":
            sensitivity = ranking.true_positives / ranking.true_positives[-1]
            return float(ranking.thresholds[int(np.argmax(sensitivity >= wanted))])
        specificity = 1 - ranking.false_positives / ranking.false_positives[-1]
        reached = np.flatnonzero(specificity >= wanted)
        if len(reached) == 0:  # The highest score is a normal beat's.
            return float(np.nextafter(ranking.thresholds[0], np.inf))
        return float(ranking.thresholds[reached[-1]])

    def as_plain(self) -> str | float | dict[str, float]:
        """Return the rule as in the space file."""
        if self.value is None:
            return self.kind
        return self.value if self.kind == "score" else {self.kind: self.value}

    def __str__(self) -> str:
        """Return the rule in words."""
        if self.value is None:
            return "the threshold with the best F1 on the validation beats"
        if self.kind == "score":
            return f"the threshold {self.value:g}"
        return f"the threshold with a {self.kind} of {self.value:g} on the validation beats"


def parse_rule(raw: Any) -> Rule:
    """Read a rule as it is in a space file, or as text such as ``sensitivity=0.95``.

    Raises:
        ValueError: It is not a rule.
    """
    content = raw
    if isinstance(raw, str):
        # Of a command line.
        kind, equals, value = raw.partition("=")
        with suppress(ValueError):
            content = {kind.strip(): float(value)} if equals else float(raw)
    if content == "f1":
        return Rule()
    if isinstance(content, Mapping) and len(content) == 1:
        ((kind, value),) = content.items()
        if kind in ("sensitivity", "specificity"):
            if not _is_number(value) or not 0 < value <= 1:
                raise ValueError(
                    f"{kind} must be above 0 and at most 1, but found {short(value)}"
                )
            return Rule(kind, float(value))
    if _is_number(content) and np.isfinite(content):
        return Rule("score", float(content))
    raise ValueError(f"expected {FORMS}, but found {short(raw)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
