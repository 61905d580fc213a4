"""The model card says what the student is, in the words of its data."""

from __future__ import annotations

import numpy as np
import yaml

from kdsearch.metrics.ranking import evaluate
from kdsearch.student.model_card import model_card
from kdsearch.student.student import Card, DataCard, InputCard


def test_a_model_card_says_what_is_known():
    card = Card(
        method="memory",
        student={},
        input=InputCard(leads=4, length=64, padded_length=64, cutting=None),
        threshold=0.7331,
        data=DataCard(description="walks.npz, 90 windows", simulated=False, unit="window"),
    ).model_dump(mode="json")
    scores = np.array([0.1, 0.2, 0.9, 0.8], dtype=np.float32)
    figures = evaluate(scores, np.array(["N", "V", "V", "N"]), threshold=0.7331).as_dict()
    metrics = {
        "threshold_rule": {"sensitivity": 0.95},
        "student": {"validation": figures, "test": figures},
        "teacher": {"test": figures},
    }
    text = model_card(card, metrics)
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "kdsearch"
    assert "walks.npz, 90 windows." in body
    assert "0.7331, by the rule sensitivity=0.95 on the validation windows" in body
    assert body.count("| 4 | 2 | 0.7500 | 0.8333 | 0.5000 | 0.5000 | 0.5000 |") == 3
    assert "student.score(windows)" in body
    assert "beat" not in body.replace("BeatGAN", "")
    assert "simulated" not in body
    card["data"]["simulated"] = True
    assert "Trained on simulated windows" in model_card(card, metrics)
