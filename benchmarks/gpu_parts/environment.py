"""What the machine is, and what it can do at best."""

from __future__ import annotations

import argparse
import functools
import os
import platform
import subprocess

import torch

from gpu_parts.part import Part, fastest, sizes


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
