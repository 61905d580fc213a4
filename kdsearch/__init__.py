"""Hyperparameter search for knowledge-distilled anomaly detectors.

student = kdsearch.load_student("runs/kd")
student.score(beats)    # (n,), raw beats of shape (n, leads, length)
student.flag(beats)     # (n,), whether the score is at least student.threshold
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsearch.student import load_student

__version__ = "0.1.0"
__all__ = ["__version__", "load_student"]


def __getattr__(name: str) -> Any:
    # What is read takes a while to import: not before somebody asks for it.
    if name == "load_student":
        from kdsearch.student import load_student  # noqa: PLC0415

        return load_student
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
