"""The driver's writing of trials: on the disk first, and bounded on the disk."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher
from search_cases import SPACE, report, write_report, write_trial

from kdsearch.config.dimensions import Choice
from kdsearch.config.space_file import SearchSettings
from kdsearch.errors import StorageFailed
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.stop_requests import StopRequests
from kdsearch.runs.study import Study, Suggestion, trials_in_all
from kdsearch.runs.trial_folder import TrialFolder, TrialRecord, TrialState
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.tune import DIED, STOPPED_BY_USER, Pause, StudyScheduler, StudySearcher

PARAMS = {"temperature": 2.0, "w_adv": 1.0, "epochs": 3, "target": "score"}


class Nobody:
    def started(self, suggestion: Suggestion) -> None: ...
    def reported(self, record: TrialRecord, epochs: int) -> None: ...
    def ended(self, number: int, state: TrialState, reason: str) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "kd")


def opened(folder: RunFolder, keep_weights: int = 2) -> Ledger:
    """The ledger of a driver that has just started."""
    records = folder.records()
    study = Study(SPACE, SearchSettings(), records)
    return Ledger(
        study,
        folder,
        Nobody(),
        records=records,
        keep_weights=keep_weights,
        seed_of=lambda number: 100 + number,
    )


def train(ledger: Ledger, number: int, *aucs: float) -> None:
    """Write and report epochs as a worker does; what was written is reported again."""
    trial = ledger.folder.trial(number)
    for epoch, auc in enumerate(aucs, start=1):
        history = trial.history()
        if len(history) < epoch:
            write_report(trial, report(epoch, auc), history, {}, {})
        best = max(aucs[:epoch])
        result = {"epoch": epoch, "epochs": 9, "best_so_far": best, "seconds": 0.25 * epoch}
        ledger.report(number, result)


def files(folder: RunFolder, number: int) -> set[str]:
    return folder.trial_files()[number]


def test_a_trial_is_written_when_it_begins_and_when_it_ends(folder: RunFolder):
    ledger = opened(folder)
    suggestion = ledger.study.ask()
    ledger.start(suggestion)
    began = folder.trial(0).record()
    assert (began.state, began.params, began.seed) == ("running", suggestion.params, 100)
    assert began.began
    train(ledger, 0, 0.5, 0.75, 0.625)
    ledger.finish(0, "completed")
    ended = folder.trial(0).record()
    assert (ended.state, ended.order, ended.reason) == ("completed", 0, "")
    assert ended.curve == {1: 0.5, 2: 0.75, 3: 0.75}
    assert ended.began == began.began < ended.ended
    assert files(folder, 0) == {"trial.json", "metrics.jsonl", "best.pt"}


def test_epochs_that_are_trained_again_and_not_reached_do_not_count(folder: RunFolder):
    """Its checkpoint was lost, and now it is stopped earlier."""
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    train(ledger, 0, 0.5, 0.75, 0.9)
    resumed = opened(folder)
    resumed.start(resumed.study.take(0))
    train(resumed, 0, 0.5)
    resumed.finish(0, "stopped")
    assert folder.trial(0).record().curve == {1: 0.5}


def test_rungs_within_the_first_epoch_are_in_the_curve_and_steps_of_optuna(folder: RunFolder):
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    steps: list[int] = []
    ledger.study.report = lambda _, step, __: steps.append(step)  # type: ignore[method-assign]
    # After the second epoch it is resumed, and reports its history again.
    for epoch in (0.25, 0.75, 1, 2, 0.25, 0.75, 1, 2):
        result = {"epoch": epoch, "epochs": 9, "best_so_far": 0.5 + epoch / 8, "seconds": 0.25}
        ledger.report(0, result)
    assert steps == [1, 2, 3, 4] * 2
    record = ledger._running[0]
    assert record.curve == {0.25: 0.53125, 0.75: 0.59375, 1: 0.625, 2: 0.75}


def test_the_order_of_endings_continues_after_a_resume(folder: RunFolder):
    ledger = opened(folder)
    for _ in range(3):
        ledger.start(ledger.study.ask())
    train(ledger, 2, 0.5)
    ledger.finish(2, "stopped")
    train(ledger, 0, 0.5)
    resumed = opened(folder)
    for number in resumed.study.unfinished():
        resumed.start(resumed.study.take(number))
    train(resumed, 1, 0.5)
    resumed.finish(1, "failed", "boom")
    train(resumed, 0, 0.5, 0.75)
    resumed.finish(0, "completed")
    assert [record.order for record in folder.records()] == [2, 1, 0]


def test_a_trial_that_fails_before_its_first_report_keeps_its_epochs(folder: RunFolder):
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    train(ledger, 0, 0.5, 0.75)
    resumed = opened(folder)
    resumed.start(resumed.study.take(0))
    resumed.finish(0, "failed", "boom")
    assert folder.trial(0).record().curve == {1: 0.5, 2: 0.75}


def test_what_is_left_of_a_damaged_trial_is_removed(folder: RunFolder):
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    train(ledger, 0, 0.5, 0.75)
    (folder.trial(0).path / "trial.json").write_text("{")
    (folder.trial(0).path / "last.pt").write_bytes(b"half")
    resumed = opened(folder)
    resumed.start(resumed.study.take(0))
    assert files(folder, 0) == {"trial.json"}
    assert folder.trial(0).record().state == "running"
    assert folder.trial(0).record().curve == {}


def test_a_new_trial_is_one_write(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    """In a bucket each removal of what is not there would be a request."""
    monkeypatch.setattr(TrialFolder, "clear", unwritable)
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    assert files(folder, 0) == {"trial.json"}


def test_only_the_best_keep_their_weights(folder: RunFolder):
    ledger = opened(folder)
    for auc in (0.5, 0.75, 0.625, 0.25):
        suggestion = ledger.study.ask()
        ledger.start(suggestion)
        train(ledger, suggestion.number, auc)
        ledger.finish(suggestion.number, "completed")
    assert [("best.pt" in files(folder, n)) for n in range(4)] == [False, True, True, False]
    assert not any("last.pt" in files(folder, n) for n in range(4))


def test_a_start_removes_what_a_kill_left_and_nothing_else(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    for number, auc in enumerate((0.5, 0.75, 0.625, 0.25)):
        path = write_trial(folder, TrialRecord(number, "completed", PARAMS, {1: auc})).path
        if number in (1, 2):
            (path / "best.pt").touch()
    left = folder.trial(0).path
    for name in ("last.pt", "best.pt", ".best.pt.0123abcd.tmp"):
        (left / name).touch()
    write_trial(folder, TrialRecord(4, "running", PARAMS))
    (folder.trial(4).path / "last.pt").touch()
    looked_at: list[str] = []
    reduce = TrialFolder.reduce

    def watched(self: TrialFolder, *, keep_weights: bool) -> None:
        looked_at.append(self.path.name)
        reduce(self, keep_weights=keep_weights)

    monkeypatch.setattr(TrialFolder, "reduce", watched)
    opened(folder)
    assert looked_at == ["0"], "a resume of many trials must not look at each"
    assert files(folder, 0) == {"trial.json", "metrics.jsonl"}
    assert "best.pt" in files(folder, 1) & files(folder, 2)
    assert "last.pt" in files(folder, 4)


def test_a_start_removes_the_reason_of_a_try_before_the_kill(folder: RunFolder):
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    folder.trial(0).write_error("ValueError: of an earlier driver")
    searcher = StudySearcher(opened(folder), [Suggestion(0, {})], 1, retries=0)
    searcher.suggest("first")
    searcher.on_trial_complete("first", error=True)
    assert folder.trial(0).record().reason == DIED


def unwritable(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "Input/output error", "trials/0/trial.json")


@pytest.mark.parametrize("method", ["write_record", "reduce", "take_error"])
def test_storage_that_fails_ends_the_search(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, method: str
):
    ledger = opened(folder)
    ledger.start(ledger.study.ask())
    train(ledger, 0, 0.5)
    monkeypatch.setattr(TrialFolder, method, unwritable)
    with pytest.raises(StorageFailed, match=r"trials/0/trial\.json: Input/output error"):
        ledger.finish(0, "completed", ledger.take_error(0))


def test_leftovers_that_cannot_be_removed_end_the_search(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    path = write_trial(folder, TrialRecord(0, "completed", PARAMS, {1: 0.5})).path
    (path / "last.pt").touch()
    monkeypatch.setattr(TrialFolder, "reduce", unwritable)
    with pytest.raises(StorageFailed, match="Input/output error"):
        opened(folder)


# As Tune calls it.


def searcher_of(ledger: Ledger, retries: int = 0) -> StudySearcher:
    return StudySearcher(ledger, [], 1, retries=retries)


def test_a_failed_trial_is_suggested_again_until_its_retries_are_used_up(folder: RunFolder):
    searcher = searcher_of(opened(folder), retries=2)
    config = searcher.suggest("first")
    assert searcher.suggest("other") is None, "the running trial may fail"
    searcher.on_trial_complete("first", error=True)
    # A lost node can reach Tune as two failures of one try.
    searcher.on_trial_complete("first", error=True)
    for trial_id in ("second", "third"):
        assert folder.trial(0).record().state == "running"
        assert searcher.suggest(trial_id) == config
        searcher.on_trial_complete(trial_id, error=True)
    assert folder.trial(0).record().state == "failed"
    assert searcher.suggest("fourth") == Searcher.FINISHED


def test_failed_trials_come_before_new_ones(folder: RunFolder):
    searcher = StudySearcher(opened(folder), [], 3, retries=1)
    numbers = [searcher.suggest(trial_id)["number"] for trial_id in "ab"]
    searcher.on_trial_complete("a", error=True)
    numbers += [searcher.suggest(trial_id)["number"] for trial_id in "cd"]
    assert numbers == [0, 1, 0, 2]


def test_a_space_ends_with_its_last_point_within_the_limits(folder: RunFolder):
    """Each trial has a driver of its own; the folder says at the end that none is left."""
    space = {"width": Choice((8, 16, 32, 64))}
    settings = SearchSettings.model_validate({"constraints": {"parameters": {"max": 20}}})

    def driver() -> StudySearcher:
        study = Study(
            space, settings, folder.records(), cost_of=lambda p: {"parameters": p["width"]}
        )
        ledger = Ledger(
            study, folder, Nobody(), records=folder.records(), keep_weights=2, seed_of=int
        )
        return StudySearcher(ledger, [], 24, retries=0)

    for number in range(2):
        assert trials_in_all(24, 4, folder.records()) > number
        searcher = driver()
        assert searcher.suggest("a")["number"] == number
        train(searcher._ledger, number, 0.5)
        searcher._ledger.finish(number, "completed")
    assert driver().suggest("b") == Searcher.FINISHED
    assert trials_in_all(24, 4, folder.records()) == 2
    assert {record.params["width"] for record in folder.records()} == {8, 16}


def test_an_earlier_trys_reason_is_not_a_later_ones(folder: RunFolder):
    searcher = searcher_of(opened(folder), retries=1)
    searcher.suggest("first")
    folder.trial(0).write_error("ValueError: of the first try")
    searcher.on_trial_complete("first", error=True)
    assert not folder.trial(0).error_file.exists()
    searcher.suggest("second")
    searcher.on_trial_complete("second", error=True)
    assert folder.trial(0).record().reason == DIED


def test_the_last_trys_reason_is_the_trials(folder: RunFolder):
    ledger = opened(folder)
    searcher = searcher_of(ledger)
    searcher.suggest("abc")
    folder.trial(0).write_error("ValueError: boom")
    searcher.on_trial_complete("abc", error=True)
    assert folder.trial(0).record().reason == "ValueError: boom"


def test_a_decision_is_on_the_disk_when_tune_hears_of_it(folder: RunFolder):
    ledger = opened(folder)
    searcher, scheduler = (
        searcher_of(ledger),
        StudyScheduler(ledger, None, StopRequests(folder)),
    )
    trial = SimpleNamespace(config=searcher.suggest("abc"))
    write_report(folder.trial(0), report(1, 0.5), [], {}, {})
    result = {"epoch": 1, "epochs": 1, "best_so_far": 0.5, "seconds": 0.25}
    assert scheduler.on_trial_result(None, trial, result) == "CONTINUE"
    stored = json.loads((folder.trial(0).path / "trial.json").read_text())
    assert (stored["state"], stored["curve"]) == ("completed", [[1, 0.5]])
    assert scheduler.on_trial_result(None, trial, result) == "STOP"


def test_a_trial_that_is_stopped_from_outside_ends_at_its_next_epoch(folder: RunFolder):
    ledger, requests = opened(folder), StopRequests(folder)
    searcher = StudySearcher(ledger, [], 2, retries=0)
    scheduler = StudyScheduler(ledger, None, requests)
    trials = [SimpleNamespace(config=searcher.suggest(name)) for name in "ab"]
    requests.stop_trial(1)
    for number, told in ((0, "CONTINUE"), (1, "STOP")):
        write_report(folder.trial(number), report(1, 0.5), [], {}, {})
        result = {"epoch": 1, "epochs": 3, "best_so_far": 0.5, "seconds": 0.25}
        assert scheduler.on_trial_result(None, trials[number], result) == told
    stopped = folder.trial(1).record()
    assert (stopped.state, stopped.epochs, stopped.reason) == ("stopped", 1, STOPPED_BY_USER)
    assert folder.trial(0).record().state == "running"


def test_a_search_that_is_paused_from_outside_ends(folder: RunFolder):
    requests = StopRequests(folder)
    pause = Pause(None, requests)
    assert not pause.stop_all()
    folder.path.mkdir(exist_ok=True)
    with folder.lock():
        StopRequests(folder).pause_search()
    assert Pause(None, StopRequests(folder)).stop_all()
    requests.forget_pause()
    assert not Pause(None, StopRequests(folder)).stop_all()


def test_the_time_budget_does_not_count_jumps_of_the_clock(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.time", lambda: clock[0] * 1e6)
    budget = Pause(60, StopRequests(folder))
    assert not budget.stop_all()
    clock[0] += 59
    assert not budget.stop_all()
    clock[0] += 1
    assert budget.stop_all()
