"""Costs counted by hand, and the front of those worth their cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from search_cases import tiny_dataset
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.analysis.comparison import pareto_front
from kdsearch.evaluation.costs import StudentCosts, operations
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import StudentSettings
from kdsearch.methods.protocol import Compute, Task


def parameters(width: int, latent: int) -> int:
    """Of a generator for beats of 32 samples in one lead, layer by layer."""
    channels = [1, width, 2 * width, 4 * width, 8 * width, 16 * width]
    convolutions = sum(a * b * 4 for a, b in pairwise(channels))
    ends = 16 * width * latent
    norms = 2 * sum(channels[2:])
    return 2 * (convolutions + ends) + norms + 2 * sum(channels[1:])


def test_parameters_by_hand_and_once_per_architecture() -> None:
    method, data = BeatGan(), tiny_dataset().training
    teacher = method.teacher_settings(width=2, latent=4)
    stack = method.teacher_stack(teacher, Task(data, Compute()))
    stack.put_in(0, teacher, seed=0)
    settings = {
        0: StudentSettings(width=2, latent=3, target="none", lr=1e-3),
        1: StudentSettings(width=2, latent=3, target="none", lr=1e-4),
        2: StudentSettings(width=3, latent=3, target="none"),
    }
    cost_of = StudentCosts(method, Task(data, Compute(), stack.weights(0)))
    costs = {number: cost_of(each) for number, each in settings.items()}
    assert costs[0].parameters == parameters(2, 3)
    assert costs[2].parameters == parameters(3, 3)
    assert costs[0] is costs[1]
    assert 0 < costs[0].operations < costs[2].operations
    assert costs[0].microseconds > 0


class Network(torch.nn.Module):
    """Layers whose operations torch has to decompose before it can count them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv1d(2, 4, 4, 2, 1),
            torch.nn.BatchNorm1d(4),
            torch.nn.ConvTranspose1d(4, 2, 4, 2, 1),
        )
        self.attention = torch.nn.MultiheadAttention(2, 1, batch_first=True)
        self.last = torch.nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(x).mT
        return self.last(self.attention(x, x, x)[0]) @ torch.ones(3, 5)


def test_operations_are_those_of_torchs_counter() -> None:
    network = Network().eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 2, 32))
    assert operations(network, leads=2, length=32) == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ({}, []),
        ({0: (10, 0.9)}, [0]),
        ({0: (10, 0.9), 1: (5, 0.8), 2: (7, 0.7)}, [1, 0]),
        ({0: (10, 0.9), 1: (10, 0.95), 2: (20, 0.95)}, [1]),
        ({3: (10, 0.9), 1: (10, 0.9)}, [1]),
    ],
)
def test_pareto_front(points: dict[int, tuple[float, float]], front: list[int]) -> None:
    assert pareto_front(points) == front
