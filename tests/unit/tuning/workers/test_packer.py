"""The packer without Ray: who trains with whom, who waits for whom, and who is to blame."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from search_cases import new_driver
from watched import EPOCHS, PARAMS, Watched, trial

from kdsearch.files.atomic import save_state
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.workers import slots
from kdsearch.tuning.workers.messages import BEST_SO_FAR, EPOCH, FAILURE, Entry, Outcome
from kdsearch.tuning.workers.packer import Packer
from kdsearch.tuning.workers.trial import TrialInputs


def enter(packer: Packer, trial: dict[str, Any], suspect: bool = False) -> Entry:
    entry = packer.enter(trial, suspect)
    assert isinstance(entry, Entry), "no slot"
    return entry


class Visitor(threading.Thread):
    """A trial's side of the talk, to its end or until it is told to stop."""

    def __init__(self, packer: Packer, number: int, epochs: int = EPOCHS) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[Outcome] = []
        self.alone: list[bool | None] = []
        self._packer, self._trial, self._epochs = packer, trial(number), epochs
        self.entry = enter(packer, self._trial)
        self.start()

    def run(self) -> None:
        for _ in range(self._epochs):
            self.alone.append(self._packer.begin(self.entry.ticket))
            self.outcomes.append(self._packer.result(self.entry.ticket))
            if self.outcomes[-1].kind != "trained":
                return
        self._packer.leave(self.entry.ticket)

    def ended(self) -> list[str]:
        self.join(timeout=60)
        assert not self.is_alive()
        return [outcome.kind for outcome in self.outcomes]


class Clock:
    """Twenty seconds pass in one, none while it is stopped, and any number at a leap."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._stopped: float | None = None

    def __call__(self) -> float:
        return self._ahead + 20 * (self._stopped or time.monotonic())

    def stop(self) -> None:
        self._stopped = time.monotonic()

    def start(self) -> None:
        self._stopped = None

    def leap(self) -> None:
        self._ahead += 2 * slots.LEASE_S


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The leases end in a leap alone: on a busy machine a thread may be late by seconds."""
    monkeypatch.setattr(slots, "LEASE_S", 1e6)
    return Clock()


@pytest.fixture
def packer(inputs: TrialInputs, clock: Clock) -> Packer:
    return Packer(inputs, 3, expected=3, die=lambda: None, clock=clock)


def test_all_train_together(packer: Packer, method: Watched) -> None:
    visitors = [Visitor(packer, number) for number in range(3)]
    assert packer.free() == 0
    assert packer.enter(trial(3)) is None
    for visitor in visitors:
        assert visitor.ended() == ["trained"] * EPOCHS
        assert [outcome.result[EPOCH] for outcome in visitor.outcomes] == [1, 2, 3]
        assert [outcome.done for outcome in visitor.outcomes] == [False, False, True]
        assert visitor.alone == [False] * EPOCHS
    assert method.crews == [3, 3, 3]
    assert packer.free() == 3


def test_a_slot_is_filled_at_the_next_epoch(
    packer: Packer, method: Watched, clock: Clock
) -> None:
    clock.stop()
    stopped = Visitor(packer, 0, epochs=1)
    others = [Visitor(packer, number) for number in (1, 2)]
    stopped.join(timeout=60)
    late = Visitor(packer, 3)
    clock.start()
    assert [visitor.ended() for visitor in (*others, late)] == [["trained"] * EPOCHS] * 3
    assert method.crews == [3, 3, 3, 1]


def test_a_trial_goes_on_from_its_checkpoint(packer: Packer) -> None:
    first = [Visitor(packer, number, epochs=2) for number in range(3)]
    assert [visitor.ended() for visitor in first] == [["trained"] * 2] * 3
    again = Visitor(packer, 1)
    assert [result[EPOCH] for result in again.entry.history] == [1], "the second was not kept"
    assert again.entry.history[0] == first[1].outcomes[0].result
    assert again.ended()[0] == "trained"
    here, there = again.outcomes[0].result, first[1].outcomes[1].result
    assert (here[EPOCH], here[BEST_SO_FAR]) == (there[EPOCH], pytest.approx(there[BEST_SO_FAR]))


