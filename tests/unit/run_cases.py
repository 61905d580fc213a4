"""Run folders as a driver leaves them, for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_cases import space_file, write_trial

from kdsearch.config.space_file import Config, parse_config
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.study import Study
from kdsearch.runs.trial_folder import TrialRecord

CURVES = {
    0: ("completed", [0.5, 0.875, 0.875]),
    1: ("stopped", [0.25]),
    2: ("failed", [0.75]),
    3: ("running", [0.625, 0.625]),
}
TEACHER = {
    "fingerprint": "f" * 64,
    "seconds": 12.5,
    "epochs": 4,
    "best_epoch": 3,
    "val_auc": 0.9375,
    "val_ap": 0.75,
    "history": [],
    "data": {
        "description": "made-up waves",
        "simulated": True,
        "fingerprint": "d" * 64,
        "abnormal_in_validation": 0.125,
    },
}


def make_config(**changes: Any) -> Config:
    return parse_config(space_file(**changes), "kd.yaml")


def make_run(
    path: Path,
    curves: dict = CURVES,
    *,
    teacher: bool = False,
    config: Config | None = None,
    **changes: Any,
):
    """A run as a driver leaves it, its trials ending as ``curves`` tells."""
    config, folder = config or make_config(**changes), RunFolder(path)
    folder.write_config(config.as_dict(), {})
    study = Study(config.space, config.search, [])
    for order, (state, curve) in enumerate(curves.values()):
        suggestion = study.ask()
        record = TrialRecord(
            number=suggestion.number,
            state=state,
            params=suggestion.params,
            curve=dict(enumerate(curve, start=1)),
            reason="boom" if state == "failed" else "",
            order=None if state == "running" else order,
            began=f"2026-11-27T10:0{order}:00+00:00",
            ended="" if state == "running" else f"2026-11-27T11:0{order}:00+00:00",
        )
        write_trial(folder, record)
    if teacher:
        folder.write_teacher({}, TEACHER)
    return folder
