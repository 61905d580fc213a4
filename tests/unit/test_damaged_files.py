"""Damaged files, by the hundred: whatever is wrong with one is said in one line.

The damage is random but seeded: flipped bits, bytes that are cut off, left out or put in.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from wfdb_cases import write_record

from kdsearch.data.arrays import load_folder, load_npz
from kdsearch.data.recordings import cut_record
from kdsearch.data.wfdb_files import check_files, read_header
from kdsearch.errors import DataError, RunError, UserError
from kdsearch.runs.folder import RunFolder

RNG = np.random.default_rng(7)
X = RNG.standard_normal((8, 1, 16)).astype(np.float32)
Y = np.arange(8) % 2


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The same bytes with one to three faults of random kinds."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, len(data))))
        match rng.integers(0, 5):
            case 0 | 1:
                data[at : at + 1] = bytes([data[at] ^ (1 << int(rng.integers(0, 8)))])
            case 2:
                del data[at:]
            case 3:
                del data[at : at + int(rng.integers(1, 20))]
            case _:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
        if not data:
            break
    return bytes(data)


def try_damage(
    path: Path, read: Callable[[], object], error: type[UserError], cases: int, seed: int
) -> int:
    """Read a file with damage of many kinds; the number of cases that were refused."""
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    refusals = []
    for _ in range(cases):
        path.write_bytes(damaged(content, rng))
        try:
            read()
        except error as refusal:
            refusals.append(str(refusal))
    assert not [line for line in refusals if "\n" in line or str(path.parent) not in line]
    path.write_bytes(content)
    read()
    return len(refusals)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_beats_in_an_npz(tmp_path: Path, save: Callable[..., None]):
    path = tmp_path / "b.npz"
    save(path, x=X, y=Y, record=Y)
    assert try_damage(path, lambda: load_npz(path, 1), DataError, 100, seed=0) > 50


def test_beats_in_a_folder(tmp_path: Path):
    for name in ("N", "V"):
        np.save(tmp_path / f"{name}_samples.npy", X)
    path = tmp_path / "V_samples.npy"
    assert try_damage(path, lambda: load_folder(tmp_path, 1), DataError, 60, seed=1) > 20


def read(path: Path) -> None:
    header = read_header(path)
    check_files(header, "atr")
    cut_record(header, len(header.leads), rule="none")


@pytest.mark.parametrize(("end", "cases"), [("hea", 60), ("atr", 40), ("dat", 20)])
def test_records(tmp_path: Path, end: str, cases: int):
    path = write_record(tmp_path, "a1")
    refused = try_damage(
        path.with_name(f"a1.{end}"), lambda: read(path), DataError, cases, seed=2
    )
    assert refused > cases // 10


def test_a_header_of_numbers_that_cannot_be(tmp_path: Path):
    path = write_record(tmp_path, "a1")
    file = path.with_name("a1.hea")
    good = file.read_text()
    for old, numbers in {
        " 360 ": (0, -1, "1e-300", "1e300", "nan", "inf"),
        " 7200\n": (0, -1, 10**11, 10**30),
        "a1 2 ": (0, -1, 3, 10**9),
        "dat 16 ": ("16x0", "16x1000000", "99", "212", "524", "16:1000", "16+99999999"),
    }.items():
        for number in numbers:
            head = {"a1 2 ": f"a1 {number} ", "dat 16 ": f"dat {number} "}
            new = head.get(old, old.replace(old.strip(), str(number)))
            file.write_text(good.replace(old, new))
            assert file.read_text() != good
            # Some of them can be read all the same: a wrong format is no fault to be seen.
            with suppress(DataError):
                read(path)


def test_what_a_run_wrote_itself(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    scores = {"validation": X[0, 0], "test": X[1, 0]}
    run.write_evaluation(scores)
    trial = run.confirmation("trial-0", 1)
    trial.write_scores(scores)
    for path, again in (
        (tmp_path / "run" / "evaluation.npz", lambda: run.read_evaluation(dict)),
        (tmp_path / "run" / "confirm" / "trial-0" / "1" / "scores.npz", trial.scores),
    ):
        assert try_damage(path, again, RunError, 90, seed=3) > 60


def test_a_shape_beyond_all_memory(tmp_path: Path):
    path = tmp_path / "b.npz"
    np.savez(path, x=X, y=Y)
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content.getvalue())
    with pytest.raises(DataError, match=r"b\.npz: not a readable \.npz file"):
        load_npz(path, 1)