def test_nobody_waits_for_ever_for_a_dead_trial(
    packer: Packer, method: Watched, clock: Clock
) -> None:
    dead = enter(packer, trial(2))
    visitors = [Visitor(packer, number) for number in range(2)]
    while [member.state for member in packer._slots.members.values()].count("ready") < 2:
        time.sleep(0.01)
    clock.leap()
    assert [visitor.ended() for visitor in visitors] == [["trained"] * EPOCHS] * 2
    assert method.crews == [2, 2, 2]
    assert packer.begin(dead.ticket) is None, "its slot was taken away"


def test_who_fails_alone_is_to_blame(packer: Packer, method: Watched) -> None:
    method.faults = [RuntimeError("the sensor caught fire")]
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["suspected"]] * 3
    assert packer.free() == 3

    method.faults = [RuntimeError("again")]
    guilty = enter(packer, trial(0), suspect=True)
    assert packer.begin(guilty.ticket) is True
    assert packer.result(guilty.ticket).kind == "crashed"
    folder = RunFolder(packer._inputs.run).trial(0)
    assert folder.take_error() == "RuntimeError: again"

    again = enter(packer, trial(0))
    others = [Visitor(packer, number) for number in (1, 2)]
    assert packer.begin(again.ticket) is True, "a trial that has crashed begins alone"
    assert packer.result(again.ticket).kind == "trained"
    packer.leave(again.ticket)
    assert [visitor.ended() for visitor in others] == [["trained"] * EPOCHS] * 2


def test_a_cleared_suspect_joins_the_others(packer: Packer, method: Watched) -> None:
    entries = [enter(packer, trial(number), suspect=number < 2) for number in range(3)]
    alone: list[bool | None] = [None] * 3

    def train(index: int) -> None:
        entry = entries[index]
        alone[index] = packer.begin(entry.ticket)
        packer.result(entry.ticket)
        packer.begin(entry.ticket)
        packer.result(entry.ticket)
        packer.leave(entry.ticket)

    threads = [threading.Thread(target=train, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert alone[:2] == [True, True]
    assert method.crews[:2] == [1, 1]
    assert 3 in method.crews


def test_where_all_do_not_fit_half_of_them_do(packer: Packer, method: Watched) -> None:
    method.faults = [torch.OutOfMemoryError("tried to allocate 64 GiB")]
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["suspected"]] * 3
    assert packer.free() == 1
    assert Visitor(packer, 1).ended() == ["trained"] * EPOCHS


def test_memory_that_another_structure_takes_is_nobodys_fault(
    packer: Packer, method: Watched
) -> None:
    """A student with a stack of its own trains beside a stack of two: all of it did not fit."""
    method.faults = [torch.OutOfMemoryError("tried to allocate 64 GiB")]
    entry = enter(packer, {"number": 0, "params": {**PARAMS, "width": 1}})
    others = [Visitor(packer, number) for number in (1, 2)]
    assert packer.begin(entry.ticket) is False
    assert packer.result(entry.ticket).kind == "suspected"
    assert [visitor.ended()[0] for visitor in others] == ["trained"] * 2


def test_a_stack_is_as_large_as_its_students_need(
    inputs: TrialInputs, method: Watched, clock: Clock
) -> None:
    """Empty slots cost as much as occupied ones: it shrinks, and grows when others enter."""
    packer = Packer(inputs, 8, expected=5, die=lambda: None, clock=clock)
    clock.stop()
    short = [Visitor(packer, number, epochs=1) for number in range(4)]
    long = Visitor(packer, 4)
    assert [visitor.ended() for visitor in short] == [["trained"]] * 4
    clock.start()
    assert long.ended() == ["trained"] * EPOCHS
    assert method.slots == [8, 1]
    assert [outcome.result[EPOCH] for outcome in long.outcomes] == [1, 2, 3]


def test_a_student_that_diverges_leaves_its_neighbours_alone(
    packer: Packer, inputs: TrialInputs
) -> None:
    wild = {**PARAMS, "w_adv": 1e38}
    entry = enter(packer, {"number": 7, "params": wild})
    visitors = [Visitor(packer, number) for number in range(2)]
    packer.begin(entry.ticket)
    outcome = packer.result(entry.ticket)
    assert outcome.kind == "final"
    assert FAILURE in outcome.result
    assert [visitor.ended() for visitor in visitors] == [["trained"] * EPOCHS] * 2


def test_save_writes_what_the_last_epoch_left_and_no_other_begins(
    packer: Packer, inputs: TrialInputs
) -> None:
    entry = enter(packer, trial(0))
    packer.begin(entry.ticket)
    assert packer.result(entry.ticket).kind == "trained"
    folder = RunFolder(inputs.run).trial(0)
    assert folder.checkpoint() is None
    packer.save()
    found = folder.checkpoint()
    assert found is not None
    assert len(found.history) == 1
    threading.Thread(target=packer.begin, args=[entry.ticket], daemon=True).start()
    time.sleep(0.5)
    assert len(folder.history()) == 1
    packer.save()


def test_workers_of_a_dead_driver_end(packer: Packer, inputs: TrialInputs) -> None:
    new_driver(RunFolder(inputs.run))
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["superseded"]] * 3


