"""How much sooner kdsearch has a student as good as the plain script finds at all.

    python benchmarks/time_to_quality.py --data path/to/mitdb --output curves.json

For each seed, the plain script as a good user writes it (evaluation mode, scikit-learn's AUC,
float32, OptunaSearch, ASHA) and kdsearch search the same space on the same beats with the
same teacher and the same rungs, one after the other; kdsearch as long as the plain script
took, or, with ``--until-reached``, until it has a student as good. kdsearch validates twice
an epoch, with ``search.validations_per_epoch``. Its students are one or more of

- ``published``: the method of the plain script, whose distillation term has no gradient;
- ``score``: taught by the teacher's scores;
- ``relative``: the same, with kdsearch's relative score, as in ``mitbih_cpu``. It weighs the
  errors of the same reconstructions by their usual size, which the plain script does not.

All are judged by their best validation AUC so far on the same beats, over the wall time since
their commands began; the teacher is trained before. ``ratio`` is the wall time of the
plain script's command over the time at which kdsearch had its final best; ``to best`` has the
time at which the plain script itself had it instead. One lucky trial decides: look at every
seed, and at the curves in the output.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from against_plain import HERE, ROOT, environment, prepare_plain, space_file, timed

from kdsearch.files.atomic import write_json
from kdsearch.runs.folder import RunFolder

STUDENTS: dict[str, dict[str, str]] = {
    "published": {"target": "published"},
    "score": {"target": "score"},
    "relative": {"target": "score", "score": "relative"},
}
"""Settings of kdsearch's students beside those of the space."""
# Seconds since the command began, and the best validation AUC at that time.
Curve = list[tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="simulated", help="as of run_search.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=[*STUDENTS])
    parser.add_argument("--trials", type=int, default=12, help="of the plain script")
    parser.add_argument("--epochs", type=int, default=6, help="at most, of a trial")
    parser.add_argument("--grace-period", type=int, default=1)
    parser.add_argument("--reduction-factor", type=float, default=3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--beats", type=int, default=8000, help="training beats")
    parser.add_argument("--teacher-epochs", type=int, default=10, help="as of mitbih_cpu")
    parser.add_argument(
        "--validations-per-epoch", type=int, default=2, help="of kdsearch; the script has one"
    )
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, help="of the plain script")
    parser.add_argument(
        "--until-reached", action="store_true", help="end kdsearch when it is as good"
    )
    parser.add_argument("--output", type=Path, help="JSON with every curve")
    options = parser.parse_args()
    print("| seed | plain best | its s | to best | students | kdsearch best | ", end="")
    print("s to plain's | ratio | to best | beats/s ratio |\n" + "|---" * 10 + "|", flush=True)
    rows = []
    for seed in options.seeds:
        work = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            for row in comparisons(work, seed, options):
                rows.append(row)
                show(row)
                if options.output:
                    write_json(options.output, rows)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    for students in options.students:
        chosen = [row for row in rows if row["students"] == students]
        for name in ("ratio", "ratio_to_best", "beats_ratio"):
            print(f"{students}: median {name} {statistics.median(r[name] for r in chosen):.2f}")


def comparisons(work: Path, seed: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The plain script's search beside each search of kdsearch."""
    commands = {
        students: prepared(work, students, seed, options) for students in options.students
    }
    # Beats and teacher are the same for all of them.
    prepare_plain(work, RunFolder(work / "runs" / f"warm-{options.students[0]}"), [], options)
    plain = plain_search(work, seed, options)
    goal = plain["curve"][-1][1]
    enough = goal if options.until_reached else math.inf
    plain_epochs_a_second = plain["trial_epochs"] / plain["seconds"]
    for students, (run, command) in commands.items():
        budget = ["--time-budget", str(plain["seconds"])]
        curve, epochs = kdsearch_search(run, [*command, *budget], enough)
        # A search that never came there counts as one that came at its end.
        reached = next((at for at, best in curve if best >= goal), plain["seconds"])
        yield {
            "seed": seed,
            "plain": plain,
            "students": students,
            "kdsearch": {"curve": curve, "trial_epochs": epochs},
            "reached": any(best >= goal for _, best in curve),
            "seconds_to_reach": reached,
            "ratio": plain["seconds"] / reached,
            "ratio_to_best": first_time(plain["curve"], goal) / reached,
            "beats_ratio": epochs / curve[-1][0] / plain_epochs_a_second,
        }


def prepared(
    work: Path, students: str, seed: int, options: argparse.Namespace
) -> tuple[RunFolder, list[str]]:
    """Run folder and command of kdsearch's search, with beats and teacher in the cache."""
    space = work / f"{students}.yaml"
    settings = space_file(options)
    settings["student"] |= STUDENTS[students]
    settings["search"] = {
        "num_samples": 1000,
        "sampler": "tpe",
        "seed": seed,
        "validations_per_epoch": options.validations_per_epoch,
    }
    settings["scheduler"] = {
        "name": "asha",
        "grace_period": options.grace_period,
        "reduction_factor": options.reduction_factor,
    }
    space.write_text(yaml.safe_dump(settings))
    runs = work / "runs"
    command = [sys.executable, str(ROOT / "run_search.py"), "--space", str(space)]
    command += ["--runs-dir", str(runs)]
    warm = ["--name", f"warm-{students}", "--num-samples", "1", "--set", "student.epochs=1"]
    timed([*command, *warm])
    return RunFolder(runs / students), command


def plain_search(work: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    script = [sys.executable, str(HERE / "plain_ray.py"), str(work), "--quick"]
    script += ["--seed", str(seed)]
    names = ("trials", "epochs", "grace_period", "reduction_factor")
    for name in (*names, "width", "cpus", "gpus_per_trial"):
        script += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    began, started = time.time(), time.perf_counter()
    done = subprocess.run(
        script, check=True, stdout=subprocess.PIPE, text=True, env=environment()
    )
    seconds = time.perf_counter() - started
    found = json.loads(done.stdout.splitlines()[-1])
    curve: Curve = []
    for clock, auc in found["reports"]:
        curve.append((clock - began, max(auc, curve[-1][1] if curve else 0)))
    return {"seconds": seconds, "trial_epochs": found["trial_epochs"], "curve": curve}


def kdsearch_search(run: RunFolder, command: list[str], enough: float) -> tuple[Curve, float]:
    """The best so far as the run folder shows it until the command's end, and the epochs.

    Args:
        enough: The best validation AUC at which the search is ended.
    """
    curve: Curve = []
    best = 0.0
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        while process.poll() is None:
            time.sleep(0.5)
            curves = [record.curve for record in run.records()] if run.path.exists() else []
            best = max((max(values.values()) for values in curves if values), default=0.0)
            curve.append((time.perf_counter() - started, best))
            if best >= enough:
                process.terminate()
                process.wait()
        # Epochs that were running at the end are counted, and so is their time.
        curve.append((time.perf_counter() - started, best))
    if process.returncode not in (0, 128 + signal.SIGTERM):
        raise subprocess.CalledProcessError(process.returncode, command)
    return curve, sum(record.epochs for record in run.records())


def first_time(curve: Curve, goal: float) -> float:
    return next(at for at, best in curve if best >= goal)


def show(row: dict[str, Any]) -> None:
    plain, goal = row["plain"], row["plain"]["curve"][-1][1]
    print(
        f"| {row['seed']} | {goal:.4f} | {plain['seconds']:.0f} | "
        f"{first_time(plain['curve'], goal):.0f} | {row['students']} | "
        f"{row['kdsearch']['curve'][-1][1]:.4f} | "
        f"{row['seconds_to_reach']:.0f}{'' if row['reached'] else ' (never)'} | "
        f"{row['ratio']:.1f} | {row['ratio_to_best']:.1f} | {row['beats_ratio']:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
