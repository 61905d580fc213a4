"""Where a mini-batch's time goes, against what the machine can multiply.

    python benchmarks/step.py                        # one thread of this machine's CPU
    python benchmarks/step.py --device cuda --students 1 4 16 64

Measures the rate of a large matrix product in float32 and bfloat16, which is the limit, then
one step of both networks: as published, and as kdsearch has it in both precisions, on a GPU
with and without a CUDA graph. A form's share of the limit is its multiply-adds, counted by
torch, over its time. Each figure is the median of several rounds, in which the forms take
turns; on one CPU thread it is the thread's own time, so that other work on the machine counts
little; with several threads it is elapsed time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import plain
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.methods.beatgan.engine import NO_GRAPH, Engine, Student, new_parts
from kdsearch.methods.beatgan.networks import Architecture, Discriminator, Generator, build
from kdsearch.methods.beatgan.settings import StudentSettings
from kdsearch.methods.device import use_threads
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
    parser.add_argument("--steps", type=int, default=10, help="of a round, on a GPU")
    parser.add_argument("--no-graph", action="store_true", help="no CUDA graphs")
    parser.add_argument("--profile", action="store_true", help="operations of a step, by time")
    options = parser.parse_args()
    if options.no_graph:
        os.environ[NO_GRAPH] = "1"
    use_threads(options.threads)
    limits = {kind: product_rate(kind, options) for kind in ("fp32", "bf16")}
    print(f"torch {torch.__version__}, {device_name(options)}")
    for kind, rate in limits.items():
        print(f"matrix product, {kind}: {rate / 1e9:,.0f} G multiply-adds/s")
    print(
        "\n| width | students | step | ms | ms per student | student-steps/s | of the limit | "
        "peak GiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for width in options.widths:
        for students in options.students:
            compare(width, students, limits, options)
    if options.profile:
        profile(options)


def compare(
    width: int, students: int, limits: dict[str, float], options: argparse.Namespace
) -> None:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = forms(width, students, options)
    for step in steps.values():
        # More than a CUDA graph needs to be captured.
        for _ in range(5):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(timed(step, options))
    work = multiply_adds(width)
    for name, seconds in times.items():
        trained = 1 if name.startswith("published") else students
        median = statistics.median(seconds)
        share = work * trained / median / limits["bf16" if "bf16" in name else "fp32"]
        print(
            f"| {width} | {students} | {name} | {1e3 * median:.2f} | "
            f"{1e3 * median / trained:.3f} | {trained / median:,.0f} | {share:.0%} | "
            f"{peak_memory(options)} |",
            flush=True,
        )


def forms(width: int, students: int, options: argparse.Namespace) -> dict[str, Step]:
    return {
        "published, fp32": published(width, options.device),
        "kdsearch, fp32": lean(width, students, Compute(options.device, "fp32")),
        "kdsearch, bf16": lean(width, students, Compute(options.device, "bf16")),
    }


def lean(width: int, students: int, compute: Compute) -> Step:
    """The step that kdsearch trains with, without distillation."""
    x = beats(compute.device)
    settings = StudentSettings.model_validate(
        {"width": width, "batch_size": BATCH, "target": "none", "lr": 1e-4}
    )
    architecture = Architecture(width, settings.latent, 1, LENGTH)
    engine = Engine(architecture, students, settings, x, {}, compute)
    for slot in range(students):
        rng = torch.Generator().manual_seed(slot)
        parts = new_parts(architecture, rng)
        engine.put(slot, Student(settings, slot, 0, rng), parts)
    engine.rows.copy_(torch.arange(BATCH, device=compute.device).unsqueeze(1))
    return engine.step


def published(width: int, device: str) -> Step:
    """The published step: the reconstruction twice, gradients that are not used."""
    players = plain.new_players(width, 1e-4, device)
    batch = [(beats(device), None)]
    return lambda: next(plain.train(players, batch, device))


def beats(device: str) -> torch.Tensor:
    x = torch.sin(torch.linspace(0, 30, LENGTH)) + 0.1 * torch.randn(BATCH, 1, LENGTH)
    return (x / x.abs().amax(2, keepdim=True)).to(device)


def product_rate(kind: str, options: argparse.Namespace) -> float:
    """Multiply-adds a second of a square matrix product."""
    n, device = 1024 if options.device == "cpu" else 8192, options.device
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return n**3 / min(timed(lambda: a @ b, options) for _ in range(10))


def multiply_adds(width: int) -> float:
    """Of one student's step; each is counted by torch in the networks as published."""
    architecture = Architecture(width, 50, 1, LENGTH)
    generator = build(Generator, architecture)
    discriminator = build(Discriminator, architecture)
    x = torch.zeros(BATCH, 1, LENGTH)
    with torch.no_grad():
        for value in [*generator.state_dict().values(), *discriminator.state_dict().values()]:
            value.fill_(1)
    with FlopCounterMode(display=False) as counter:
        fake = generator(x)
        for beats in (x, fake.detach()):
            discriminator(beats).sum().backward()
        with torch.no_grad():
            discriminator.features(x)
        discriminator.requires_grad_(False)
        (discriminator.features(fake).sum() + fake.sum()).backward()
    return counter.get_total_flops() / 2


def timed(step: Step, options: argparse.Namespace) -> float:
    """Seconds of one step."""
    if options.device == "cpu":
        # The times of several threads would be added.
        clock = time.thread_time if options.threads == 1 else time.perf_counter
        started = clock()
        step()
        return clock() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(options.steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / options.steps


def device_name(options: argparse.Namespace) -> str:
    if options.device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {options.threads} thread(s)"


def peak_memory(options: argparse.Namespace) -> str:
    if options.device == "cpu":
        return ""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f}"


def profile(options: argparse.Namespace) -> None:
    step = lean(options.widths[-1], options.students[-1], Compute(options.device, "bf16"))
    for _ in range(5):
        step()
    with torch.profiler.profile() as profiler:
        for _ in range(3):
            step()
        if options.device == "cuda":
            torch.cuda.synchronize()
    order = f"self_{options.device}_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=70))


if __name__ == "__main__":
    main()
