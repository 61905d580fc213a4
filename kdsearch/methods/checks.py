"""Checks of settings, weights and beats that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
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
