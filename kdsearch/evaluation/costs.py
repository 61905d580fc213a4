"""Cost of scoring a beat: parameters, operations and time of each architecture."""

from __future__ import annotations

import math
import statistics
import timeit
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kdsearch.methods.device import threads
from kdsearch.methods.protocol import Compute, Exporting, Method, State, Task

BATCH = 256
REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """Costs of scoring with one network.

    Attributes:
        parameters: Numbers that it consists of.
        operations: Multiply-adds per beat.
        microseconds: Per beat, median of a few batches of 256 on one CPU thread of the
            machine that ended the search.
    """

    parameters: int
    operations: int
    microseconds: float

    def __add__(self, other: Cost) -> Cost:
        """The cost of both, as of two members of an ensemble."""
        return Cost(
            self.parameters + other.parameters,
            self.operations + other.operations,
            self.microseconds + other.microseconds,
        )


def measure(
    method: Exporting, weights: State, leads: int, length: int, *, timed: bool = True
) -> Cost:
    """Count and time the network that scores with these weights.

    Args:
        length: Padded samples of a beat.
        timed: Without it, ``microseconds`` is NaN.
    """
    network = method.scoring_network(weights)
    beats = _beats(leads, length).expand(BATCH, -1, -1).contiguous()
    microseconds = math.nan
    if timed:
        with torch.inference_mode(), threads(1):
            network(beats)
            times = timeit.repeat(lambda: network(beats), number=1, repeat=REPEATS)
        microseconds = 1e6 * statistics.median(times) / BATCH
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        operations=operations(network, leads, length),
        microseconds=microseconds,
    )


def operations(network: torch.nn.Module, leads: int, length: int) -> int:
    """Multiply-adds of a network for one beat of this shape."""
    with torch.inference_mode(), _FlopCounter() as counter:
        network(_beats(leads, length))
    flops: int = counter.flops
    return flops // 2


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """torch's own ``FlopCounterMode`` without torch's compiler, which takes 0.7 s to import."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # To tell the compiler to skip a function, torch would import it.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _beats(leads: int, length: int) -> torch.Tensor:
    return torch.linspace(-1, 1, leads * length).reshape(1, leads, length)


class StudentCosts:
    """The costs of students before they are trained, measured once for each architecture."""

    def __init__(self, method: Method, task: Task, *, timed: bool = True) -> None:
        """Measure nothing yet.

        Args:
            timed: Whether time is measured as well.
        """
        self._method, self._timed = method, timed
        self._task = replace(task, compute=Compute())
        self._known: dict[str, Cost] = {}

    def __call__(self, settings: BaseModel) -> Cost:
        """Return the cost of a student of a method that is `Exporting`."""
        assert isinstance(self._method, Exporting)
        key = self._method.structure(settings)
        if key not in self._known:
            stack = self._method.student_stack(settings, 1, self._task)
            stack.put_in(0, settings, seed=0)
            _, leads, length = self._task.data.train.shape
            self._known[key] = measure(
                self._method, stack.weights(0), leads, length, timed=self._timed
            )
        return self._known[key]


def by_name(cost: Cost) -> dict[str, float]:
    """Return a cost by the names of the space file."""
    return {
        "parameters": cost.parameters,
        "multiply_adds": cost.operations,
        "microseconds": cost.microseconds,
    }
