"""The real database, from its records to a leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

from workplace import Workplace

SPACE = """
data: {source: mitbih, train_limit: 512, validation_limit: 500}
teacher: {width: 4, latent: 16, epochs: 3, lr: 1.0e-3}
student: {width: 4, latent: 16, epochs: 3}
space:
  temperature: {loguniform: [0.5, 4]}
  alpha: {loguniform: [1.0e-2, 1]}
  w_adv: {uniform: [0.5, 5]}
  lr: {loguniform: [1.0e-3, 5.0e-3]}
search: {num_samples: 4}
confirm: {top: 1, seeds: 2}
"""


def test_search_on_mitbih(place: Workplace, mitdb: Path, mitdb_cache: Path) -> None:
    place.space.write_text(SPACE)
    place.environment["KDSEARCH_CACHE"] = str(mitdb_cache)
    done = place.search("--data", str(mitdb))
    assert done.returncode == 0, done.stderr
    assert "MIT-BIH" in done.stdout
    assert "simulated" not in done.stdout
    metrics = json.loads((place.run / "best" / "metrics.json").read_text())
    test = metrics["student"]["test"]
    assert (test["n"], test["n_abnormal"]) == (27111, 9768)
    assert test["roc_auc"] > 0.6, "a small student after three epochs is better than chance"
    # --data is remembered: a resume need not say it again.
    assert "nothing to do" in place.search("--resume").stderr
