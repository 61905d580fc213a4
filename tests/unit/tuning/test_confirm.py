"""What a confirmation trains again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from search_cases import new_driver, space_file, tiny_dataset
from watched import PARAMS

from kdsearch.config.space_file import ConfirmSettings, parse_config
from kdsearch.evaluation.verdict import Results, conclude
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.tuning.confirm import (
    ConfirmationInputs,
    _confirm_crew,
    _crews,
    candidates,
    left_to_confirm,
    seeds,
)
from kdsearch.tuning.workers.trial import TrialInputs


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


@pytest.mark.parametrize("students", [1, 4], ids=["alone", "packed"])
def test_an_adaptive_confirmation_ends_alike_however_often_it_is_interrupted(
    inputs: TrialInputs, students: int
):
    """Real trainings in this process; interrupted after each crew, or not at all."""
    confirm = ConfirmSettings.model_validate({"top": 1, "seeds": {"max": 4}})
    config = replace(inputs.config, confirm=confirm)
    dataset = tiny_dataset()
    chosen = candidates(
        config,
        [
            TrialRecord(number, "completed", {**PARAMS, "alpha": alpha}, {1: 0.8 - number / 10})
            for number, alpha in enumerate([0.5, 0.1])
        ],
    )

    def verdict(name: str, crews_at_once: int) -> tuple[str, int]:
        folder = RunFolder(inputs.run.parent / name)
        given = replace(inputs, config=config, run=folder.path, generation=new_driver(folder))
        beats = dataset.training.validation, dataset.test
        trained = 0
        while left := left_to_confirm(
            folder, chosen, config, Results(folder, seeds(config), *beats)
        ):
            for crew in _crews(left, config, students)[:crews_at_once]:
                _confirm_crew(ConfirmationInputs(given, dataset.test), crew)
                trained += len(crew)
        roles = {candidate.name: candidate.role for candidate in chosen}
        found = conclude(folder, roles, seeds(config), dataset, {}, adaptive=True)
        folder.write_verdict(found)
        assert not left_to_confirm(folder, chosen, config), "as the verdict says"
        assert sum(found["adaptive"]["seeds"].values()) == trained
        return folder.verdict_file.read_text(), trained

    whole, trained = verdict("whole", crews_at_once=1000)
    assert verdict("interrupted", crews_at_once=1) == (whole, trained)
    assert 3 * 3 <= trained <= 4 * 3
