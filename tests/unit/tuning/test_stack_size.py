"""How large a stack is chosen, and that it is measured with the real thing."""

from __future__ import annotations

import pytest

from kdsearch.tuning.workers.stack_size import Rate, best_size, describe_sizes, rates, sample
from kdsearch.tuning.workers.trial import TrialInputs


@pytest.mark.parametrize(
    ("per_second", "best"),
    [
        ([10.0], 1),
        ([10.0, 9.0], 1),
        ([10.0, 10.5], 1),
        ([10.0, 19.0, 36.0, 38.0], 4),
        ([10.0, 12.0, 12.5, 40.0], 2),
    ],
)
def test_a_larger_stack_has_to_be_worth_while(per_second: list[float], best: int) -> None:
    measured = [Rate(2**n, rate) for n, rate in enumerate(per_second)]
    assert best_size(measured) == best
    assert describe_sizes(measured, best).startswith(f"{best} students train side by side")


def test_stacks_are_measured_up_to_the_limit(inputs: TrialInputs) -> None:
    small = sample(inputs)
    assert len(small.data.train) == len(small.targets["score"]) <= len(inputs.data.train)
    assert set(small.data.validation.abnormal) == {True, False}
    measured = rates(small, most=2)
    assert [rate.students for rate in measured] == [1, 2][: len(measured)]
    assert all(rate.per_second > 0 for rate in measured)
