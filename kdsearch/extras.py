"""Optional packages: one line that names the extra of kdsearch that installs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kdsearch.errors import ConfigError


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
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "kdsearch"):
            raise
        raise ConfigError(
            f"{purpose}: {package} is not installed; pip install 'kdsearch[{extra}]'"
        ) from None
