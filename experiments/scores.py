"""Other scores of a trained BeatGAN: is there a better one than the reconstruction error?

    python -m experiments.scores --data path/to/mitdb

The best students of `experiments.searches` without distillation and taught by nearest
neighbours, trained again; each scored in several ways, with the multiply-adds of a beat.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.searches import space_of
from experiments.table import RESULTS, Table, add_data, dataset_of, read
from kdsearch.config.space_file import Config
from kdsearch.data import Dataset, cache_dir
from kdsearch.data.beats import FloatArray
from kdsearch.evaluation.costs import operations
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.losses import beat_errors
from kdsearch.methods.beatgan.networks import Discriminator, Generator
from kdsearch.methods.beatgan.scoring import (
    RIDGE,
    error_weights,
    load_generator,
    load_module,
)
from kdsearch.methods.beatgan.settings import Score, StudentSettings
from kdsearch.methods.protocol import Compute, State, Task
from kdsearch.metrics.ranking import rank
from kdsearch.tuning.teacher import TeacherCache
from kdsearch.tuning.workers.training import judge

ARMS = ("none", "neighbours")
SEEDS = range(1, 4)
METHOD = BeatGan()
COMPUTE = Compute("cpu", "bf16")
EXACT = Compute("cpu", "fp32")
BATCH = 512

PLAIN, DISTANCE = "reconstruction error", "Mahalanobis distance"
RELATIVE = "relative error"
BEATS = "no network"
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
    table.add({"arm": BEATS, "seed": 0, **_without_network(dataset)})
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
    task = Task(dataset.training, COMPUTE, teacher)
    task = replace(task, targets=METHOD.targets([settings], task))
    stack = METHOD.student_stack(settings, 1, task)
    stack.put_in(0, settings, seed=seed)
    best, state = -np.inf, State()
    for _ in range(settings.epochs):
        report = judge(stack.advance()[0], dataset.training.validation)
        if report.val_auc > best:
            best, state = report.val_auc, stack.save(0)
    return state


def _weights(kind: Score, student: State, train: FloatArray) -> Tensor:
    found = error_weights(kind, load_generator(student, EXACT), torch.from_numpy(train))
    assert found is not None
    return found


@dataclass(frozen=True)
class Scorer:
    """What the scores of one student are calculated from.

    Attributes:
        relative: Weights of the errors in a relative score.
        distance: Those in their Mahalanobis distance.
    """

    generator: Generator
    discriminator: Discriminator
    teacher: Generator
    relative: Tensor
    distance: Tensor

    @classmethod
    def of(cls, student: State, teacher: State, train: FloatArray) -> Scorer:
        """From a student's whole state, its teacher's weights and the training beats."""
        return cls(
            load_module(student, Generator),
            load_module(student, Discriminator),
            load_module(teacher, Generator),
            _weights("relative", student, train),
            _weights("mahalanobis", student, train),
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
        errors, pair = x - fake, (x.unsqueeze(1), fake.unsqueeze(1))
        return {
            "reconstruction": beat_errors(*pair).squeeze(1),
            "absolute": errors.abs().mean(dim=(1, 2)),
            "relative": beat_errors(*pair, self.relative).squeeze(1),
            "mahalanobis": beat_errors(*pair, self.distance).squeeze(1),
            "largest": errors.square().amax(dim=(1, 2)),
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
        beside = self.distance.numel() if "mahalanobis" in parts else 0
        return beside + sum(operations(network, leads, length) for network in needed)


# Several parts are added as logarithms, standardised by those of the training beats.
MADE_OF: dict[str, tuple[str, ...]] = {
    PLAIN: ("reconstruction",),
    "absolute error": ("absolute",),
    RELATIVE: ("relative",),
    DISTANCE: ("mahalanobis",),
    "largest squared error": ("largest",),
    "discriminator's features": ("features",),
    "reconstruction + features": ("reconstruction", "features"),
    "discrepancy to the teacher": ("discrepancy",),
    "reconstruction + discrepancy": ("reconstruction", "discrepancy"),
}


def _scored(scorer: Scorer, dataset: Dataset) -> list[dict[str, object]]:
    """A row per score."""
    normal = scorer.parts(dataset.training.train)
    validated, tested = (
        scorer.parts(beats.x) for beats in (dataset.training.validation, dataset.test)
    )
    shape = dataset.test.x.shape[1:]
    return [
        {
            "score": score,
            "operations": scorer.operations(of, *shape),
            **_figures(_joined(of, validated, normal), _joined(of, tested, normal), dataset),
        }
        for score, of in MADE_OF.items()
    ]


def _without_network(dataset: Dataset) -> dict[str, object]:
    """How far a distance comes alone, of beats in place of errors."""
    train = torch.from_numpy(dataset.training.train).flatten(1).double()
    mean = train.mean(dim=0)
    covariance = (train - mean).T @ (train - mean) / len(train)
    precision = torch.linalg.inv(covariance + RIDGE * covariance.diag().diag())

    def distance(x: FloatArray) -> NDArray[Any]:
        far = torch.from_numpy(x).flatten(1).double() - mean
        return np.asarray((far @ precision * far).mean(dim=1))

    validated, tested = (
        distance(beats.x) for beats in (dataset.training.validation, dataset.test)
    )
    return {
        "score": DISTANCE,
        "operations": precision.numel(),
        **_figures(validated, tested, dataset),
    }


def _figures(
    validated: NDArray[Any], tested: NDArray[Any], dataset: Dataset
) -> dict[str, float]:
    on_validation = rank(validated, dataset.training.validation.abnormal)
    on_test = rank(tested, dataset.test.abnormal)
    return {
        "val_auc": on_validation.roc_auc(),
        "val_ap": on_validation.average_precision(),
        "test_auc": on_test.roc_auc(),
        "test_ap": on_test.average_precision(),
    }


def _joined(of: tuple[str, ...], parts: Parts, normal: Parts) -> NDArray[np.float64]:
    logs = [(np.log(parts[part]), np.log(normal[part])) for part in of]
    total = np.zeros(())
    for log, known in logs:
        total = total + (log - known.mean()) / known.std()
    return total


if __name__ == "__main__":
    main()
