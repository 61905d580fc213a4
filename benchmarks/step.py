"""Where a mini-batch's time goes, against what the machine can multiply.

    python benchmarks/step.py                        # one thread of this machine's CPU
    python benchmarks/step.py --device cuda --students 1 4 16 64

Measures the rate of a large matrix product in float32 and bfloat16, which is the limit, then
one step of both networks in several forms: as published, and as kdsearch has it, in both
precisions and with what was tried besides. A form's share of the limit is its multiply-adds,
counted by torch, over its time. Each figure is the median of several rounds, in which the forms
take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import plain
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.methods.beatgan.networks import (
    Architecture,
    Discriminator,
    Generator,
    build,
    initialise,
)
from kdsearch.methods.beatgan.optimiser import StackedAdam
from kdsearch.methods.beatgan.step import Players, Weights, train_step
from kdsearch.methods.protocol import Compute

BATCH, LENGTH = 64, 320
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--students", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--profile", action="store_true", help="operations of a step, by time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    limits = {kind: product_rate(kind, options.device) for kind in ("fp32", "bf16")}
    print(f"torch {torch.__version__}, {options.device}, {options.threads} thread(s)")
    for kind, rate in limits.items():
        print(f"matrix product, {kind}: {rate / 1e9:,.0f} G multiply-adds/s")
    print(
        "\n| width | students | step | ms | ms per student | G multiply-adds/s | of the limit |"
    )
    print("|---|---|---|---|---|---|---|")
    for width in options.widths:
        for students in options.students:
            compare(width, students, limits, options)
    if options.profile:
        profile(options)


def compare(
    width: int, students: int, limits: dict[str, float], options: argparse.Namespace
) -> None:
    steps = forms(width, students, options)
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(timed(step, options.device))
    work = multiply_adds(forms(width, students, options)["lean, fp32"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        per_student = median if name.startswith("published") else median / students
        rate = (work / students if name.startswith("published") else work) / median
        limit = limits["bf16" if "bf16" in name else "fp32"]
        print(
            f"| {width} | {students} | {name} | {1e3 * median:.1f} | {1e3 * per_student:.1f} | "
            f"{rate / 1e9:,.0f} | {rate / limit:.0%} |",
            flush=True,
        )


def forms(width: int, students: int, options: argparse.Namespace) -> dict[str, Step]:
    device = options.device
    found: dict[str, Step] = {
        "published, fp32": published(width, device),
        "lean, fp32": lean(width, students, Compute(device, "fp32")),
        "lean, bf16": lean(width, students, Compute(device, "bf16")),
        "lean, bf16, a third optimiser": lean(
            width, students, Compute(device, "bf16"), adam=ForeachAdam
        ),
    }
    if options.compile:
        found["lean, bf16, compiled"] = lean(
            width, students, Compute(device, "bf16"), compiled=True
        )
    return found


def lean(
    width: int,
    students: int,
    compute: Compute,
    *,
    compiled: bool = False,
    adam: Callable[..., Any] = StackedAdam,
) -> Step:
    """The step that kdsearch trains with."""
    torch.manual_seed(0)
    architecture = Architecture(width, 50, 1, LENGTH)
    generator = ready(build(Generator, architecture, students, compute.device))
    discriminator = ready(build(Discriminator, architecture, students, compute.device))
    players = Players(
        generator,
        discriminator,
        adam(generator, [1e-4] * students, 0.5),
        adam(discriminator, [1e-4] * students, 0.5),
    )
    if compiled:
        generator.compile()
        discriminator.features.compile()
    x = beats(compute.device).unsqueeze(1).expand(BATCH, students, 1, LENGTH)
    rows = torch.zeros(BATCH, students, dtype=torch.long, device=compute.device)
    ones = torch.ones(students, device=compute.device)

    def step() -> object:
        return train_step(
            players, rows, x, weights=Weights(ones, ones), distillation={}, compute=compute
        )

    return step


class ForeachAdam:
    """torch.optim.Adam without its fused kernel, for comparison."""

    def __init__(self, network: nn.Module, lr: list[float], beta1: float) -> None:
        self.parameters = list(network.parameters())
        self._adam = torch.optim.Adam(
            self.parameters, lr=lr[0], betas=(beta1, 0.999), foreach=True
        )

    def step(self, gradients: list[torch.Tensor]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()


def published(width: int, device: str) -> Step:
    """The published step: the reconstruction twice, gradients that nobody needs."""
    players = plain.new_players(width, 1e-4, device)
    batch = [(beats(device), None)]
    return lambda: next(plain.train(players, batch, device))


def ready(network: nn.Module) -> Any:
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            value.normal_(0, 0.02)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(1)
    initialise(network.cpu(), torch.Generator().manual_seed(0))
    return network


def beats(device: str) -> torch.Tensor:
    x = torch.sin(torch.linspace(0, 30, LENGTH)) + 0.1 * torch.randn(BATCH, 1, LENGTH)
    return (x / x.abs().amax(2, keepdim=True)).to(device)


def product_rate(kind: str, device: str) -> float:
    """Multiply-adds a second of a square matrix product."""
    n = 1024 if device == "cpu" else 8192
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return n**3 / min(timed(lambda: a @ b, device) for _ in range(10))


def multiply_adds(step: Step) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2


def timed(step: Step, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def profile(options: argparse.Namespace) -> None:
    step = lean(options.widths[-1], options.students[-1], Compute(options.device, "bf16"))
    step()
    with torch.profiler.profile() as profiler:
        for _ in range(3):
            step()
    order = f"self_{options.device}_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=16, max_name_column_width=50))


if __name__ == "__main__":
    main()
