from __future__ import annotations

import platform
import resource

import pytest
import torch

from kdsearch.errors import ConfigError
from kdsearch.methods.device import autocast, resolve_device, resolve_precision, use_threads
from kdsearch.methods.protocol import Compute


@pytest.mark.parametrize(
    ("asked", "gpu", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_device(asked: str, gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert resolve_device(asked) == expected


def test_a_missing_gpu_is_answered_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^device: 'cuda' needs a GPU, but torch .+ 'cpu'$"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")],
)
def test_automatic_precision_on_a_cpu(
    amx: bool, avx512: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for name, supported in zip(names, (amx, avx512), strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda answer=supported: answer, raising=False)
    assert resolve_precision("auto", "cpu") == expected


def test_automatic_precision_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert resolve_precision("auto", "cpu") == "fp32"


@pytest.mark.parametrize("supported", [True, False])
def test_automatic_precision_on_a_gpu(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert resolve_precision("auto", "cuda") == ("bf16" if supported else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_was_asked_for_is_used(precision: str) -> None:
    assert resolve_precision(precision, "cpu") == precision
    with autocast(Compute("cpu", precision)):
        layer = torch.nn.Conv1d(1, 1, 1)
        expected = torch.bfloat16 if precision == "bf16" else torch.float32
        assert layer(torch.ones(1, 1, 4)).dtype == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets options of glibc")
def test_freed_memory_is_used_again():
    """Otherwise each of these tensors of 64 MiB consists of 16,384 new pages."""
    use_threads(torch.get_num_threads())

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # A small neighbour may take the place in between once, but not each time.
    assert min(new_pages() for _ in range(6)) < 1000
