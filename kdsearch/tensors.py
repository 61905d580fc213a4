"""Arrays to tensors, and states to the CPU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def from_numpy(array: NDArray[np.float32], device: str) -> Tensor:
    """A tensor for reading only; on the CPU it shares the array's memory.

    Arrays that processes share (memory maps, Ray's object store) are not writable. Torch
    warns of that; nothing here writes to them, and a copy per process would cost the sharing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array).to(device)


def to_cpu(state: Any) -> Any:
    """The same nested state with every tensor on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    return state
