"""Weights as safetensors: everything comes back, and nothing that is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from kdsearch.errors import ConfigError
from kdsearch.files.atomic import DamagedFile
from kdsearch.files.tensors import load_tensors, save_tensors

SHARED = torch.arange(6.0)
STATE = {
    "format": 1,
    "name": "ünï",
    "networks": {"a.weight": SHARED.reshape(2, 3), "b": SHARED[::2], 3: [torch.tensor(2)]},
    "shape": (320, None, True, float("inf"), {}),
    "half": torch.zeros(0, 2, dtype=torch.bfloat16),
    # Its name is that of a tensor inside.
    "networks.b": torch.ones(1),
}


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        assert type(a) is type(b)
        return all(same(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]
    return type(a) is type(b) and a == b


def test_everything_comes_back(tmp_path: Path):
    save_tensors(tmp_path / "m", STATE)
    assert same(load_tensors(tmp_path / "m"), STATE)
    save_tensors(tmp_path / "none", {})
    assert load_tensors(tmp_path / "none") == {}


def test_others_find_the_tensors_by_their_names(tmp_path: Path):
    save_tensors(tmp_path / "m", STATE)
    with safe_open(tmp_path / "m", framework="pt") as file:
        assert {"networks.a.weight", "networks.3.0", "half"} < set(file.keys())
        assert torch.equal(file.get_tensor("networks.a.weight"), SHARED.reshape(2, 3))


def test_any_changed_byte_is_seen(tmp_path: Path):
    path = tmp_path / "m"
    save_tensors(path, {"format": 1, "w": torch.arange(20.0)})
    whole = path.read_bytes()
    names = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    assert set(names) == {"__metadata__", "w"}
    end = 8 + int.from_bytes(whole[:8], "little")
    # Spaces fill the header up, and say nothing.
    said = len(whole[:end].rstrip())
    for at in [*range(0, said, 7), *range(end, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DamagedFile, match="damaged or half-written"):
            load_tensors(path)


def test_what_is_no_weight_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^method: weights .* a\.0 is of type object$"):
        save_tensors(tmp_path / "m", {"a": [object()]})
