"""The run's own copy of its teacher, by which a resume needs no cache."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from kdsearch.data.beats import Dataset
from kdsearch.errors import RunError
from kdsearch.files import DamagedFile, load_state
from kdsearch.method import EpochReport
from kdsearch.run_folder import RunFolder
from kdsearch.teacher import Teacher

logger = logging.getLogger(__name__)


def read_teacher(folder: RunFolder) -> Teacher | None:
    """The teacher that a run keeps; None where there is none or it is damaged."""
    if not folder.teacher_file.exists():
        return None
    try:
        description = folder.read_json(folder.teacher_file)
        weights = load_state(folder.teacher_weights)
        history = [EpochReport(**report) for report in description["history"]]
        return Teacher(description["fingerprint"], weights, history, found=True)
    except (RunError, DamagedFile, FileNotFoundError, KeyError, TypeError) as error:
        logger.warning("the run's copy of its teacher cannot be used: %s", error)
        return None


def describe_teacher(teacher: Teacher, dataset: Dataset) -> dict[str, Any]:
    """The content of ``teacher.json``."""
    return {
        "fingerprint": teacher.fingerprint,
        "found_in_cache": teacher.found,
        "seconds": teacher.seconds,
        "epochs": len(teacher.history),
        "best_epoch": teacher.best.epoch,
        "val_auc": teacher.best.val_auc,
        "val_ap": teacher.best.val_ap,
        "history": [asdict(report) for report in teacher.history],
        "data": {
            "fingerprint": dataset.fingerprint,
            "description": dataset.description,
            "simulated": dataset.simulated,
        },
    }
