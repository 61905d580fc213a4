"""The cache: made once, memory-mapped, and made anew when damaged."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from kdsearch.errors import ConfigError, DataError
from kdsearch.files.cache import (
    cache_dir,
    cached_arrays,
    sha256_of_arrays,
    sha256_of_files,
    why_unwritable,
)

ARRAYS = {"x": np.arange(600, dtype=np.float32).reshape(10, 60), "names": np.array(["N", "VT"])}


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAYS


def assert_whole(found, kind: type = np.memmap) -> None:
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert isinstance(found[name], kind)
        np.testing.assert_array_equal(found[name], array)


def test_arrays_are_made_once_and_memory_mapped(tmp_path: Path):
    make = Maker()
    for _ in range(3):
        assert_whole(cached_arrays(tmp_path / "deep" / "entry", make))
    assert make.calls == 1


def test_memory_maps_cannot_be_changed(tmp_path: Path):
    found = cached_arrays(tmp_path / "entry", Maker())
    with pytest.raises(ValueError, match="read-only"):
        found["x"][0, 0] = 7


def edit_meta(entry: Path, change) -> None:
    meta = json.loads((entry / "meta.json").read_text())
    change(meta)
    (entry / "meta.json").write_text(json.dumps(meta))


def replace(entry: Path, array: np.ndarray) -> None:
    np.save(entry / "x.npy", array)


DAMAGES = {
    "array truncated": lambda e: (e / "x.npy").write_bytes((e / "x.npy").read_bytes()[:-40]),
    "array empty": lambda e: (e / "x.npy").write_bytes(b""),
    "array gone": lambda e: (e / "names.npy").unlink(),
    "array of another type": lambda e: replace(e, ARRAYS["x"].astype(np.int32)),
    "array of another shape": lambda e: replace(e, ARRAYS["x"].reshape(20, 30)),
    "no array at all": lambda e: (e / "x.npy").write_bytes(b"x" * (e / "x.npy").stat().st_size),
    "meta gone": lambda e: (e / "meta.json").unlink(),
    "meta half written": lambda e: (e / "meta.json").write_text('{"format": 1, "arr'),
    "meta is a list": lambda e: (e / "meta.json").write_text("[1, 2]"),
    "meta of another format": lambda e: edit_meta(e, lambda m: m.update(format=0)),
    "meta without arrays": lambda e: edit_meta(e, lambda m: m.pop("arrays")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage):
    make = Maker()
    entry = tmp_path / "entry"
    cached_arrays(entry, make)
    damage(entry)
    assert_whole(cached_arrays(entry, make))
    assert make.calls == 2
    assert_whole(cached_arrays(entry, make))
    assert make.calls == 2


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path):
    half = tmp_path / "entry.tmpabc"
    half.mkdir()
    (half / "x.npy").write_bytes(b"half")
    assert_whole(cached_arrays(tmp_path / "entry", Maker()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "entry.lock"]


def test_a_failing_maker_leaves_nothing(tmp_path: Path):
    def fail():
        raise DataError("a1.dat: truncated")

    with pytest.raises(DataError, match=r"a1\.dat"):
        cached_arrays(tmp_path / "entry", fail)
    assert not (tmp_path / "entry").exists()


def test_an_array_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError, match="array of references"):
        cached_arrays(tmp_path / "entry", lambda: {"x": np.array([{}])})
    assert [path.name for path in tmp_path.iterdir()] == ["entry.lock"]


def test_ten_at_once_make_it_once(tmp_path: Path):
    make = Maker()
    start = threading.Barrier(10)

    def ask():
        start.wait()
        assert_whole(cached_arrays(tmp_path / "entry", make))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.calls == 1


def test_arrays_are_made_in_memory_where_the_cache_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    make = Maker()
    assert_whole(cached_arrays(tmp_path / "file" / "entry", make), np.ndarray)
    assert make.calls == 1
    assert why_unwritable(tmp_path / "file" / "x").endswith("file/x: Not a directory")
    assert why_unwritable(tmp_path / "new") == ""


def test_another_users_cache_is_read(others_folder: Path, as_another_user):
    cached_arrays(others_folder / "entry", Maker())
    with as_another_user(others_folder):
        make = Maker()
        assert_whole(cached_arrays(others_folder / "entry", make))
        assert make.calls == 0
        assert_whole(cached_arrays(others_folder / "other", make), np.ndarray)
        assert make.calls == 1
    assert not (others_folder / "other").exists()


def test_no_home_folder_is_an_error_of_the_user(monkeypatch: pytest.MonkeyPatch):
    for name in ("KDSEARCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(ConfigError, match="no home folder is known for the cache: set KDSEA"):
        cache_dir()
    monkeypatch.setenv("KDSEARCH_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(ConfigError, match="no home folder is known for '~'; use a full path"):
        cache_dir()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KDSEARCH_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/kdsearch"),
        ({"KDSEARCH_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/x/.cache/kdsearch"),
        ({"KDSEARCH_CACHE": "~/c"}, "/home/x/c"),
    ],
)
def test_cache_dir(monkeypatch: pytest.MonkeyPatch, variables, expected: str):
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("KDSEARCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


def test_hash_of_files_knows_recipe_names_and_contents(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("1")
    hashes = {
        sha256_of_files([one], "recipe"),
        sha256_of_files([one], "another recipe"),
        sha256_of_files([two], "recipe"),
        sha256_of_files([one, two], "recipe"),
    }
    one.write_text("2")
    hashes.add(sha256_of_files([one], "recipe"))
    assert len(hashes) == 5


def test_hash_of_arrays_knows_types_shapes_and_values():
    x = np.arange(6, dtype=np.int32)
    variants = [x, x.reshape(2, 3), x.astype(np.float32), x[::-1], np.array(["a", "b"])]
    assert len({sha256_of_arrays([v], "r") for v in variants}) == len(variants)
