"""Trials and packers in a real Ray: packers that cannot be placed, cannot start, or die."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
import ray
from small import started_ray

from kdsearch.tuning.workers import packed_trial
from kdsearch.tuning.workers.messages import EPOCH, STORAGE, Entry, Outcome
from kdsearch.tuning.workers.packed_trial import TrialCrashed, train_in_packer
from kdsearch.tuning.workers.packer_actor import PackerActor


class Packer:
    """Answers as a packer does; each epoch goes as planned, over all lives of the process."""

    def __init__(self, plan: Any = None) -> None:
        self._plan = plan

    def free(self, number: int) -> int:
        return 1

    def enter(self, trial: dict[str, Any], suspect: bool) -> Entry:
        return Entry("alone" if suspect else "together", [], False)

    def begin(self, ticket: str) -> bool:
        return ticket == "alone"

    def result(self, ticket: str) -> Outcome:
        kind = ray.get(self._plan.next.remote(ticket))
        if kind == "die":
            os._exit(1)
        return Outcome(kind, {EPOCH: 1}, done=kind == "trained")

    def leave(self, ticket: str) -> None:
        pass


class Plan:
    """What happens to each epoch, and in which ones the student was alone."""

    def __init__(self, kinds: list[str]) -> None:
        self._kinds = kinds
        self._tickets: list[str] = []

    def next(self, ticket: str) -> str:
        self._tickets.append(ticket)
        return self._kinds.pop(0)

    def tickets(self) -> list[str]:
        return self._tickets


class Broken(Packer):
    def __init__(self) -> None:
        raise ValueError("this machine has no torch")


@pytest.fixture(scope="module")
def a_ray() -> Iterator[None]:
    with started_ray(__name__, cpus=2):
        yield


@pytest.fixture
def reports(a_ray: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Tune is told."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(packed_trial.tune, "report", told.append)
    return told


def start(kind: type[Packer], *arguments: Any, cpus: float = 0.5) -> Any:
    actor = cast("Any", ray.remote(kind))
    return actor.options(num_cpus=cpus, max_restarts=-1, max_concurrency=4).remote(*arguments)


def plan(*kinds: str) -> Any:
    return cast("Any", ray.remote(Plan)).options(num_cpus=0).remote(list(kinds))


def test_a_trial_that_holds_a_packer_has_not_loaded_torch(a_ray: None) -> None:
    @ray.remote
    def loaded(packers: list[Any]) -> bool:
        return "torch" in sys.modules

    never_placed = start(PackerActor, [], 1, 1, cpus=3)
    assert not ray.get(loaded.remote([never_placed]))


def test_a_packer_that_cannot_be_placed_holds_up_nobody(reports: list[Any]) -> None:
    too_large, good = start(Packer, cpus=3), start(Packer, plan("trained"))
    train_in_packer({"number": 0}, [too_large, good])
    assert reports == [{EPOCH: 1}]


def test_packers_that_cannot_start_stop_the_search_with_their_reason(
    reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_trial, "DEAD_S", 0.0)
    train_in_packer({"number": 0}, [start(Broken), start(Broken)])
    reason = "no process that trains students can start: ValueError: this machine has no torch"
    assert [told[STORAGE] for told in reports] == [reason]


def test_machines_that_are_gone_stop_the_search(
    reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_trial, "SILENCE_S", 0.3)
    train_in_packer({"number": 0}, [start(Packer, cpus=3)])
    assert "no process that trains students has answered" in reports[0][STORAGE]


def test_a_student_whose_packer_dies_repeats_the_epoch_alone(reports: list[Any]) -> None:
    history = plan("die", "trained")
    train_in_packer({"number": 0}, [start(Packer, history)])
    assert reports == [{EPOCH: 1}]
    assert ray.get(history.tickets.remote()) == ["together", "alone"]


def test_a_student_that_was_alone_takes_the_blame(reports: list[Any]) -> None:
    history = plan("die", "die")
    with pytest.raises(TrialCrashed, match="trained alone"):
        train_in_packer({"number": 0}, [start(Packer, history)])
    assert reports == []


def test_a_student_that_lost_its_slot_is_not_suspected(reports: list[Any]) -> None:
    history = plan("again", "trained")
    train_in_packer({"number": 0}, [start(Packer, history)])
    assert ray.get(history.tickets.remote()) == ["together", "together"]
