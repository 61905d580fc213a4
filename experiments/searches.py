"""Searches of equal compute: what each distillation target gives once it is tuned.

    python -m experiments.searches --data path/to/mitdb --runs FOLDER

Every search has the same trials, epochs, seeds and teacher; its best is trained again with new
seeds, beside the same student without distillation. An interrupted search goes on where it
was, and what stands in the tables is not searched again.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kdsearch
from experiments.table import Table, add_data
from kdsearch.analysis.run import Run
from kdsearch.config.space_file import Config

SPACE = Path(__file__).parent / "spaces" / "beatgan.yaml"

# What each search has of its own. Where nothing is distilled there is nothing to soften or to
# weigh; reconstructions are not softened either.
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {"student": {"target": "none"}, "space": {"alpha": 0, "temperature": 1}},
    "score": {"student": {"target": "score"}},
    "neighbours": {"student": {"target": "neighbours"}},
    "reconstruction": {"student": {"target": "reconstruction"}, "space": {"temperature": 1}},
    "neighbours+reconstruction": {"student": {"target": "neighbours+reconstruction"}},
}


def main() -> None:
    """Search what is missing in the tables."""
    parser = add_data(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the searches")
    parser.add_argument("--arm", choices=ARMS, action="append", help="all by default")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    searches = Table("searches.csv", ("arm",))
    confirmed = Table("confirmations.csv", ("arm", "role", "seed"))
    for arm in options.arm or ARMS:
        if searches.has(arm):
            continue
        run = _searched(arm, options.data, options.runs)
        for row in _confirmations(run.verdict):
            confirmed.add({"arm": arm, **row})
        # The last, for it says that the search is done.
        searches.add({"arm": arm, **_search_row(run)})


def space_of(arm: str) -> Config:
    """The space that an arm searches."""
    return kdsearch.load_space(SPACE).replace(**ARMS[arm])


def _searched(arm: str, data: str, runs: Path) -> Run:
    name = "".join(c if c.isalnum() else "-" for c in arm)
    there = (runs / name / "search.yaml").exists()
    if not there:
        _share_teacher(runs, name)
    return kdsearch.search(space_of(arm), name=name, runs_dir=runs, data=data, resume=there)


def _share_teacher(runs: Path, name: str) -> None:
    """Networks by the teacher's recipe are the same in all confirmations: train them once."""
    place = Path("confirm") / "teacher"
    if not (runs / name / place).exists() and (done := sorted(runs.glob(f"*/{place}"))):
        shutil.copytree(done[0], runs / name / place)


def _search_row(run: Run) -> dict[str, object]:
    """What the search found, and the harness's own verdict on it."""
    best = run.best
    assert best is not None
    settings = {**run.config["space"], **best.params}
    cost = run.costs[str(best.trial)]
    return {
        "trials": len(run.records),
        "trial": best.trial,
        **{key: settings[key] for key in ("lr", "w_adv", "alpha", "temperature")},
        "search_val_auc": best.value,
        "parameters": cost["parameters"],
        "operations": cost["operations"],
        **_against_control(run.verdict),
        "seconds": float(run.trials()["seconds"].sum()),
    }


def _against_control(verdict: Mapping[str, Any]) -> dict[str, object]:
    """Difference of the test AUC to the same student without distillation, if it has one."""
    control = f"control-of-{verdict['chosen']}"
    found = [d for d in verdict["differences"] if d["against"] == control]
    keys = ("estimate", "low", "high", "judgement")
    return {f"control_{key}": found[0][key] if found else "" for key in keys}


def _confirmations(verdict: Mapping[str, Any]) -> list[dict[str, object]]:
    metrics = ("val_auc", "val_ap", "test_auc", "test_ap", "best_epoch")
    return [
        {"role": found["role"], "seed": int(seed), **{key: result[key] for key in metrics}}
        for found in verdict["configurations"]
        for seed, result in found["seeds"].items()
    ]


if __name__ == "__main__":
    main()
