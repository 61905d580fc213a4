"""BeatGAN whose workers say when they train; loaded as ``method: timed:TimedBeatGan``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from kdsearch.methods.beatgan import BeatGan


class TimedBeatGan(BeatGan):
    """A line ``<process> <beginning> <end> <kind>`` per epoch's training or validation."""

    def student_stack(self, *args: Any, **options: Any) -> Any:
        stack = super().student_stack(*args, **options)
        engine: Any = stack._engine
        engine.train = _timed("train", engine.train)
        engine.scores = _timed("validate", engine.scores)
        return stack


def _timed(kind: str, action: Any) -> Any:
    def timed(*args: Any) -> Any:
        begun = time.time()
        result = action(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        with Path(os.environ["KDSEARCH_TIMES"]).open("a") as log:
            log.write(f"{os.getpid()} {begun} {time.time()} {kind}\n")
        return result

    return timed
