"""The values of all networks of a `TorchStack`, as rows of the same tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdsearch.methods.stacked_adamw import StackedAdamW

# Parameters start at multiples of this number of values: 64 bytes, a cache line.
ALIGNED = 16

Tensors = dict[str, Tensor]


class Rows:
    """Values of all networks of a stack: row k of every tensor belongs to the k-th student.

    All parameters form one matrix, which the optimiser updates at once.

    Raises:
        ValueError: A parameter is not float32.
    """

    def __init__(self, network: nn.Module, rows: int, device: str) -> None:
        trained, others = _split(network)
        self._columns: dict[str, tuple[slice, torch.Size]] = {}
        stop = 0
        for name, value in trained.items():
            if value.dtype != torch.float32:
                raise ValueError(f"parameter {name} is {value.dtype}, not torch.float32")
            self._columns[name] = (slice(stop, stop + value.numel()), value.shape)
            stop += math.ceil(value.numel() / ALIGNED) * ALIGNED
        self._values = torch.zeros(rows, stop, device=device)
        self._others = {
            name: torch.zeros(rows, *value.shape, dtype=value.dtype, device=device)
            for name, value in others.items()
        }
        self._padding = torch.zeros(rows, ALIGNED, device=device)
        self.adam = StackedAdamW(self._values)

    def put(self, row: int, network: nn.Module, adam: dict[str, Tensor] | None) -> None:
        """Copy a network and its optimiser's state into a row; None resets the state."""
        trained, others = _split(network)
        with torch.no_grad():
            for name, value in self.one(row)[0].items():
                value.copy_(trained[name])
            for name, value in self._others.items():
                value[row].copy_(others[name])
        self.adam.put(row, adam)

    def take(self, row: int, network: nn.Module) -> Tensors:
        """Return the network's `state_dict` with the values of a row, copied to the CPU."""
        flat = self._values[row].cpu()
        values = {
            name: flat[columns].view(shape) for name, (columns, shape) in self._columns.items()
        } | {name: value[row].cpu() for name, value in self._others.items()}
        names = {id(tensor): name for name, tensor in _all(network).items()}
        return {
            key: values[names[id(tensor)]].clone()
            for key, tensor in network.state_dict(keep_vars=True).items()
        }

    def move(self, source: int, row: int) -> None:
        """Copy one row over another."""
        for tensor in (self._values, *self._others.values()):
            tensor[row].copy_(tensor[source])
        self.adam.move(source, row)

    def first(self, n: int) -> tuple[Tensors, Tensors]:
        """Return trained parameters and everything else of the first n rows."""
        trained = {
            name: self._values[:n, columns].view(n, *shape).requires_grad_()
            for name, (columns, shape) in self._columns.items()
        }
        return trained, {name: value[:n] for name, value in self._others.items()}

    def one(self, row: int) -> tuple[Tensors, Tensors]:
        """Return trained parameters and everything else of one row."""
        trained = {
            name: self._values[row, columns].view(shape).requires_grad_()
            for name, (columns, shape) in self._columns.items()
        }
        return trained, {name: value[row] for name, value in self._others.items()}

    def gradients(self, total: Tensor, trained: Tensors, n: int) -> Tensor:
        """Compute the gradients of a scalar in the optimiser's layout, shape (n, P)."""
        found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
        parts: list[Tensor] = []
        for gradient, value in zip(found, trained.values(), strict=True):
            part = torch.zeros_like(value) if gradient is None else gradient
            parts += [part.reshape(n, -1), self._padding[:n, : -(value.numel() // n) % ALIGNED]]
        return torch.cat(parts, dim=1)


def _all(network: nn.Module) -> Tensors:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _split(network: nn.Module) -> tuple[Tensors, Tensors]:
    """Separate trained parameters from everything else."""
    trained: Tensors = {n: p for n, p in network.named_parameters() if p.requires_grad}
    return trained, {n: value for n, value in _all(network).items() if n not in trained}
