"""Other scores of a trained BeatGAN: is there a better one than the reconstruction error?

    python -m experiments.scores --data path/to/mitdb

The best students of `experiments.searches` without distillation and taught by nearest
neighbours, trained again; each scored in several ways, with the multiply-adds of a beat.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.searches import space_of
from experiments.table import RESULTS, Table, add_data, dataset_of, read
from kdsearch.beatgan import BeatGan
from kdsearch.beatgan.networks import Discriminator, Generator
from kdsearch.beatgan.scoring import load_discriminator, load_generator, reconstruct
from kdsearch.beatgan.settings import StudentSettings
from kdsearch.config import Config
from kdsearch.costs import operations
from kdsearch.data import Dataset, cache_dir
from kdsearch.data.beats import FloatArray
from kdsearch.method import Compute, State
from kdsearch.metrics import rank
from kdsearch.teacher import TeacherCache

ARMS = ("none", "neighbours")
SEEDS = range(1, 4)
METHOD = BeatGan()
COMPUTE = Compute("cpu", "bf16")
EXACT = Compute("cpu", "fp32")
BATCH = 512

PLAIN = "reconstruction error"
Parts = dict[str, NDArray[np.float64]]


def main() -> None:
    """Train and score what is missing in the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = add_data(parser).parse_args()
    torch.set_num_threads(1)
    table = Table("scores.csv", ("arm", "seed", "score"))
    config = space_of(ARMS[0])
    dataset = dataset_of(
        options, **config.data.model_dump(include={"train_limit", "validation_limit"})
    )
    teacher = TeacherCache(cache_dir()).get(
        METHOD, config.teacher, dataset, COMPUTE, lambda report, epochs: None
    )
    for seed in SEEDS:
        for arm in ARMS:
            if table.has(arm, seed, list(MADE_OF)[-1]):
                continue
            state = _trained(_settings(space_of(arm), arm), seed, dataset, teacher.weights)
            scorer = Scorer.of(state, teacher.weights, dataset.training.train)
            for row in _scored(scorer, dataset):
                table.add({"arm": arm, "seed": seed, **row})


def _settings(config: Config, arm: str) -> StudentSettings:
    """The best that the arm's search found."""
    (row,) = [row for row in read(RESULTS / "searches.csv") if row["arm"] == arm]
    settings = config.student_settings({key: float(row[key]) for key in config.searched()})
    assert isinstance(settings, StudentSettings)
    return settings


def _trained(settings: StudentSettings, seed: int, dataset: Dataset, teacher: State) -> State:
    """Everything of the best epoch by validation AUC, the discriminator included."""
    data = dataset.training
    targets = METHOD.targets(teacher, [settings], data, COMPUTE)
    stack = METHOD.student_stack(
        settings, 1, data=data, teacher=teacher, targets=targets, compute=COMPUTE
    )
    stack.put_in(0, settings, seed=seed)
    best, state = -np.inf, State()
    for _ in range(settings.epochs):
        report = stack.advance()[0]
        if isinstance(report, Exception):
            raise report
        if report.val_auc > best:
            best, state = report.val_auc, stack.save(0)
    return state


@dataclass(frozen=True)
class Scorer:
    """What the scores of one student are calculated from.

    Attributes:
        usual: Mean squared error of the training beats at each sample, shape (leads, length).
    """

    generator: Generator
    discriminator: Discriminator
    teacher: Generator
    usual: Tensor

    @classmethod
    def of(cls, student: State, teacher: State, train: FloatArray) -> Scorer:
        """From a student's whole state, its teacher's weights and the training beats."""
        fake = reconstruct(student, train, EXACT)
        return cls(
            load_generator(student, EXACT),
            load_discriminator(student, EXACT),
            load_generator(teacher, EXACT),
            torch.from_numpy(((train - fake) ** 2).mean(axis=0)),
        )

    @torch.inference_mode()
    def parts(self, x: FloatArray) -> Parts:
        """What scores consist of, each of shape (n,), for beats (n, leads, length)."""
        batches = [self._parts(beats) for beats in torch.split(torch.from_numpy(x), BATCH)]
        return {
            name: torch.cat([batch[name] for batch in batches]).double().numpy()
            for name in batches[0]
        }

    def _parts(self, x: Tensor) -> dict[str, Tensor]:
        fake, features = self.generator(x), self.discriminator.features
        squared = (x - fake).square()
        return {
            "reconstruction": squared.mean(dim=(1, 2)),
            "absolute": (x - fake).abs().mean(dim=(1, 2)),
            "relative": (squared / self.usual).mean(dim=(1, 2)),
            "largest": squared.amax(dim=(1, 2)),
            "features": (features(x) - features(fake)).square().mean(dim=(1, 2)),
            # As in Uninformed Students (Bergmann et al., CVPR 2020).
            "discrepancy": (fake - self.teacher(x)).square().mean(dim=(1, 2)),
        }

    def operations(self, parts: tuple[str, ...], leads: int, length: int) -> int:
        """Multiply-adds for one beat; all parts need the student's reconstruction."""
        needed: list[torch.nn.Module] = [self.generator]
        if "features" in parts:
            needed += [self.discriminator.features] * 2
        if "discrepancy" in parts:
            needed += [self.teacher]
        return sum(operations(network, leads, length) for network in needed)


# Several parts are added as logarithms, standardised by those of the training beats.
MADE_OF: dict[str, tuple[str, ...]] = {
    PLAIN: ("reconstruction",),
    "absolute error": ("absolute",),
    "squared error relative to the usual one of each sample": ("relative",),
    "largest squared error": ("largest",),
    "discriminator's features": ("features",),
    "reconstruction + features": ("reconstruction", "features"),
    "discrepancy to the teacher": ("discrepancy",),
    "reconstruction + discrepancy": ("reconstruction", "discrepancy"),
}


def _scored(scorer: Scorer, dataset: Dataset) -> list[dict[str, object]]:
    """A row per score."""
    beats = {"val": dataset.training.validation, "test": dataset.test}
    normal = scorer.parts(dataset.training.train)
    parts = {name: scorer.parts(found.x) for name, found in beats.items()}
    shape = dataset.test.x.shape[1:]
    rows = []
    for score, of in MADE_OF.items():
        row: dict[str, object] = {"score": score, "operations": scorer.operations(of, *shape)}
        for name, found in beats.items():
            ranking = rank(_joined(of, parts[name], normal), found.abnormal)
            row[f"{name}_auc"] = ranking.roc_auc()
            row[f"{name}_ap"] = ranking.average_precision()
        rows.append(row)
    return rows


def _joined(of: tuple[str, ...], parts: Parts, normal: Parts) -> NDArray[np.float64]:
    logs = [(np.log(parts[part]), np.log(normal[part])) for part in of]
    total = np.zeros(())
    for log, known in logs:
        total = total + (log - known.mean()) / known.std()
    return total


if __name__ == "__main__":
    main()
