"""A run whose every file is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_cases import TEACHER, make_run
from search_cases import report

from kdsearch.files.atomic import write_json
from kdsearch.runs.folder import RunFolder


@pytest.fixture
def whole_run(tmp_path: Path) -> RunFolder:
    """Trials in every state, all of their epochs on disk, and a best student."""
    folder = make_run(tmp_path / "kd", teacher=True)
    test = {"roc_auc": 0.8125, "average_precision": 0.75, "equal_error_rate": 0.25}
    test |= {"confusion": {"threshold": 0.5, "f1": 0.5}, "classes": {}}
    metrics = {"trial": 0, "student": {"test": test}, "teacher": {"test": test}}
    write_json(folder.best / "metrics.json", metrics)
    teacher = {**TEACHER, "history": [vars(report(1)), vars(report(2, 0.9375))]}
    write_json(folder.teacher_file, teacher)
    return folder
