"""BeatGAN whose stacks are watched, and the trials that train in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsearch.methods.beatgan import BeatGan

EPOCHS = 3
PARAMS = {"temperature": 1.0, "alpha": 0.1, "w_adv": 1.0}


class Watched(BeatGan):
    """BeatGAN whose stacks say who trains, and fail when told to."""

    def __init__(self) -> None:
        self.crews: list[int] = []
        self.slots: list[int] = []
        self.faults: list[Exception] = []
        self.on_advance: Callable[[], object] = lambda: None

    def student_stack(self, *args: Any, **options: Any) -> Any:
        stack = super().student_stack(*args, **options)
        self.slots.append(stack.slots)
        advance = stack.advance

        def watched(*steps: int) -> Any:
            self.crews.append(len(stack._students))
            self.on_advance()
            if self.faults:
                raise self.faults.pop(0)
            return advance(*steps)

        stack.advance = watched
        return stack


def trial(number: int) -> dict[str, Any]:
    return {"number": number, "params": PARAMS}
