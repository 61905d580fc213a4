"""Outlier detectors with the interface of scikit-learn or PyOD, as teachers."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import Dataset, FloatArray
from kdsearch.errors import ConfigError, DataError
from kdsearch.files.cache import cached_arrays
from kdsearch.teachers.kinds import PARTS, Part

# Part of the cache's key: raise it when a change of this code changes scores.
VERSION = 1
LOCAL_OUTLIER_FACTORS = "negative_outlier_factor_"
OF_TRAINING = "decision_scores_"


def make_detector(name: str, options: dict[str, Any]) -> Any:
    """Return an unfitted detector.

    Args:
        name: ``package.module.Class``.
        options: Arguments of the class.

    Raises:
        ConfigError: It cannot be imported, or has neither interface.
    """
    module, _, attribute = name.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), attribute)
        if not (isinstance(kind, type) and hasattr(kind, "fit")):
            raise TypeError("it is not a class with a method 'fit'")
        detector = kind(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"teacher.detector: cannot use {name!r}: {error}") from None
    if not hasattr(detector, "score_samples") and not hasattr(detector, "decision_function"):
        novelty = " with this option (try options: {novelty: true})"
        raise ConfigError(
            f"teacher.detector: {name!r} does not score new beats: it has neither "
            "'score_samples' (scikit-learn) nor 'decision_function' (PyOD)"
            + (novelty if hasattr(detector, "novelty") else "")
        )
    return detector


def detector_scores(
    name: str, options: dict[str, Any], dataset: Dataset, cache: Path
) -> dict[Part, NDArray[np.float32]]:
    """Compute the scores of all beats by a detector fitted on the training beats.

    Fitted once per data set; higher is more abnormal.

    Raises:
        ConfigError: As `make_detector`.
        DataError: The detector cannot be fitted, or gives a score that is not finite.
    """
    detector = make_detector(name, options)
    identity = [VERSION, name, options, _version(detector), dataset.fingerprint]
    text = json.dumps(identity, sort_keys=True, default=str)
    key = hashlib.sha256(text.encode()).hexdigest()
    arrays = cached_arrays(
        cache / "detectors" / key, lambda: _fit_and_score(detector, name, dataset)
    )
    return {part: np.array(arrays[part]) for part in PARTS}


def _version(detector: Any) -> list[str]:
    """Return the version of a detector's package, and the checksum of its module's text.

    A class of a user's own has no version, and changes while it is written.
    """
    module = sys.modules[type(detector).__module__]
    package = sys.modules[module.__name__.partition(".")[0]]
    file = getattr(module, "__file__", None)
    text = b"" if file is None else Path(file).read_bytes()
    return [str(getattr(package, "__version__", "")), hashlib.sha256(text).hexdigest()]


def _fit_and_score(detector: Any, name: str, dataset: Dataset) -> dict[str, Any]:
    training = dataset.training
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train = _rows(training.train)
            detector.fit(train)
            scores = {
                "train": _own_scores(detector, train),
                "validation": _scores(detector, _rows(training.validation.x)),
                "test": _scores(detector, _rows(dataset.test.x)),
            }
    # A detector can raise anything for beats that it does not support.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"teacher.detector: {name} failed on the beats: {type(error).__name__}: {reason}"
        ) from None
    return scores


def _own_scores(detector: Any, train: FloatArray) -> NDArray[np.float32]:
    """Return scores of the training beats, each left out of its own where possible."""
    if hasattr(detector, LOCAL_OUTLIER_FACTORS):
        return _array(-np.asarray(getattr(detector, LOCAL_OUTLIER_FACTORS)))
    if hasattr(detector, OF_TRAINING):
        return _array(getattr(detector, OF_TRAINING))
    return _scores(detector, train)


def _scores(detector: Any, x: FloatArray) -> NDArray[np.float32]:
    """Return scores, higher is more abnormal: PyOD's direction; scikit-learn's is reversed."""
    if hasattr(detector, "score_samples"):
        return _array(-np.asarray(detector.score_samples(x)))
    from sklearn.base import OutlierMixin  # noqa: PLC0415

    sign = -1 if isinstance(detector, OutlierMixin) else 1
    return _array(sign * np.asarray(detector.decision_function(x)))


def _array(scores: Any) -> NDArray[np.float32]:
    return np.asarray(scores, dtype=np.float32).reshape(-1)


def _rows(x: FloatArray) -> FloatArray:
    """Reshape beats (n, leads, length) to (n, features)."""
    return x.reshape(len(x), -1)
