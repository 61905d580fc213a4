"""The parts of `gpu.py`, which starts this with its options as JSON."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import against_plain
import numpy as np
import plain
import torch

from kdsearch.data import DataSettings, LabelledBeats, TrainingData, cache_dir, load_dataset
from kdsearch.data.beats import normalise
from kdsearch.files.atomic import write_json
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.engine import NO_GRAPH
from kdsearch.methods.memory import Memory
from kdsearch.methods.protocol import Compute, Method, Stack, State
from kdsearch.metrics.ranking import rank
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.workers.training import Trainer, Training

LENGTH = 320
# Characters of a cell.
WIDEST = 160
METHODS: dict[str, Callable[[], Method]] = {"beatgan": BeatGan, "memory": Memory}


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        network: Settings of a network, by method.
        students: Sizes of stacks.
        steps: Mini-batches in an epoch whose steps are timed.
        copied: Bytes of each of the two tensors that measure the bandwidth.
        product: Rows of the square matrices that measure the rate of products.
        processes: Of the plain script, at once on the device.
        beats: Training beats of the searches and of the epochs between checkpoints.
        epochs: Of each trial of the searches.
    """

    network: dict[str, dict[str, Any]]
    students: tuple[int, ...]
    steps: int
    copied: int
    product: int
    processes: tuple[int, ...]
    beats: int
    epochs: int


FULL = Sizes(
    network={"beatgan": {}, "memory": {}},
    students=(1, 4, 16, 64),
    steps=40,
    copied=2**32,
    product=8192,
    processes=(1, 2, 4, 8, 16),
    beats=8000,
    epochs=3,
)
TINY = Sizes(
    network={
        "beatgan": {"width": 2, "latent": 4, "batch_size": 8},
        "memory": {"width": 8, "depth": 1, "components": 4, "batch_size": 16, "distorted": 1},
    },
    students=(1, 2),
    steps=2,
    copied=2**20,
    product=64,
    processes=(1, 2),
    beats=64,
    epochs=1,
)


def main() -> None:
    options = argparse.Namespace(**json.loads(sys.argv[1]))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    file = Path(options.output) / "gpu.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name, seconds in options.parts.items():
        part = Part(name, found, file, min(time.time() + seconds, options.until))
        try:
            RUN[name](part, options)
            part.put(state="skipped" if "skipped" in found[name] else "done")
        except Exception:  # noqa: BLE001  # it is in the results, and the next part follows
            # An error of CUDA harms whatever follows in this process, so that it ends here.
            part.put(state="failed", error=traceback.format_exc())
            traceback.print_exc()
            sys.exit(1)
        finally:
            part.put(seconds=round(time.time() - found[name]["started"], 1))


