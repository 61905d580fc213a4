"""Hyperparameter search for knowledge-distilled anomaly detectors.

space = kdsearch.load_space("kd")    # a file, or the name of a shipped space
run = kdsearch.search(space)    # or kdsearch.open_run("runs/kd"), if it was run before
run.leaderboard()               # a DataFrame, a row per trial

student = kdsearch.load_student("runs/kd")
student.score(beats)    # (n,), raw beats of shape (n, leads, length)
student.flag(beats)     # (n,), whether the score is at least student.threshold
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsearch.analysis.run import Run, open_run
    from kdsearch.api import search
    from kdsearch.config.space_file import load_space
    from kdsearch.student.student import load_student

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load_space", "load_student", "open_run", "search"]

# Imported at first use: some take a while.
_MODULES = {
    "Run": "kdsearch.analysis.run",
    "load_space": "kdsearch.config.space_file",
    "load_student": "kdsearch.student.student",
    "open_run": "kdsearch.analysis.run",
    "search": "kdsearch.api",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from kdsearch.extras import needs  # noqa: PLC0415

        with needs("search", f"kdsearch.{name}"):
            return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
