"""``kdsearch stop``: a trial is stopped and a search paused through files in the run folder."""

from __future__ import annotations

from workplace import Workplace

from kdsearch.cli.main import main
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.tune import STOPPED_BY_USER


def test_a_trial_is_stopped_and_the_search_paused(place: Workplace) -> None:
    # Requests are looked for at a report, but not again so soon after the last look.
    place.environment["FAULTY_PAUSE_S"] = "0.3"
    flags = ("--num-samples", "3", "--set", "scheduler.name=none", "--set", "student.epochs=12")
    process = place.start(*flags)
    place.wait_for_running(epochs=1)
    folder = RunFolder(place.run)
    number = next(r.number for r in folder.records() if r.curve and not r.finished)
    assert main(["stop", str(place.run), str(number)]) == 0
    place.wait_for(lambda: folder.trial(number).record().finished)
    assert main(["stop", str(place.run)]) == 0
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "paused by 'kdsearch stop'" in said
    assert "trials are left; rerun with --resume" in said
    before = {row["trial"]: row for row in place.trials()}
    stopped = before[number]
    assert (stopped["state"], stopped["reason"]) == ("stopped", STOPPED_BY_USER)
    assert stopped["epochs"] < 12
    place.environment.clear()
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    after = {row["trial"]: row for row in place.trials()}
    assert {**after[number], "rank": 0} == {**stopped, "rank": 0}
    assert {row["state"] for n, row in after.items() if n != number} == {"completed"}
    assert len(after) == 3
    assert main(["stop", str(place.run)]) == 2