def end_with(parent: int) -> None:
    """End this process and those it started when its parent is gone, to free the device."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


class Part:
    """Where a part writes what it finds, and until when it may run."""

    def __init__(self, name: str, found: dict[str, Any], file: Path, until: float) -> None:
        self.until = until
        self._found, self._file = found, file
        self._own = found[name] = {"state": "running", "started": time.time()}
        print(f"\n## {name}\n", flush=True)
        self.put()

    def put(self, **values: Any) -> None:
        """Add values to what was found, on disk at once."""
        self._own.update(values)
        write_json(self._file, self._found)

    def row(self, table: str = "rows", **cells: Any) -> None:
        """Print and add a row of a table; the first one prints the header too."""
        rows = self._own.setdefault(table, [])
        if not rows:
            print("| " + " | ".join(cells) + " |\n|" + "---|" * len(cells))
        print("| " + " | ".join(map(shown, cells.values())) + " |", flush=True)
        rows.append(cells)
        self.put()

    def of(self, name: str) -> dict[str, Any]:
        """What another part found."""
        return self._found.get(name, {})

    def left(self) -> float:
        """Seconds until the part has to end."""
        return self.until - time.time()


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    # The name of a kernel has what it calculates at its end.
    text = str(value)
    return text if len(text) <= WIDEST else f"{text[:30]}...{text[33 - WIDEST :]}"


def sizes(options: argparse.Namespace) -> Sizes:
    return TINY if options.tiny else FULL


# --- environment


def environment(part: Part, options: argparse.Namespace) -> None:
    size, device = sizes(options), options.device
    part.put(
        machine=platform.platform(),
        cpus=os.cpu_count(),
        python=platform.python_version(),
        torch=torch.__version__,
        tf32={
            "products": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
    )
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        query = "--query-gpu=name,driver_version,memory.total,memory.used,clocks.sm"
        answer = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            check=False,
            capture_output=True,
            text=True,
        )
        part.put(
            nvidia_smi=answer.stdout.strip(),
            gpu=properties.name,
            multiprocessors=properties.multi_processor_count,
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
        )
    for key, value in part.of("environment").items():
        print(f"{key}: {value}")
    print()
    source = torch.randn(size.copied // 4, device=device)
    target = torch.empty_like(source)
    seconds = fastest(functools.partial(target.copy_, source), device)
    part.row(what="copy, GB/s read and written", rate=2 * size.copied / seconds / 1e9)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(size.product, size.product, device=device).to(dtype) for _ in "ab")
        seconds = fastest(functools.partial(torch.matmul, a, b), device)
        rate = size.product**3 / seconds / 1e12
        part.row(what=f"product, {name}, T multiply-adds/s", rate=rate)
    one = torch.zeros(8, device=device)

    def launches() -> None:
        for _ in range(1000):
            one.add_(1)

    part.row(what="launches, thousands/s", rate=1 / fastest(launches, device))


def fastest(action: Callable[[], object], device: str, rounds: int = 10) -> float:
    return min(timed(action, device) for _ in range(rounds))


def timed(action: Callable[[], object], device: str) -> float:
    """Seconds until the device has done it."""
    synchronise(device)
    started = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# --- correctness

# Differences from the CPU in float32 that pass, of losses and of validation scores. Adam
# divides by the gradient's size: rounding alone moves a weight whose gradient is all but zero.
# How far rounding leads is shown by students on the CPU whose beats are changed by a millionth.
TOLERANCE = {"fp32": 0.02, "bf16": 0.1}
STACKS = (1, 4)
# Method, form and mini-batches: the distilled scores, through a softmax, magnify rounding. Both
# numbers are of more steps than pass before a stack's step becomes a CUDA graph.
TRAINED = (("beatgan", "", 8), ("beatgan", "distilled", 4), ("memory", "", 8))

# Losses of an epoch by term, and validation scores after it.
Outcome = tuple[dict[str, float], np.ndarray]


def correctness(part: Part, options: argparse.Namespace) -> None:
    """A short epoch in stacks on the device and of each student alone on the CPU."""
    torch.backends.cudnn.allow_tf32 = False
    for name, form, count in TRAINED:
        course = Course.new(name, count, options, **({} if form else UNDISTILLED[name]))
        cpu, alone = Compute("cpu", "fp32"), [[k] for k in range(max(STACKS))]
        reference = [course.trained(one, cpu)[0] for one in alone]
        runs: list[tuple[str, str, list[Outcome]]] = []
        if name == "beatgan":  # students of `memory` start elsewhere with other beats
            nearly = course.of_nearly_the_same_beats()
            changed = [nearly.trained(one, cpu)[0] for one in alone]
            runs.append(("cpu, changed", "fp32", changed))
        for precision in ("fp32", "bf16"):
            compute = Compute(options.device, precision)
            runs += [
                (options.device, precision, course.trained(range(students), compute))
                for students in STACKS
            ]
        for device, precision, found in runs:
            pairs = list(zip(found, reference, strict=False))
            losses, term = max(difference(f[0], r[0]) for f, r in pairs)
            scores = max(relative(f[1], r[1]) for f, r in pairs)
            part.row(
                method=name,
                form=form,
                device=device,
                precision=precision,
                students=len(found),
                losses=losses,
                most_in=term,
                scores=scores,
                agrees=bool(max(losses, scores) <= TOLERANCE[precision]),
            )


def difference(found: dict[str, float], reference: dict[str, float]) -> tuple[float, str]:
    """Of losses as a whole, and the term that differs most."""
    term = max(reference, key=lambda name: abs(found[name] - reference[name]))
    return relative(*(np.array(list(one.values())) for one in (found, reference))), term


def relative(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


# The plain script's term of distillation is a constant.
UNDISTILLED: dict[str, dict[str, Any]] = {"beatgan": {"target": "none"}, "memory": {}}


@dataclass(frozen=True)
class Course:
    """Students of one method on made-up beats, in epochs of a given number of steps."""

    method: Method
    steps: int
    network: dict[str, Any]
    data: TrainingData
    teacher: State
    targets: dict[str, np.ndarray]

    @classmethod
    def new(cls, name: str, steps: int, options: argparse.Namespace, **extra: Any) -> Course:
        method, network = METHODS[name](), sizes(options).network[name] | extra
        student = method.student_settings(**network)
        # A mini-batch of `memory` is half of normal beats.
        per_step = student.batch_size // (2 if name == "memory" else 1)
        data = made_up(per_step * steps)
        shared = network.keys() & method.teacher_settings.model_fields.keys()
        settings = method.teacher_settings(**{key: network[key] for key in shared})
        cpu = Compute("cpu", "fp32")
        stack = method.teacher_stack(settings, data, cpu)
        stack.put_in(0, settings, seed=0)
        if name == "memory":
            stack.advance()
        teacher = stack.weights(0)
        targets = method.targets(teacher, [student], data, cpu)
        return cls(method, steps, network, data, teacher, targets)

    def stack(self, students: Sequence[int], compute: Compute) -> Stack:
        """A full stack of these students."""
        settings = [self.settings(k) for k in students]
        stack = self.method.student_stack(
            settings[0],
            len(settings),
            data=self.data,
            teacher=self.teacher,
            targets=self.targets,
            compute=compute,
        )
        for slot, k in enumerate(students):
            stack.put_in(slot, settings[slot], seed=k)
        return stack

    def settings(self, k: int) -> Any:
        """Each student's are a little different, as in a search."""
        settings = self.method.student_settings(**self.network)
        return settings.model_copy(
            update={"lr": settings.lr * 1.01**k, "alpha": settings.alpha * 0.99**k}
        )

    def trained(self, students: Sequence[int], compute: Compute) -> list[Outcome]:
        """What each student has after its first epoch."""
        stack = self.stack(students, compute)
        reports = stack.advance()
        return [
            (
                reports[slot].losses,
                self.method.score(stack.weights(slot), self.data.validation.x, compute),
            )
            for slot in range(len(students))
        ]

    def of_nearly_the_same_beats(self) -> Course:
        noise = np.random.default_rng(0).standard_normal(self.data.train.shape)
        train = (self.data.train * (1 + 1e-6 * noise)).astype(np.float32)
        return replace(self, data=replace(self.data, train=train))


