"""Epochs that are trained in parts, for the stacks of every method."""

from __future__ import annotations

from collections.abc import Callable

from beatgan_cases import identical
from pydantic import BaseModel

from kdsearch.methods.protocol import Stack, State

NewStack = Callable[[], Stack]


def whole_epoch(new_stack: NewStack, settings: list[BaseModel]) -> list[State]:
    """The states of two students after an epoch, trained at once."""
    stack = new_stack()
    for slot in (0, 1):
        stack.put_in(slot, settings[slot], seed=slot)
    stack.advance()
    return [stack.save(slot) for slot in (0, 1)]


def check_parts(new_stack: NewStack, settings: list[BaseModel]) -> None:
    """An epoch in parts ends as a whole one, also from a saved part and beside a later student.

    All stacks have two students: equal bits need equal numbers of students.
    """
    expected = whole_epoch(new_stack, settings)
    first = new_stack()
    for slot in (0, 1):
        first.put_in(slot, settings[slot], seed=slot)
    found = [first.advance(1)[0]]
    state = first.save(0)
    for _ in range(first.steps - 1):
        found.append(first.advance(1)[0])
    assert [trained.epoch for trained in found] == [1] * first.steps
    assert all(identical(first.save(slot), expected[slot]) for slot in (0, 1))
    assert first.advance(1)[0].epoch == 2

    second = new_stack()
    second.put_in(0, settings[0], seed=0, state=state)
    second.put_in(1, settings[1], seed=1)
    second.advance(second.steps - 1)
    assert identical(second.save(0), expected[0])
    assert not identical(second.save(1), expected[1])
    second.advance(1)
    assert identical(second.save(1), expected[1])
