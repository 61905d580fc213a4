"""A search's inputs without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_cases import new_driver, space_file, tiny_dataset
from watched import EPOCHS, Watched

from kdsearch.config.space_file import parse_config
from kdsearch.methods.protocol import Compute, Task
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.workers.trial import TrialInputs


@pytest.fixture
def method() -> Watched:
    return Watched()


@pytest.fixture
def inputs(tmp_path: Path, method: Watched) -> TrialInputs:
    student = {"width": 2, "latent": 3, "batch_size": 8, "epochs": EPOCHS}
    space = space_file(student=student, resources={"checkpoint_interval_s": 0})
    config = replace(parse_config(space, "kd.yaml"), method=method)
    run = RunFolder(tmp_path / "run")
    data = tiny_dataset().training
    scores = np.random.default_rng(0).lognormal(-4, 0.5, len(data.train)).astype(np.float32)
    return TrialInputs(
        config=config,
        run=run.path,
        generation=new_driver(run),
        task=Task(data, Compute("cpu", "fp32"), {}, {"score": scores}),
        threads=1,
    )
