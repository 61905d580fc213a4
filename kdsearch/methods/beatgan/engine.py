"""Networks, optimisers and mini-batches of K students of one structure."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.methods.beatgan.distillation import distillation_terms
from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    NetworkState,
    build,
    initial_state,
    initialise,
)
from kdsearch.methods.beatgan.optimiser import StackedAdam, new_adam_state
from kdsearch.methods.beatgan.scoring import error_weights, stack_reconstructions, stack_scores
from kdsearch.methods.beatgan.settings import NetworkSettings, StudentSettings
from kdsearch.methods.beatgan.stacked import StackedDiscriminator, StackedGenerator
from kdsearch.methods.beatgan.step import Players, Weights, train_step
from kdsearch.methods.protocol import Compute, Targets

log = logging.getLogger(__name__)

# Published limit: a discriminator with a smaller loss gets new random weights.
COLLAPSED = 5e-6
# Number of steps before a graph is captured, in which libraries allocate their memory.
WARM_UP = 3
# Environment variable for debugging: launches each kernel separately, without a graph.
NO_GRAPH = "KDSEARCH_NO_CUDA_GRAPH"

Parts = dict[str, Any]
"""Values of both networks and of their optimisers, for one student."""


@dataclass(eq=False)
class Student:
    """One network in training, a student or a teacher.

    Attributes:
        settings: Its configuration.
        seed: Seed of its weights and mini-batches.
        epoch: Whole epochs trained so far.
        rng: Generator of its weights, on the CPU, also of replaced discriminators.
        progress: Reconstructions of a few beats, shape (n, leads, length), by epoch.
        step: Mini-batches trained since the last whole epoch.
    """

    settings: NetworkSettings
    seed: int
    epoch: int
    rng: torch.Generator
    progress: dict[int, Tensor] = field(default_factory=dict)
    step: int = 0

    @property
    def alpha(self) -> float:
        """Weight of distillation; 0 for a teacher."""
        return self.settings.alpha if isinstance(self.settings, StudentSettings) else 0.0

    @property
    def temperature(self) -> float:
        """Temperature of the softened scores; has no effect if alpha is 0."""
        return self.settings.temperature if isinstance(self.settings, StudentSettings) else 1.0

    def weight_of(self, target: str) -> float:
        """The weight of one of its targets."""
        assert isinstance(self.settings, StudentSettings)
        return self.settings.weight_of(target)

    @property
    def arrays(self) -> frozenset[str]:
        """The arrays that its targets need; none of a teacher."""
        if isinstance(self.settings, StudentSettings):
            return self.settings.arrays
        return frozenset()

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the distilled targets; empty for a teacher."""
        return self.settings.targets if isinstance(self.settings, StudentSettings) else ()


def new_parts(architecture: Architecture, rng: torch.Generator) -> Parts:
    """Draw a new student: first the generator, then the discriminator."""
    return {
        "generator": initial_state(Generator, architecture, rng),
        "discriminator": initial_state(Discriminator, architecture, rng),
        "generator_adam": new_adam_state(),
        "discriminator_adam": new_adam_state(),
        "redrawn": False,
    }


