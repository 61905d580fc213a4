"""Trials of earlier runs, from which the sampler of a new search learns.

They are copied into the run folder before the first trial: a resume finds the same ones, also
where the earlier runs have been moved or extended since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from kdsearch.config.dimensions import Value
from kdsearch.errors import RunError
from kdsearch.metrics.ranking import Metric
from kdsearch.runs.trial_folder import TrialRecord, in_one_line

# Of each earlier run; more would leave a short search little of its own.
POINTS_TRIED = 3


@dataclass(frozen=True)
class Learned:
    """What a search has taken over from one earlier run.

    Attributes:
        run: Path of the earlier run.
        trials: Its completed and stopped trials, with the settings that the new search has.
        left_out: How many more have a value outside the new space.
        judged_again: This search's metric, if the earlier run maximised another one.
    """

    run: str
    trials: tuple[TrialRecord, ...]
    left_out: int = 0
    judged_again: Metric | None = None

    def best(self) -> list[dict[str, Value]]:
        """The settings of its best trials, which the new search tries first."""
        ranked = sorted(self.trials, key=lambda r: (-r.value, r.number))
        points: list[dict[str, Value]] = []
        for record in ranked:
            if record.params not in points:
                points.append(record.params)
        return points[:POINTS_TRIED]

    def with_costs(self, cost_of: Callable[[Mapping[str, Value]], dict[str, float]]) -> Learned:
        """Return the same with the costs of this search's students, where they are missing."""
        trials = [r if r.costs else replace(r, costs=cost_of(r.params)) for r in self.trials]
        return replace(self, trials=tuple(trials))

    def __str__(self) -> str:
        outside = f" ({self.left_out} more are outside this space)" if self.left_out else ""
        by = f", judged by their {self.judged_again}" if self.judged_again else ""
        return (
            f"learned from {self.run}: {len(self.trials)} trials{outside}{by}; its best are "
            "tried first"
        )


_LEARNED = TypeAdapter(list[Learned])


def to_json(learned: list[Learned]) -> str:
    """The content of ``learned.json``."""
    return _LEARNED.dump_json(learned, indent=2).decode()


def from_json(content: bytes, origin: str) -> list[Learned]:
    """Read the content of ``learned.json``.

    Raises:
        RunError: It is damaged.
    """
    try:
        return _LEARNED.validate_json(content)
    except ValidationError as error:
        raise RunError(f"{origin}: damaged: {in_one_line(error)}") from None
