"""The smallest search, and programs in processes of their own, as tests share them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 2**20
SPACE: dict[str, Any] = {
    "data": {
        "source": "simulated",
        "simulated": {"patients": 6, "beats": 900},
        "train_limit": 128,
    },
    "teacher": {"width": 2, "latent": 4, "epochs": 1, "lr": 1e-3},
    "student": {"width": 2, "latent": 4, "epochs": 2},
    "space": {"temperature": 1, "alpha": {"loguniform": [0.01, 1]}, "w_adv": 1, "lr": 1e-3},
    # One trial at a time, since every process takes seconds to import torch.
    "search": {"num_samples": 2, "max_concurrent": 1},
    "scheduler": {"name": "none"},
    "confirm": {"top": 0},
    "resources": {"device": "cpu", "precision": "fp32"},
}


@contextmanager
def started_ray(module: str, cpus: int) -> Iterator[None]:
    """Start Ray in this process, for a test module that Ray's workers cannot import."""
    # Not above: `kdsearch.tuning` sets what Ray reads when it is imported.
    import ray  # noqa: PLC0415

    ray.cloudpickle.register_pickle_by_value(sys.modules[module])
    with _short_folder() as temporary:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            object_store_memory=80 * MIB,
            _temp_dir=temporary,
        )
        yield
        ray.shutdown()


def run_python(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder to a successful end; its temporary files are removed."""
    with _short_folder() as temporary:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "TMPDIR": temporary, **environment},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """Ray's sockets need a short path, which pytest's own folders do not have."""
    return tempfile.TemporaryDirectory(prefix="k", dir="/tmp", ignore_cleanup_errors=True)