class Engine:
    """Networks, optimisers and mini-batches of K slots, allocated once.

    Students that enter or leave are copied; nothing is rebuilt. An empty slot is computed too,
    with a learning rate of 0. On a GPU one step is captured as a CUDA
    graph and replayed.

    Args:
        architecture: Of each student.
        slots: K.
        settings: Those that all students share; the others are ignored.
        x: Training beats, shape (n, leads, length), on the device.
        targets: The teacher's answers, one row per training beat.
        compute: Where and how precisely to train.

    Attributes:
        steps: Mini-batches of an epoch.
        rows: Training beats of the next mini-batch, shape (B, K).
        step: Trains all students with that mini-batch.
    """

    def __init__(
        self,
        architecture: Architecture,
        slots: int,
        settings: NetworkSettings,
        x: Tensor,
        targets: Targets,
        compute: Compute,
    ) -> None:
        self._architecture = architecture
        self._score = settings.score
        self._compute = compute
        self._x = x
        self._size = min(settings.batch_size, len(x))
        self.steps = len(x) // self._size
        generator = StackedGenerator(architecture, slots, compute)
        discriminator = StackedDiscriminator(architecture, slots, compute)
        self._players = Players(
            generator,
            discriminator,
            StackedAdam(generator, settings.beta1),
            StackedAdam(discriminator, settings.beta1),
        )
        vectors = torch.zeros(3, slots, device=compute.device)
        distilled = _distilled(settings, targets)
        of_terms = {name: torch.ones(slots, device=compute.device) for name in distilled}
        self._weights = Weights(w_adv=vectors[0], alpha=vectors[1], terms=of_terms)
        self._temperature = vectors[2].fill_(1)
        self._distillation = distillation_terms(distilled, targets, self._temperature)
        # Weights that replace those of a collapsed discriminator, drawn in advance; and whether
        # they were used in this epoch.
        self._fresh = torch.zeros_like(discriminator.values)
        self._redrawn = torch.zeros(slots, dtype=torch.bool, device=compute.device)
        self.rows = torch.zeros(self._size, slots, dtype=torch.long, device=compute.device)
        self._sums: dict[str, Tensor] = {}
        graphed = compute.device == "cuda" and not os.environ.get(NO_GRAPH)
        self.step: Callable[[], None] = GraphedStep(self._step) if graphed else self._step

    def put(self, slot: int, student: Student, parts: Parts) -> None:
        """Copy a student into a slot."""
        players, settings = self._players, student.settings
        players.generator.put(slot, parts["generator"])
        players.discriminator.put(slot, parts["discriminator"])
        for adam, part in self._adams():
            adam.put(slot, parts[part])
            adam.lr[slot] = settings.lr
        self._weights.w_adv[slot] = settings.w_adv
        self._weights.alpha[slot] = student.alpha
        for name, weight in self._weights.terms.items():
            weight[slot] = student.weight_of(name)
        self._temperature[slot] = student.temperature
        self._redrawn[slot] = parts["redrawn"]
        self._draw(slot, student.rng)

    def take(self, slot: int) -> Parts:
        """Return copies of one student's values on the CPU, with published names."""
        adams = {part: adam.take(slot) for adam, part in self._adams()}
        return {**self.take_networks(slot), **adams, "redrawn": bool(self._redrawn[slot])}

    def take_networks(self, slot: int) -> dict[str, NetworkState]:
        """Return what `take` does, without the optimisers."""
        return {
            "generator": self._players.generator.take(slot),
            "discriminator": self._players.discriminator.take(slot),
        }

    def clear(self, slot: int) -> None:
        """Reset a slot to zeros."""
        for network in (self._players.generator, self._players.discriminator):
            network.put(slot, {})
            network.running[slot] = 0
        for adam, _ in self._adams():
            adam.put(slot, new_adam_state())
            adam.lr[slot] = 0
        self._weights.w_adv[slot] = self._weights.alpha[slot] = 0
        self._temperature[slot] = 1
        self._fresh[slot] = 0
        self._redrawn[slot] = False

    def train(self, students: Mapping[int, Student], steps: int) -> dict[int, dict[str, float]]:
        """Train an epoch or a part of it; each student has its own order of beats.

        Args:
            students: By slot; all other slots are empty.
            steps: Number of mini-batches; no student's epoch ends before the last one.

        Returns:
            The mean of every term over the mini-batches, by slot; without terms of distillation
            if alpha is 0.
        """
        orders = self._orders(students, steps)
        for total in self._sums.values():
            total.zero_()
        for rows in orders:
            self.rows.copy_(rows)
            self.step()
        means = {name: (total / len(orders)).tolist() for name, total in self._sums.items()}
        redrawn = self._redrawn.tolist()
        for slot, student in students.items():
            student.step += steps
            if student.step < self.steps:
                continue
            student.epoch, student.step = student.epoch + 1, 0
            if redrawn[slot]:
                self._fresh_state(student.rng)
                self._draw(slot, student.rng)
                self._redrawn[slot] = False
        return {
            slot: {
                name: values[slot]
                for name, values in means.items()
                if not name.startswith("distillation") or student.alpha > 0
            }
            for slot, student in students.items()
        }

    def scores(self, x: Tensor) -> NDArray[np.float32]:
        """Compute anomaly scores of beats (n, leads, length), shape (n, K)."""
        generator = self._players.generator
        weights = error_weights(self._score, generator, self._x)
        return stack_scores(generator, x, error_weights=weights)

    def reconstructions(self, x: Tensor) -> Tensor:
        """Reconstruct beats (n, leads, length); shape (n, K, leads, length), on the CPU."""
        return stack_reconstructions(self._players.generator, x)

    def _step(self) -> None:
        """Train one mini-batch of ``rows``; all buffers keep their addresses."""
        terms = train_step(
            self._players,
            self.rows,
            self._x[self.rows],
            weights=self._weights,
            distillation=self._distillation,
        )
        for name, term in terms.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(term, dtype=torch.float64)
            self._sums[name] += term
        # Only parameters: running statistics and moments are kept, as published.
        collapsed = terms["discriminator"] < COLLAPSED
        self._players.discriminator.replace(collapsed, self._fresh)
        self._redrawn |= collapsed

    def _draw(self, slot: int, rng: torch.Generator) -> None:
        """Draw the replacement of a slot; ``rng`` advances only if it is used."""
        ahead = torch.Generator()
        ahead.set_state(rng.get_state())
        self._fresh[slot] = self._players.discriminator.row(self._fresh_state(ahead))

    def _fresh_state(self, rng: torch.Generator) -> dict[str, Tensor]:
        fresh = build(Discriminator, self._architecture)
        initialise(fresh, rng)
        return {name: value.detach() for name, value in fresh.named_parameters()}

    def _orders(self, students: Mapping[int, Student], steps: int) -> Tensor:
        """Draw row numbers of the next mini-batches, shape (steps, B, K), on the device.

        A student's order depends on its seed and epoch alone.
        """
        n, slots = len(self._x), self.rows.shape[1]
        orders = np.zeros((slots, steps * self._size), dtype=np.int64)
        for slot, student in students.items():
            rng = np.random.default_rng([student.seed, student.epoch + 1])
            start, end = student.step * self._size, (student.step + steps) * self._size
            orders[slot] = rng.permutation(n)[start:end]
        by_batch = torch.from_numpy(orders).to(self._x.device).view(slots, steps, -1)
        return by_batch.permute(1, 2, 0)

    def _adams(self) -> list[tuple[StackedAdam, str]]:
        return [
            (self._players.generator_adam, "generator_adam"),
            (self._players.discriminator_adam, "discriminator_adam"),
        ]


def _distilled(settings: NetworkSettings, targets: Targets) -> tuple[str, ...]:
    """Return the names of the terms to compute; none if targets are missing.

    `BeatGanStack` then refuses students with an alpha above 0.
    """
    if not isinstance(settings, StudentSettings):
        return ()
    return () if settings.arrays - targets.keys() else settings.targets


class GraphedStep:
    """Run a step a few times, then capture it as a CUDA graph, and replay that from then on.

    Launching a step's hundreds of kernels takes longer than computing small stacks. If the
    capture fails, a warning is logged and kernels are launched one by one.

    Args:
        step: Uses tensors with fixed addresses, and never waits for the GPU.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._left = WARM_UP
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Run one step; it is ordered with the GPU's current stream."""
        if self._graph is not None:
            self._graph.replay()
            return
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step()
        current.wait_stream(self._stream)
        self._left -= 1
        if self._left == 0:
            self._capture()

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            # Other threads may copy checkpoints meanwhile.
            with torch.cuda.graph(
                graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._step()
        except RuntimeError as error:
            torch.cuda.synchronize()
            log.warning("no CUDA graph of the training step, which will be slower: %s", error)
        else:
            self._graph = graph