@pytest.mark.parametrize("file", ["best.pt", "last.pt"])
def test_a_full_disk_ends_every_trial_with_one_reason(
    packer: Packer, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Whether it shows at once, or one epoch later in what is written behind."""

    def save(path: Path, state: dict[str, Any]) -> None:
        if path.name == file:
            raise OSError(28, "No space left on device", file)
        save_state(path, state)

    monkeypatch.setattr("kdsearch.runs.trial_folder.save_state", save)
    visitors = [Visitor(packer, number) for number in range(3)]
    kinds = {"best.pt": ["final"], "last.pt": ["trained", "final"]}[file]
    assert [visitor.ended() for visitor in visitors] == [kinds] * 3
    outcome = visitors[0].outcomes[-1]
    assert outcome.result["storage"] == f"{file}: No space left on device"


def test_a_folder_that_cannot_be_read_stops_the_search(
    packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does where a trial trains on its own: nothing is taken for a failed trial."""

    def broken(path: Path) -> dict[str, Any]:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("kdsearch.runs.trial_folder.load_state", broken)
    outcome = packer.enter(trial(0))
    assert isinstance(outcome, Outcome)
    assert outcome.kind == "final"
    assert outcome.result["storage"].endswith("last.pt: Input/output error")
    assert packer.free() == 3


def test_slots_of_dead_trials_come_back(packer: Packer, clock: Clock) -> None:
    """All trials of the packer are killed after an epoch: none of them comes back."""
    entries = [enter(packer, trial(number)) for number in range(3)]
    threads = [threading.Thread(target=train_once, args=(packer, entry)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert packer.free() == 0
    clock.leap()
    assert Visitor(packer, 3).ended() == ["trained"] * EPOCHS


def train_once(packer: Packer, entry: Entry) -> None:
    packer.begin(entry.ticket)
    packer.result(entry.ticket)


def test_a_checkpoint_is_at_most_one_epoch_behind(packer: Packer, inputs: TrialInputs) -> None:
    entry, folder = enter(packer, trial(0)), RunFolder(inputs.run).trial(0)
    for epoch in range(1, EPOCHS + 1):
        train_once(packer, entry)
        assert len(folder.history()) == epoch, "every report has its line"
        checkpoint = folder.checkpoint()
        assert (0 if checkpoint is None else len(checkpoint.history)) == epoch - 1
    assert folder.best_file.exists()


def test_checkpoints_are_written_while_the_next_epoch_is_trained(
    packer: Packer, method: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that waits for the next epoch to begin does not keep it from beginning."""
    began = threading.Event()

    def save(path: Path, state: dict[str, Any]) -> None:
        if path.name == "last.pt":
            assert began.wait(timeout=60)
        save_state(path, state)

    method.on_advance = lambda: len(method.crews) > 1 and began.set()
    monkeypatch.setattr("kdsearch.runs.trial_folder.save_state", save)
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["trained"] * EPOCHS] * 3
