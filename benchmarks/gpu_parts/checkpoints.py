"""What the checkpoints of a search cost."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from gpu_parts.course import UNDISTILLED, Course
from gpu_parts.part import Part, sizes, timed
from kdsearch.config.space_file import ResourceSettings
from kdsearch.methods.protocol import Compute
from kdsearch.runs.folder import RunFolder
from kdsearch.tuning.workers.training import Trainer, Training


def checkpoints(part: Part, options: argparse.Namespace) -> None:
    """What checkpoints of every student cost: after every epoch, and as often as a search's.

    The latter is calculated: a measurement would take minutes.
    """
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
        trainer = Trainer(course.task.data.validation, 1, behind=True)

        def epoch() -> None:
            errors = trainer.advance(stack, trainings)
            if errors:
                raise next(iter(errors.values()))

        epoch()  # before the first checkpoint
        written = [timed(epoch, device) for _ in range(3)]
        saving = timed(lambda: [stack.save(k) for k in range(students)], device)
        size_of = [file.stat().st_size for file in Path(folder).rglob("last.pt")]
    alone, behind = statistics.median(without), statistics.median(written)
    interval = max(alone, ResourceSettings().checkpoint_interval_s)
    part.row(
        students=students,
        steps=course.steps,
        epoch_s=alone,
        with_checkpoint_s=behind,
        share=1 - alone / behind,
        share_of_search=(behind - alone) / (behind - alone + interval),
        save_s=saving,
        mebibytes=sum(size_of) / 2**20,
    )
