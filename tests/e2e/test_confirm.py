"""The confirmation: killed, resumed, read back, and asked for later."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from workplace import Workplace, kill_all


def packed_by(students: int, space: str) -> str:
    """The space file with a process that trains so many students side by side."""
    space = space.replace("precision: fp32", f"students_per_cpu: {students}")
    return space.replace("max_concurrent: 1", f"max_concurrent: {students}")


def decisions(verdict: dict[str, Any]) -> list[Any]:
    """What a verdict says and by which networks, without their figures."""
    trained = {c["name"]: (c["reason"], [*c["seeds"]]) for c in verdict["configurations"]}
    judged = [(d["of"], d["against"], d["judgement"]) for d in verdict["differences"]]
    return [verdict["chosen"], verdict["adaptive"], trained, judged]


def figures(verdict: dict[str, Any]) -> list[float]:
    """The test AUC of every network of a verdict."""
    configurations = verdict["configurations"]
    return [seed["test_auc"] for c in configurations for seed in c["seeds"].values()]


def check_verdict(place: Workplace, verdict: dict) -> None:  # type: ignore[type-arg]
    chosen = verdict["chosen"]
    assert re.fullmatch(r"trial-\d", chosen)
    names = {c["name"]: c for c in verdict["configurations"]}
    assert set(names) == {"teacher", chosen, f"control-of-{chosen}"}
    for found in names.values():
        assert len({result["test_auc"] for result in found["seeds"].values()}) > 1, (
            "seeds differ"
        )
        assert len(found["seeds"]) == 3
    against = [d["against"] for d in verdict["differences"] if d["of"] == chosen]
    assert against[:2] == [f"control-of-{chosen}", "teacher"]
    assert len(verdict["baselines"]) == 4
    first = verdict["differences"][0]
    a, b = names[chosen]["seeds"], names[f"control-of-{chosen}"]["seeds"]
    mean = sum(a[seed]["test_auc"] - b[seed]["test_auc"] for seed in a) / 3
    assert first["estimate"] == pytest.approx(mean)
    assert first["low"] <= first["estimate"] <= first["high"]
    assert first["judgement"] in ("better", "worse", "not distinguishable")
    assert json.loads((place.run / "best/metrics.json").read_text())["trial"] == int(chosen[-1])
    printed = place.analyze().stdout
    assert f"verdict on {chosen.replace('-', ' ')}" in printed
    assert "The intervals are for other seeds and other patients." in printed
    assert (place.run / "report.html").read_text().count("for other seeds and other patients")
    assert "nearest neighbour" in printed


def test_killed_adaptive_confirmation_goes_on_to_the_same_verdict(place: Workplace) -> None:
    text = place.space.read_text().replace("{top: 0}", "{top: 2, seeds: {max: 4}}")
    place.space.write_text(packed_by(4, text))
    assert place.search("--num-samples", "3").returncode == 0, "a first, whole confirmation"
    lines = (place.path / "epochs.log").read_text().splitlines()
    assert max(int(line.split()[2]) for line in lines) == 4, "two trials and their controls"
    file = place.run / "verdict.json"
    verdict = json.loads(file.read_bytes())
    adaptive = verdict["adaptive"]
    assert adaptive["most"] == 4
    assert 3 <= adaptive["seeds"][verdict["chosen"]] <= 4
    trained = {c["name"]: len(c["seeds"]) for c in verdict["configurations"]}
    assert trained == adaptive["seeds"]
    assert adaptive["ended"] in place.analyze().stdout
    assert adaptive["ended"] in (place.run / "report.html").read_text()
    assert "nothing to do" in place.search("--resume").stderr
    # Once more from the second seed on, and killed on the way.
    for result in place.run.glob("confirm/*/*/result.json"):
        if json.loads(result.read_text())["seed"] % 10:
            result.unlink()
            (result.parent / "metrics.jsonl").unlink()
    file.unlink()
    before = sum(place.epochs().values())
    place.hold(before + 6)
    process = place.start("--num-samples", "3", "--resume")
    place.wait_for_epochs(before + 6)
    kill_all(process)
    place.environment.clear()
    done = place.search("--resume")
    assert done.returncode == 0, done.stderr
    whole = file.read_bytes()
    again = json.loads(whole)
    assert decisions(again) == decisions(verdict)
    # The sizes of the stacks differ, and so does the rounding.
    for before_kill, after in zip(figures(verdict), figures(again), strict=True):
        assert after == pytest.approx(before_kill, abs=0.01)
    file.unlink()
    assert "verdict.json: missing or damaged" in place.search("--resume").stderr
    assert file.read_bytes() == whole, "from the networks that are there"


def test_confirm_later_and_adaptively_after_that(place: Workplace) -> None:
    """The budget may be raised afterwards; what was trained counts."""
    settings = place.run / "search.yaml"
    assert place.search("--num-samples", "2").returncode == 0
    assert not (place.run / "verdict.json").exists()
    change(settings, "  top: 0\n", "  top: 1\n")
    done = place.analyze("--confirm")
    assert done.returncode == 0, done.stderr
    check_verdict(place, json.loads((place.run / "verdict.json").read_text()))
    change(settings, "  seeds: 3\n", "  seeds: {max: 4}\n")
    before = sum(place.epochs().values())
    done = place.analyze("--confirm")
    assert done.returncode == 0, done.stderr
    verdict = json.loads((place.run / "verdict.json").read_text())
    assert verdict["adaptive"]["most"] == 4
    assert set(verdict["adaptive"]["seeds"].values()) <= {3, 4}
    new = sum(count - 3 for count in verdict["adaptive"]["seeds"].values())
    assert sum(place.epochs().values()) - before <= 5 * new


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_network_that_fails_is_a_row_and_not_the_end(place: Workplace) -> None:
    """Two seeds of the student fail always; their neighbours in the stack are trained."""
    text = place.space.read_text().replace("{top: 0}", "{top: 1, seeds: 3}")
    place.space.write_text(packed_by(2, text).replace("retries: 2", "retries: 1"))
    first = 500_000_000 % 1_000_003
    plan = {str(first): ["raise", 1, 99], str(first + 1): ["exit", 1, 99]}
    place.environment["FAULTY_PLAN"] = json.dumps(plan)
    done = place.search("--num-samples", "2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    verdict = json.loads((place.run / "verdict.json").read_text())
    found: dict[str, Any] = {c["role"]: c for c in verdict["configurations"]}
    raised = "RuntimeError: the sensor caught fire"
    exited = "the worker process exited without an error message"
    for role in ("candidate", "control"):
        assert list(found[role]["seeds"]) == ["500000002"]
        assert found[role]["reason"] == raised, "that of its first seed"
    assert len(found["teacher"]["seeds"]) == 3
    results = map(Path.read_text, place.run.glob("confirm/*/*/result.json"))
    reasons = Counter(json.loads(result).get("reason", "") for result in results)
    assert reasons == {raised: 2, exited: 2, "": 5}
    assert "nothing to do" in place.search("--resume").stderr
