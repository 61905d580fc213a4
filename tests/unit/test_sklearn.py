"""The detector as scikit-learn and PyOD take it."""

from __future__ import annotations

import numpy as np
import pytest
from pyod.utils.data import evaluate_print
from pyod.utils.utility import get_label_n, precision_n_scores
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from kdsearch.sklearn import DistilledDetector

SMALL = {"width": 16, "depth": 1, "components": 8, "epochs": 2, "lr": 0.01}


def waves(n: int, seed: int, abnormal: int = 0) -> np.ndarray:
    """Sines of any phase; the last ones have another frequency."""
    rng = np.random.default_rng(seed)
    rates = np.where(np.arange(n) < n - abnormal, 2, 5)[:, None]
    time = np.linspace(0, 2 * np.pi, 48)
    noise = 0.1 * rng.normal(size=(n, 48))
    return np.sin(rates * time + rng.uniform(0, 6, (n, 1))) + noise


# These fit 5 to 10 samples, the last one in scikit-learn 1.6 alone.
TOO_FEW = dict.fromkeys(
    (
        "check_estimators_nan_inf",
        "check_fit2d_1feature",
        "check_n_features_in_after_fitting",
    ),
    "a memory needs 12 samples",
)


@parametrize_with_checks(
    [DistilledDetector(scaling="feature", student=SMALL)],
    expected_failed_checks=lambda estimator: TOO_FEW,
)
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


def test_abnormal_samples_score_lower():
    detector = DistilledDetector(student={**SMALL, "epochs": 20}).fit(waves(300, 0))
    x, abnormal = waves(80, 1, abnormal=40), np.arange(80) >= 40
    scores = detector.score_samples(x)
    assert roc_auc_score(abnormal, -scores) > 0.9
    np.testing.assert_array_equal(detector.predict(x) == -1, scores < detector.offset_)
    assert np.mean(detector.labels_) == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(
        detector.labels_, (detector.decision_scores_ > detector.threshold_).astype(int)
    )
    again = DistilledDetector(student={**SMALL, "epochs": 20}).fit(waves(300, 0))
    np.testing.assert_array_equal(again.score_samples(x), scores)


def test_in_the_utilities_of_pyod(capsys: pytest.CaptureFixture[str]):
    detector = DistilledDetector(student=SMALL).fit(waves(200, 0))
    x, abnormal = waves(60, 1, abnormal=20), (np.arange(60) >= 40).astype(int)
    scores = -detector.score_samples(x)
    evaluate_print("distilled", abnormal, scores)
    assert (
        f"distilled ROC:{np.round(roc_auc_score(abnormal, scores), 4)}"
        in capsys.readouterr().out
    )
    assert precision_n_scores(abnormal, scores) > 1 / 3
    assert get_label_n(abnormal, scores).sum() == 20


def test_in_a_pipeline_with_several_leads():
    x = np.concatenate([waves(90, 0), waves(90, 1)], axis=1)
    detector = DistilledDetector(leads=2, student=SMALL)
    pipeline = make_pipeline(FunctionTransformer(), detector)
    figures = cross_val_score(
        pipeline, x, scoring=lambda e, x: np.mean(e.predict(x) == 1), cv=3
    )
    assert (figures > 0.3).all()
    # Each lead is scaled by itself.
    fitted = detector.fit(x)
    louder = x * np.repeat([1, 100], 48)
    np.testing.assert_allclose(fitted.score_samples(louder), fitted.score_samples(x), rtol=1e-3)


def test_another_method():
    small = {"width": 4, "latent": 5, "epochs": 1}
    detector = DistilledDetector("beatgan", teacher=small, student=small)
    assert np.isfinite(detector.fit(waves(40, 0)).score_samples(waves(5, 1))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_missing_are_refused(bad: float):
    x = waves(40, 0)
    spoiled = np.concatenate([x[:-1], np.full((1, 48), bad)])
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        DistilledDetector(student=SMALL).fit(spoiled)
    detector = DistilledDetector(student=SMALL).fit(x)
    for call in (detector.predict, detector.decision_function, detector.score_samples):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            call(spoiled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contamination": 0.6}, r"contamination: expected \(0, 0\.5\], found 0\.6"),
        ({"scaling": "row"}, "scaling: expected 'sample' or 'feature', found 'row'"),
        ({"leads": 5}, "48 features are not those of 5 leads"),
        ({"teacher": {"neighbours": 300}}, "a memory needs at least 301 normal beats"),
        ({"student": {"widht": 3}}, "widht"),
        ({"method": "no.such:Thing"}, "method"),
    ],
)
def test_what_cannot_be_learned_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        DistilledDetector(**changes).fit(waves(40, 0))  # type: ignore[arg-type]
