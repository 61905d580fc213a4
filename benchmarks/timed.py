"""BeatGAN whose workers say when they train; loaded as ``method: timed:TimedBeatGan``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.pack import Pack


class TimedBeatGan(BeatGan):
    """A line ``<process> <beginning> <end> <kind>`` per epoch's training or validation."""

    def student_stack(self, *args: Any, **options: Any) -> Any:
        stack = super().student_stack(*args, **options)
        packed = stack._packed

        def timed_pack() -> Any:
            return _TimedPack(packed())

        stack._packed = timed_pack
        return stack


class _TimedPack:
    def __init__(self, pack: Pack) -> None:
        self._pack = pack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pack, name)

    def train_epoch(self, x: Tensor) -> Any:
        return self._timed("train", self._pack.train_epoch, x)

    def scores(self, x: Tensor, train: Tensor) -> Any:
        return self._timed("validate", self._pack.scores, x, train)

    def _timed(self, kind: str, action: Any, *beats: Tensor) -> Any:
        begun = time.time()
        result = action(*beats)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        with Path(os.environ["KDSEARCH_TIMES"]).open("a") as log:
            log.write(f"{os.getpid()} {begun} {time.time()} {kind}\n")
        return result