def made_up(beats: int, validation: int = 128) -> TrainingData:
    """Waves with noise; every fourth validation beat is abnormal and has more of it."""
    rng = np.random.default_rng(0)
    abnormal = np.arange(validation) % 4 == 0
    x = wave(rng, beats, np.full(beats, 0.1))
    val_x = wave(rng, validation, np.where(abnormal, 0.5, 0.1))
    classes = np.where(abnormal, "V", "N")
    return TrainingData(x, LabelledBeats(val_x, abnormal, classes, None))


def wave(rng: np.random.Generator, beats: int, noise: np.ndarray) -> np.ndarray:
    phase = rng.uniform(0, 0.5, (beats, 1, 1))
    x = np.sin(np.linspace(0, 30, LENGTH) + phase)
    return normalise(x + noise[:, None, None] * rng.standard_normal((beats, 1, LENGTH)))


# --- steps


def steps(part: Part, options: argparse.Namespace) -> None:
    """A step's time in an epoch, with all that belongs to it but a full validation."""
    size = sizes(options)
    some = tuple(students for students in size.students if students in (1, 2, 16))
    forms = (
        ("beatgan", "bf16", "", size.students),
        ("memory", "bf16", "", size.students),
        ("beatgan", "bf16", "distilled", some[-1:]),
        ("beatgan", "bf16", "no graph", some),
        ("beatgan", "fp32", "", size.students),
        ("memory", "fp32", "", size.students),
    )
    for name, precision, form, stacks in forms:
        extra = {} if form == "distilled" else UNDISTILLED[name]
        course = Course.new(name, size.steps, options, **extra)
        compute = Compute(options.device, precision)
        for students in stacks:
            if part.left() < 2:
                return part.put(cut_off=f"before {name} {precision} {form} {students}")
            with without_graph() if form == "no graph" else contextlib.nullcontext():
                time_stack(part, course, students, compute, form=form)
    return None


