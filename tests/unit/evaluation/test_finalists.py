"""The figures of the best student and of the teacher."""

import numpy as np

from kdsearch.evaluation.finalists import Scores


def test_figures_without_patients_who_are_in_training():
    classes = np.array(["N", "N", "V", "V", "N", "V"])
    scores = Scores(
        validation=np.arange(6, dtype=np.float32),
        test=np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.0], dtype=np.float32),
        threshold=0.25,
    )
    shared = np.array([False, False, False, False, True, True])
    assert "test_new_patients" not in scores.metrics(classes, classes)
    found = scores.metrics(classes, classes, shared)
    # The last two beats, of such a patient, are ranked the wrong way round.
    assert found["test_new_patients"]["roc_auc"] == 1
    assert found["test"]["roc_auc"] == 4 / 9
