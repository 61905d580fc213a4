"""Who occupies a packer's slots and when an epoch begins; the time is given, nobody waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdsearch.tuning.workers.messages import Outcome
from kdsearch.tuning.workers.slots import FIRST_LINGER_S, LEASE_S, LINGER_S, Member, Slots
from kdsearch.tuning.workers.training import Training

TRAINED = Outcome("trained")


def training() -> Training:
    return cast("Training", SimpleNamespace(leave=lambda: None))


def occupy(slots: Slots, number: int, now: float = 0.0, **options: Any) -> Member:
    member = slots.occupy(number, training(), **{"suspect": False, "now": now, **options})
    assert member is not None, "no slot"
    return member


def train(slots: Slots, crew: list[Member], *, seconds: float = 1.0, now: float) -> None:
    """An epoch of this crew, whose trials fetch their results at once."""
    for member in crew:
        member.state = "training"
    slots.end_epoch(crew, [TRAINED] * len(crew), seconds=seconds, now=now)
    for member in crew:
        member.outcome = None


@pytest.fixture
def slots() -> Slots:
    return Slots(3, expected=3, now=0.0)


@pytest.fixture
def full(slots: Slots) -> tuple[Slots, list[Member]]:
    """All slots are occupied by members that are back from their first epoch."""
    members = [occupy(slots, number) for number in range(3)]
    for member in members:
        member.state = "ready"
    assert slots.next_crew(0.0) == members
    train(slots, members, now=1.0)
    return slots, members


def test_an_epoch_begins_at_once_when_all_slots_are_ready(slots: Slots) -> None:
    members = [occupy(slots, number) for number in range(3)]
    for member in members:
        assert slots.next_crew(0.0) == [], "not all are back"
        member.state = "ready"
    assert slots.next_crew(0.0) == members
    assert [member.state for member in members] == ["called"] * 3
    assert not any(member.alone for member in members)


def test_the_first_epoch_waits_for_the_members_that_are_expected(slots: Slots) -> None:
    occupy(slots, 0).state = "ready"
    assert slots.next_crew(FIRST_LINGER_S - 0.1) == []
    (member,) = slots.next_crew(FIRST_LINGER_S)
    assert member.alone


def test_a_packer_that_started_again_waits_as_before_a_later_epoch() -> None:
    slots = Slots(3, expected=0, now=0.0)
    member = occupy(slots, 0)
    member.state = "ready"
    assert slots.next_crew(LINGER_S[1] - 0.1) == []
    assert slots.next_crew(LINGER_S[1]) == [member]


@pytest.mark.parametrize(("seconds", "linger_s"), [(0.2, LINGER_S[0]), (5, 0.5), (60, 1.0)])
def test_the_wait_for_a_successor_is_a_share_of_the_epoch(
    full: tuple[Slots, list[Member]], seconds: float, linger_s: float
) -> None:
    slots, members = full
    train(slots, members, seconds=seconds, now=100.0)
    slots.release(members[0], 100.0)
    for member in members[1:]:
        member.state = "ready"
    assert slots.next_crew(100.0 + linger_s - 0.01) == []
    assert slots.next_crew(100.0 + linger_s) == members[1:]


def test_a_free_slot_that_nobody_wants_delays_one_epoch_only(
    full: tuple[Slots, list[Member]],
) -> None:
    slots, members = full
    slots.release(members[0], 1.0)
    train(slots, members[1:], now=10.0)
    for member in members[1:]:
        member.state = "ready"
    assert slots.next_crew(10.0) == members[1:]


def test_slots_of_dead_trials_are_freed_though_nobody_is_ready(
    full: tuple[Slots, list[Member]],
) -> None:
    """All trials of a packer died while they trained, or on their way back."""
    slots, _ = full
    assert slots.free(1.0 + LEASE_S) == 0
    assert slots.free(1.1 + LEASE_S) == 3
    assert occupy(slots, 9, 40.0)


def test_a_dead_trial_holds_up_an_epoch_for_its_lease_only(slots: Slots) -> None:
    here, dead = occupy(slots, 0), occupy(slots, 1)
    here.state = "ready"
    assert slots.next_crew(LEASE_S - 0.1) == []
    assert slots.next_crew(LEASE_S + 0.1) == [], "somebody may take its slot"
    assert slots.next_crew(LEASE_S + FIRST_LINGER_S + 0.2) == [here]
    assert dead.state == "gone"


def test_a_call_that_nobody_answers_expires(full: tuple[Slots, list[Member]]) -> None:
    slots, members = full
    for member in members:
        member.state = "ready"
    slots.next_crew(2.0)
    members[0].state = members[1].state = "training"
    assert not slots.answered(2.0 + LEASE_S)
    assert slots.answered(2.1 + LEASE_S)
    assert members[2].state == "gone"


def test_a_trial_that_comes_again_takes_its_own_slot(
    full: tuple[Slots, list[Member]],
) -> None:
    slots, members = full
    again = occupy(slots, 1, 2.0)
    assert members[1].state == "gone"
    assert set(slots.members.values()) == {members[0], members[2], again}


def test_tickets_are_never_used_again() -> None:
    """A packer that starts again does not take a stale ticket for one of its own."""
    tickets = [occupy(Slots(1, expected=1, now=0.0), number).ticket for number in (0, 0, 1)]
    assert len(set(tickets)) == 3


def test_another_process_of_a_trial_takes_its_slot_at_once(slots: Slots) -> None:
    members = [occupy(slots, number) for number in range(3)]
    assert slots.free(1.0) == slots.free(1.0, 7) == 0
    assert slots.free(1.0, members[1].number) == 1
    members[1].state = "training"
    assert slots.free(1.0, members[1].number) == 0, "its epoch is not over"
    members[1].state = "away"
    occupy(slots, 1, now=1.0)
    assert members[1].state == "gone"


def test_nobody_waits_for_a_trial_that_was_stopped(full: tuple[Slots, list[Member]]) -> None:
    slots, members = full
    for member in members[1:]:
        member.state = "ready"
    assert slots.next_crew(2.0) == [], "it may come back"
    slots.release_trial(members[0].number, 2.0)
    assert slots.next_crew(2.0 + LINGER_S[1]) == members[1:]
    assert slots.free(2.0) == 1


def test_a_suspect_does_not_wait_for_members_that_are_expected(slots: Slots) -> None:
    """After a crash all that are left may be there, and each trains alone first."""
    suspect = occupy(slots, 0, suspect=True)
    suspect.state = "ready"
    assert slots.next_crew(0.0) == [suspect]
    assert suspect.alone


def test_a_suspect_trains_alone_and_the_others_wait(slots: Slots) -> None:
    members = [occupy(slots, 0), occupy(slots, 1, suspect=True), occupy(slots, 2)]
    for member in members:
        member.state = "ready"
    assert slots.next_crew(0.0) == [members[1]]
    assert members[1].alone
    assert slots.answered(0.0) is False
    train(slots, [members[1]], now=1.0)
    members[1].state = "ready"
    assert slots.next_crew(1.0) == members


def test_a_member_that_leaves_in_mid_epoch_goes_when_it_ends(
    full: tuple[Slots, list[Member]],
) -> None:
    slots, members = full
    for member in members:
        member.state = "training"
    slots.release(members[0], 2.0)
    assert slots.free(2.0) == 0
    slots.end_epoch(members, [TRAINED] * 3, seconds=1.0, now=3.0)
    assert slots.free(3.0) == 1
    assert members[0].outcome is TRAINED, "whoever waits for it still gets it"
    slots.release(members[0], 3.0)
    assert slots.free(3.0) == 1, "leaving twice is harmless"


def test_half_of_what_did_not_fit() -> None:
    """Members beyond the halved slots go, newest first; the number of slots stays halved."""
    slots = Slots(8, expected=8, now=0.0)
    crew = [occupy(slots, number) for number in range(2)]
    others = [occupy(slots, number) for number in range(2, 8)]
    slots.halve(crew, 1.0)
    assert slots.count == 4
    assert [m.state for m in others] == ["away"] * 4 + ["gone"] * 2
    for member in crew:
        slots.release(member, 1.0)
    assert slots.free(1.0) == 0
    for member in others:
        slots.release(member, 1.0)
    assert slots.free(1.0) == 4