@contextlib.contextmanager
def without_graph() -> Iterator[None]:
    """Have steps launched one kernel at a time, instead of as a CUDA graph."""
    os.environ[NO_GRAPH] = "1"
    try:
        yield
    finally:
        del os.environ[NO_GRAPH]


def time_stack(
    part: Part, course: Course, students: int, compute: Compute, *, form: str
) -> None:
    if compute.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stack = course.stack(range(students), compute)
    first = timed(stack.advance, compute.device)
    times = [timed(stack.advance, compute.device) for _ in epochs_to_time(first)]
    seconds = statistics.median(times) / course.steps
    part.row(
        method=course.method.name,
        precision=compute.precision,
        form=form,
        students=students,
        ms=1e3 * seconds,
        us_per_student=1e6 * seconds / students,
        student_steps_per_s=students / seconds,
        spread=(max(times) - min(times)) / min(times),
        first_epoch_s=first,
        gigabytes=memory_used(compute.device),
    )


def epochs_to_time(first: float) -> Iterator[int]:
    """Two for the slowest, up to seven for the fast ones."""
    return iter(range(2 if first > 3 else 4 if first > 1 else 7))


def memory_used(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


# --- profile


def profile(part: Part, options: argparse.Namespace) -> None:
    """Kernels of a few steps, by time, and how long the device had nothing to do."""
    device = options.device
    students, few = (2, 2) if options.tiny else (16, 8)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    texts = []
    for name in METHODS:
        course = Course.new(name, few, options, **UNDISTILLED[name])
        stack = course.stack(range(students), Compute(device, "bf16"))
        for _ in range(3):
            stack.advance()
        alone = timed(stack.advance, device)
        with torch.profiler.profile(activities=activities) as profiler:
            seconds = timed(stack.advance, device)
        events = profiler.key_averages()
        kernels = [e for e in events if device == "cpu" or on_gpu(e)]
        kernels.sort(key=lambda e: own_time(e, device), reverse=True)
        total = sum(own_time(e, device) for e in kernels) / 1e6
        part.put(
            **{
                name: {
                    "students": students,
                    "steps": few,
                    "seconds": alone,
                    "seconds_profiled": seconds,
                    "kernel_seconds": total,
                    "kernels_per_step": sum(e.count for e in kernels) / few,
                }
            }
        )
        print(
            f"{name}: {students} students, {few} steps and a validation in "
            f"{1e3 * alone:.1f} ms ({1e3 * seconds:.1f} ms profiled), of which kernels "
            f"{1e3 * total:.1f} ms, "
            f"{sum(e.count for e in kernels) / few:.0f} a step\n"
        )
        for event in kernels[:15]:
            part.row(
                table=f"{name}_kernels",
                kernel=event.key,
                calls=event.count,
                ms=own_time(event, device) / 1e3,
                share=own_time(event, device) / 1e6 / total,
            )
        print()
        for order in ("self_cpu_time_total", f"self_{device}_time_total"):
            texts.append(
                f"{name} by {order}\n"
                + events.table(sort_by=order, row_limit=40, max_name_column_width=110)
            )
        (Path(options.output) / "profile.txt").write_text("\n\n".join(texts))


def on_gpu(event: Any) -> bool:
    return event.device_type == torch.autograd.DeviceType.CUDA


def own_time(event: Any, device: str) -> float:
    """Microseconds."""
    return event.self_cpu_time_total if device == "cpu" else event.self_device_time_total


# --- checkpoints


def checkpoints(part: Part, options: argparse.Namespace) -> None:
    """What it costs that a search writes a checkpoint of every student after every epoch."""
    size, device = sizes(options), options.device
    students = 2 if options.tiny else 16
    batch = size.network["beatgan"].get("batch_size", 64)
    course = Course.new("beatgan", size.beats // batch, options, **UNDISTILLED["beatgan"])
    stack = course.stack(range(students), Compute(device, "bf16"))
    stack.advance()
    without = [timed(stack.advance, device) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        trainings = [
            Training(course.settings(k), seed=k, folder=RunFolder(Path(folder)).trial(k))
            for k in range(students)
        ]
        for slot, training in enumerate(trainings):
            stack.take_out(slot)
            training.enter(stack, slot)
        trainer = Trainer(keep_weights=1, behind=True)

        def epoch() -> None:
            errors = trainer.advance(stack, trainings)
            if errors:
                raise next(iter(errors.values()))

        epoch()  # before the first checkpoint
        written = [timed(epoch, device) for _ in range(3)]
        saving = timed(lambda: [stack.save(k) for k in range(students)], device)
        size_of = [file.stat().st_size for file in Path(folder).rglob("last.pt")]
    alone, behind = statistics.median(without), statistics.median(written)
    part.row(
        students=students,
        steps=course.steps,
        epoch_s=alone,
        with_checkpoint_s=behind,
        share=1 - alone / behind,
        save_s=saving,
        mebibytes=sum(size_of) / 2**20,
    )


# --- plain


def plain_script(part: Part, options: argparse.Namespace) -> None:
    """The plain script's training, by the number of processes that share the device."""
    size, device = sizes(options), options.device
    width = size.network["beatgan"].get("width", 32)
    worker = [sys.executable, str(Path(__file__).with_name("plain_worker.py"))]
    seconds = 0.2 if options.tiny else 4.0
    players = plain.new_players(width, 1e-4, device)
    batch = [(torch.from_numpy(made_up(plain.BATCH).train).to(device), None)]

    def step() -> None:
        next(plain.train(players, batch, device))

    step()
    alone = statistics.median(timed(step, device) for _ in range(3 if options.tiny else 50))
    part.put(published_step_ms=1e3 * alone)
    print(f"the published step alone: {1e3 * alone:.2f} ms\n")
    workers = [
        subprocess.Popen(
            [*worker, device, str(width)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(max(size.processes))
    ]
    try:
        for process in workers:
            answer(process)
        for processes in size.processes:
            for process in workers[:processes]:
                assert process.stdin is not None
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
            rates = [float(answer(process)) for process in workers[:processes]]
            part.row(processes=processes, student_steps_per_s=sum(rates))
    finally:
        for process in workers:
            process.kill()
            process.wait()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the plain script ended")
    return line


# --- searches


def searches(part: Part, options: argparse.Namespace) -> None:
    """Whole commands: a search by kdsearch, and fewer of its trials by the plain script."""
    if any(importlib.util.find_spec(name) is None for name in ("ray", "optuna")):
        print("skipped: needs Ray and Optuna (see gpu_wheels.sh)")
        return part.put(skipped="needs Ray and Optuna")
    size, best = sizes(options), options.plain_processes or best_processes(part)
    settings = argparse.Namespace(
        data=options.data,
        trials=2 if options.tiny else options.trials,
        plain_trials=1 if options.tiny else options.plain_trials,
        epochs=size.epochs,
        width=size.network["beatgan"].get("width", 32),
        beats=size.beats,
        cpus=os.cpu_count(),
        gpus_per_trial=0.0 if options.device == "cpu" else 1 / best,
    )
    part.put(epochs=size.epochs, beats=size.beats, plain_processes=best)
    with tempfile.TemporaryDirectory() as work:
        for name, found in against_plain.searches(Path(work), settings):
            part.row(
                script=name,
                trials=len(found["val_auc"]),
                trial_epochs=found["trial_epochs"],
                seconds=found["seconds"],
                trial_epochs_per_hour=3600 * found["trial_epochs"] / found["seconds"],
                mean_val_auc=float(np.mean(found["val_auc"])),
            )
    return None


def best_processes(part: Part) -> int:
    """At which the plain script trained fastest, if that was measured before."""
    rows = part.of("plain").get("rows", [])
    rates = {row["processes"]: row["student_steps_per_s"] for row in rows}
    return max(rates, key=lambda n: rates[n], default=8)


# --- quality

PUBLISHED = {"test_auc": 0.9458, "test_ap": 0.9108}
# Seconds for the scores of the test beats, at the end.
RESERVE_S = 15


def quality(part: Part, options: argparse.Namespace) -> None:
    """BeatGAN as published, several seeds in one stack; validation chooses each one's epoch."""
    size = sizes(options)
    epochs = options.epochs or (2 if options.tiny else 100)
    seeds = 2 if options.tiny else options.seeds
    limits = {"train_limit": 64, "validation_limit": 64} if options.tiny else {}
    data = load_dataset(DataSettings(source=options.data, split="fold", **limits), cache_dir())
    part.put(data=data.description, precision=options.precision, epochs_wanted=epochs)
    print(f"{data.description}\n")
    compute = Compute(options.device, options.precision)
    method, stack = published_stack(data.training, seeds, size, compute)
    best = np.full(seeds, -1.0)
    weights: list[State] = [{}] * seeds
    chosen = [0] * seeds
    slowest = 0.0
    for epoch in range(1, epochs + 1):
        if part.left() < RESERVE_S + 1.5 * slowest:
            break
        started = time.perf_counter()
        reports = stack.advance()
        slowest = max(slowest, time.perf_counter() - started)
        for k, report in reports.items():
            if not isinstance(report, Exception) and report.val_auc > best[k]:
                best[k], chosen[k], weights[k] = report.val_auc, epoch, stack.weights(k)
        part.row(
            table="epochs",
            epoch=epoch,
            seconds=time.perf_counter() - started,
            val_auc=[
                round(getattr(reports.get(k), "val_auc", math.nan), 5) for k in range(seeds)
            ],
        )
    print()
    for k in np.flatnonzero(chosen).tolist():
        ranking = rank(method.score(weights[k], data.test.x, compute), data.test.abnormal)
        part.row(
            table="seeds",
            seed=k,
            best_epoch=chosen[k],
            val_auc=float(best[k]),
            test_auc=ranking.roc_auc(),
            test_ap=ranking.average_precision(),
        )
    for figure in ("test_auc", "test_ap"):
        values = [row[figure] for row in part.of("quality")["seeds"]]
        mean, sd = statistics.mean(values), statistics.stdev(values)
        part.put(**{figure: {"mean": mean, "sd": sd}})
        print(
            f"{figure}: {mean:.4f} ± {sd:.4f} (sd of {seeds} seeds), "
            f"published {PUBLISHED[figure]}"
        )


def published_stack(
    data: TrainingData, seeds: int, size: Sizes, compute: Compute
) -> tuple[Method, Stack]:
    """Students without a teacher's help, which are BeatGANs as published."""
    method, network = BeatGan(), size.network["beatgan"]
    teachers = method.teacher_settings(**network)
    # Its weights are not used, but say of which shape the students are.
    teacher = method.teacher_stack(teachers, data, compute)
    teacher.put_in(0, teachers, seed=0)
    settings = method.student_settings(**network, target="none", alpha=0)
    stack = method.student_stack(
        settings,
        seeds,
        data=data,
        teacher=teacher.weights(0),
        targets={},
        compute=compute,
    )
    for seed in range(seeds):
        stack.put_in(seed, settings, seed=seed)
    return method, stack


RUN = {
    "environment": environment,
    "correctness": correctness,
    "steps": steps,
    "profile": profile,
    "checkpoints": checkpoints,
    "plain": plain_script,
    "searches": searches,
    "quality": quality,
}

if __name__ == "__main__":
    main()
