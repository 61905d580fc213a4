"""Choice of device and precision, and tensors from arrays."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from kdsearch.errors import ConfigError
from kdsearch.extras import uncollected
from kdsearch.methods.protocol import Compute

with uncollected():
    # Worker processes of a search import it here first.
    import torch
    from torch import Tensor

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]

VALUES_OF_ADAM = 4
"""Numbers stored per parameter: its value, its gradient and two moments of Adam."""
BATCH_COUNTED = 1024
"""Maximum number of beats per mini-batch that a memory estimate counts. A mini-batch is never
larger than the data, whose size is not known yet."""

# Options of glibc's mallopt: trim threshold, top padding (without it, threads other than the
# first return whole heaps of 64 MiB), and the size from which memory is mapped separately.
KEEP_FREED = {-1: 2**30, -2: 2**26, -3: 2**30}


def resolve_device(device: Literal["auto", "cpu", "cuda", "all"]) -> Device:
    """Return the device to use; ``auto`` and ``all`` select the GPU if there is one.

    Raises:
        ConfigError: ``cuda`` was asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError(
            f"device: 'cuda' needs a GPU, but torch {torch.__version__} sees none here; "
            "use 'auto' or 'cpu'"
        )
    if device in ("auto", "all"):
        return "cuda" if available else "cpu"
    return cast("Device", device)


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], device: Device) -> Precision:
    """Return the precision; ``auto`` is bfloat16 if the hardware multiplies it faster."""
    if precision != "auto":
        return precision
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Private functions, which other torch releases may lack.
        names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        fast = any(getattr(torch.cpu, name, bool)() for name in names)
    return "bf16" if fast else "fp32"


def use_threads(count: int) -> None:
    """Calculate with this many threads on the CPU, and keep freed memory for the next step.

    A step allocates and frees the same large tensors again and again. By default, glibc returns
    them to the system each time, and every page is mapped and zeroed again: 13 % of a step's
    time in float32. Other C libraries are left as they are.
    """
    torch.set_num_threads(count)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for option, value in KEEP_FREED.items():
            mallopt(option, value)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Calculate with this many threads on the CPU, and with as many as before afterwards."""
    before = torch.get_num_threads()
    use_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(compute: Compute) -> torch.autocast:
    """Return a context that computes in bfloat16, if that is the precision.

    Use a new context after each change of weights: it caches their converted copies.
    """
    return torch.autocast(
        compute.device, dtype=torch.bfloat16, enabled=compute.precision == "bf16"
    )


def from_numpy(array: NDArray[np.float32], device: str) -> Tensor:
    """Return a read-only tensor; on the CPU it shares the array's memory.

    Arrays shared between processes (memory maps, Ray's object store) are not writable, of
    which torch warns. Nothing writes to these tensors, and a copy would end the sharing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array).to(device)
