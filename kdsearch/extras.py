"""Packages that may be missing, or lack what we need of them: one line that says so."""

from __future__ import annotations

import gc
import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from kdsearch.errors import ConfigError


@contextmanager
def uncollected() -> Iterator[None]:
    """Let Python look for no garbage, in any thread.

    For imports, which make hundreds of thousands of objects that stay, and to look through them
    again and again takes a part of their time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Import what an extra installs.

    Args:
        extra: Of kdsearch, as in ``pip install 'kdsearch[extra]'``.
        purpose: What needs it, for the message.

    Raises:
        ConfigError: A package is not installed.
    """
    try:
        with uncollected():
            yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "kdsearch"):
            raise
        raise ConfigError(
            f"{purpose}: {package} is not installed; pip install 'kdsearch[{extra}]'"
        ) from None


def require_private(package: str, version: str, names: Sequence[str]) -> None:
    """Check what we use of a library besides its public interface.

    Args:
        package: As pip knows it.
        version: The one installed.
        names: ``module:attribute``, or ``module:function(parameter)``.

    Raises:
        ConfigError: Some of it is missing in this version.
    """
    missing = [name for name in names if not _exists(name)]
    if missing:
        raise ConfigError(
            f"{package} {version} is not one that kdsearch can work with: {', '.join(missing)} "
            f"missing; install a tested version: pip install -c constraints.txt {package}"
        )


def _exists(name: str) -> bool:
    module, _, attributes = name.partition(":")
    attributes, _, parameter = attributes.rstrip(")").partition("(")
    try:
        found = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError):
        return False
    if not parameter:
        return True
    # Ray takes the parameters of this kind out of **kwargs.
    return parameter in inspect.getsource(inspect.unwrap(cast("Any", found)))
