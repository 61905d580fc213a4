"""A progress bar on standard error, shown only in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")


def show_progress(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Yield the items and show the progress."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        yield from bar.track(items, total=total, description=label)
