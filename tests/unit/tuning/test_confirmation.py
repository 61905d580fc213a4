"""What a confirmation trains again."""

from __future__ import annotations

from search_cases import space_file

from kdsearch.config.space_file import parse_config
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.confirm import candidates


def test_each_of_the_best_has_a_control_unless_it_distils_nothing():
    space = {"alpha": {"choice": [0, 0.5]}}
    config = parse_config(space_file(space=space, confirm={"top": 2}), "space.yaml")
    records = [
        TrialRecord(number, "completed", {"temperature": 1, "w_adv": 1, "alpha": alpha}, curve)
        for number, (alpha, curve) in enumerate([(0, {1: 0.8}), (0, {1: 0.6}), (0.5, {1: 0.7})])
    ]
    found = {c.name: c for c in candidates(config, records)}
    assert list(found) == ["teacher", "trial-0", "trial-2", "control-of-trial-2"]
    distilled, control = found["trial-2"].settings, found["control-of-trial-2"].settings
    assert control == distilled.model_copy(update={"alpha": 0})


def test_a_control_that_can_learn_nothing_is_left_out():
    plain = space_file(
        teacher={}, student={}, space={"alpha": {"uniform": [0.1, 2]}}, confirm={"top": 1}
    ) | {"method": "memory", "teacher": {}, "student": {"w_contrast": 0, "epochs": 9}}
    plain["space"] = {"alpha": {"uniform": [0.1, 2]}, "lr": 1e-3}
    config = parse_config(plain, "space.yaml")
    record = TrialRecord(0, "completed", {"alpha": 0.5}, {1: 0.8})
    control = {c.name: c for c in candidates(config, [record])}["control-of-trial-0"]
    assert control.left_out == (
        "alpha and w_contrast are both 0, which leaves nothing to learn"
    )
