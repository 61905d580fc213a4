"""The packer without Ray: who trains with whom, who waits for whom, and who is to blame."""

from __future__ import annotations

import threading

import pytest
import torch
from watched import EPOCHS, PARAMS, Watched, trial

from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.workers.messages import EPOCH, FAILURE, Outcome
from kdsearch.tuning.workers.packer import Packer
from kdsearch.tuning.workers.trial import TrialInputs


class Visitor(threading.Thread):
    """A trial's side of the talk, to its end or until it is told to stop."""

    def __init__(self, packer: Packer, number: int, epochs: int = EPOCHS) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[Outcome] = []
        self.alone: list[bool | None] = []
        self._packer, self._trial, self._epochs = packer, trial(number), epochs
        entry = packer.enter(self._trial)
        assert entry is not None, "no place"
        self.entry = entry
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


@pytest.fixture
def packer(inputs: TrialInputs) -> Packer:
    return Packer(inputs, 3, expected=3, linger_s=0.05, lease_s=2.0, die=lambda: None)


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


def test_a_place_is_filled_at_the_next_epoch(packer: Packer, method: Watched) -> None:
    method.pause = 0.05
    stopped = Visitor(packer, 0, epochs=1)
    others = [Visitor(packer, number) for number in (1, 2)]
    stopped.join(timeout=60)
    late = Visitor(packer, 3)
    assert [visitor.ended() for visitor in (*others, late)] == [["trained"] * EPOCHS] * 3
    assert method.crews == [3, 3, 3, 1]


def test_a_trial_goes_on_from_its_checkpoint(packer: Packer) -> None:
    first = [Visitor(packer, number, epochs=2) for number in range(3)]
    assert [visitor.ended() for visitor in first] == [["trained"] * 2] * 3
    entry = packer.enter(trial(1))
    assert entry is not None
    assert [result[EPOCH] for result in entry.history] == [1, 2]
    assert entry.history == [outcome.result for outcome in first[1].outcomes]
    assert not entry.done


def test_nobody_waits_for_ever_for_a_dead_trial(packer: Packer, method: Watched) -> None:
    visitors = [Visitor(packer, number) for number in range(2)]
    dead = packer.enter(trial(2))
    assert dead is not None
    assert [visitor.ended() for visitor in visitors] == [["trained"] * EPOCHS] * 2
    assert method.crews == [2, 2, 2]
    assert packer.begin(dead.ticket) is None, "its place was taken away"


def test_who_fails_alone_is_to_blame(packer: Packer, method: Watched) -> None:
    method.faults = [RuntimeError("the sensor caught fire")]
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["suspected"]] * 3
    assert packer.free() == 3

    method.faults = [RuntimeError("again")]
    guilty = packer.enter(trial(0), suspect=True)
    assert guilty is not None
    assert packer.begin(guilty.ticket) is True
    assert packer.result(guilty.ticket).kind == "crashed"
    folder = RunFolder(packer._inputs.run).trial(0)
    assert folder.take_error() == "RuntimeError: again"


def test_a_cleared_suspect_joins_the_others(packer: Packer, method: Watched) -> None:
    entries = [packer.enter(trial(number), suspect=number < 2) for number in range(3)]
    alone: list[bool | None] = [None] * 3

    def train(index: int) -> None:
        entry = entries[index]
        assert entry is not None
        alone[index] = packer.begin(entry.ticket)
        packer.result(entry.ticket)
        packer.begin(entry.ticket)
        packer.result(entry.ticket)

    threads = [threading.Thread(target=train, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert alone[:2] == [True, True]
    assert method.crews[:2] == [1, 1]
    assert 3 in method.crews


def test_where_all_do_not_fit_half_of_them_do(packer: Packer, method: Watched) -> None:
    method.faults = [torch.OutOfMemoryError("tried to allocate 64 GiB")]
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["suspected"]] * 3
    assert packer.free() == 1


def test_a_student_that_diverges_leaves_its_neighbours_alone(
    packer: Packer, inputs: TrialInputs
) -> None:
    wild = {**PARAMS, "w_adv": 1e38}
    entry = packer.enter({"number": 7, "params": wild})
    visitors = [Visitor(packer, number) for number in range(2)]
    assert entry is not None
    packer.begin(entry.ticket)
    outcome = packer.result(entry.ticket)
    assert outcome.kind == "lost"
    assert FAILURE in outcome.result
    assert [visitor.ended() for visitor in visitors] == [["trained"] * EPOCHS] * 2


def test_workers_of_a_dead_driver_end(packer: Packer, inputs: TrialInputs) -> None:
    RunFolder(inputs.run).next_generation()
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["superseded"]] * 3


def test_a_full_disk_is_said_once(packer: Packer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device", "last.pt")

    monkeypatch.setattr("kdsearch.runs.folder.save_state", full)
    visitors = [Visitor(packer, number) for number in range(3)]
    assert [visitor.ended() for visitor in visitors] == [["lost"]] * 3
    assert visitors[0].outcomes[0].result["storage"] == "last.pt: No space left on device"
