"""Checks of settings, weights and beats that all methods share."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, TypeVar

from pydantic import BaseModel

from kdsearch.data.beats import FloatArray

Settings = TypeVar("Settings", bound=BaseModel)


def expect_settings(settings: BaseModel, kind: type[Settings]) -> Settings:
    """Return the settings; raise a TypeError if they are of another type."""
    if not isinstance(settings, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(settings).__name__}")
    return settings


def check_weights(weights: Mapping[str, Any], *, method: str, version: int) -> None:
    """Raise a ValueError for weights of another method or in another format."""
    found = weights.get("method"), weights.get("format")
    if found != (method, version):
        raise ValueError(
            f"weights of method {method!r} in format {version} expected, "
            f"found method {found[0]!r} in format {found[1]!r}"
        )


def check_shape(x: FloatArray, shape: tuple[int, ...]) -> None:
    """Raise a ValueError for beats of another shape (leads, length) than the weights'."""
    if x.shape[1:] != shape:
        raise ValueError(
            f"the weights were trained on beats of shape {shape}, not {x.shape[1:]}"
        )


def expect_structure(
    settings: BaseModel, of_stack: Settings, per_student: Set[str]
) -> Settings:
    """Return the settings; raise a ValueError if they differ from those of a stack.

    Args:
        settings: Of a network that is to enter the stack.
        of_stack: Of the stack.
        per_student: Names of the settings that may differ.
    """
    kind = type(of_stack)
    if not isinstance(settings, kind):
        raise ValueError(
            f"settings of type {kind.__name__} expected, not {type(settings).__name__}"
        )
    values = settings.model_dump(exclude=set(per_student))
    for name, value in of_stack.model_dump(exclude=set(per_student)).items():
        if values[name] != value:
            raise ValueError(f"{name} is {value} in this stack, not {values[name]}")
    return settings
