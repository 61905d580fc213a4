"""Tables that grow row by row, so that an interrupted experiment goes on where it was."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.data import Dataset, DataSettings, cache_dir, load_dataset

RESULTS = Path(__file__).parent / "results"


class Table:
    """A CSV file of results whose rows are named by their first columns."""

    def __init__(self, name: str, keys: tuple[str, ...], folder: Path = RESULTS) -> None:
        """Read what is there already; nothing is created before the first row."""
        self._path = folder / name
        self._keys = keys
        self.rows = read(self._path) if self._path.exists() else []

    def has(self, *values: object) -> bool:
        """Is there a row of this name?"""
        wanted = [str(value) for value in values]
        return any([row[key] for key in self._keys] == wanted for row in self.rows)

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row unless it is there, and say so."""
        if self.has(*(row[key] for key in self._keys)):
            return
        text = {name: _text(value) for name, value in row.items()}
        self._path.parent.mkdir(exist_ok=True)
        new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(text), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(text)
        self.rows.append(text)
        print(", ".join(f"{name} {value}" for name, value in text.items()), flush=True)


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table, all values as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _text(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def add_data(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The one option that all experiments have."""
    parser.add_argument("--data", default="mitbih", help="a folder of WFDB records")
    return parser


def dataset_of(options: argparse.Namespace, **settings: Any) -> Dataset:
    """MIT-BIH, by default fold 0 of the published split, one lead."""
    chosen = {"source": options.data, "split": "fold", **settings}
    return load_dataset(DataSettings.model_validate(chosen), cache_dir())
