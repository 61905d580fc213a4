"""The teacher: trained once, found again, trained anew when damaged, resumed when killed."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_cases import CPU, tiny_dataset, tiny_teacher

from kdsearch.data.beats import Dataset
from kdsearch.errors import SearchFailed
from kdsearch.files.atomic import load_state, save_state
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.settings import StudentSettings
from kdsearch.methods.protocol import Compute, EpochReport, Task
from kdsearch.metrics.ranking import rank
from kdsearch.tuning.teacher import (
    Teacher,
    TeacherCache,
    ensemble_teacher,
    fingerprint,
    with_seed,
)

SETTINGS = tiny_teacher()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Epochs:
    """Counts the epochs that were trained, and may end the training at one."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.seen: list[int] = []
        self._killed_at = killed_at

    def __call__(self, report: EpochReport, epochs: int) -> None:
        assert epochs == SETTINGS.epochs
        self.seen.append(report.epoch)
        if report.epoch == self._killed_at:
            raise KeyboardInterrupt("killed")


def get(
    cache: Path, epochs: Epochs | None = None, *, dataset: Dataset | None = None, **changes: Any
) -> Teacher:
    return TeacherCache(cache).get(
        BeatGan(),
        tiny_teacher(**changes),
        dataset or tiny_dataset(),
        CPU,
        epochs if epochs is not None else Epochs(),
    )


def entry(cache: Path) -> Path:
    (found,) = (cache / "teachers").iterdir()
    return found


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in entry(cache).iterdir())


def assert_equal(one: Any, two: Any) -> None:
    """Nested states, bit for bit."""
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def assert_same_teacher(one: Teacher, two: Teacher) -> None:
    assert one.fingerprint == two.fingerprint
    assert_equal(one.weights, two.weights)
    timeless = [
        [dataclasses.replace(report, seconds=0) for report in teacher.history]
        for teacher in (one, two)
    ]
    assert timeless[0] == timeless[1]


# Trained once.


def test_the_second_search_finds_what_the_first_trained(cache: Path):
    epochs = Epochs()
    first = get(cache, epochs)
    assert epochs.seen == [1, 2, 3]
    assert not first.found
    second = get(cache, epochs)
    assert epochs.seen == [1, 2, 3]
    assert second == dataclasses.replace(first, found=True, weights=second.weights)
    assert_equal(first.weights, second.weights)
    assert files(cache) == [".lock", "model.pt", "teacher.json"]


def test_the_same_settings_give_the_same_teacher_bit_for_bit(tmp_path: Path):
    assert_same_teacher(get(tmp_path / "one"), get(tmp_path / "two"))


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path: Path):
    teacher = get(tmp_path / "all")
    best = teacher.best
    assert best.val_auc == max(report.val_auc for report in teacher.history)
    assert teacher.seconds == sum(report.seconds for report in teacher.history)
    data = tiny_dataset().training
    stack = BeatGan().teacher_stack(SETTINGS, Task(data, CPU))
    stack.put_in(0, SETTINGS, seed=SETTINGS.seed)
    for _ in range(best.epoch):
        trained = stack.advance()[0]
    assert rank(trained.scores, data.validation.abnormal).roc_auc() == best.val_auc
    assert_equal(stack.weights(0), teacher.weights)


def test_the_first_of_equally_good_epochs_is_the_best():
    history = [EpochReport(e, {}, 1.0, auc, 0.5) for e, auc in ((1, 0.5), (2, 0.9), (3, 0.9))]
    assert Teacher("f", {}, history, found=False).best.epoch == 2


CHANGES = {
    **{"width": 3, "latent": 4, "epochs": 4, "batch_size": 4, "lr": 2e-3},
    **{"w_adv": 2.0, "beta1": 0.25, "score": "relative", "seed": 1},
}


@pytest.mark.parametrize("setting", type(SETTINGS).model_fields)
def test_every_setting_is_part_of_the_fingerprint(setting: str):
    dataset, method = tiny_dataset(), BeatGan()
    changed = fingerprint(method, tiny_teacher(**{setting: CHANGES[setting]}), dataset, CPU)
    assert changed != fingerprint(method, SETTINGS, dataset, CPU)


def test_data_and_precision_are_part_of_the_fingerprint():
    given = [
        (tiny_dataset(), CPU),
        (tiny_dataset(fingerprint="e" * 64), CPU),
        (tiny_dataset(), Compute("cpu", "bf16")),
        (tiny_dataset(), Compute("cuda", "fp32")),
    ]
    names = [fingerprint(BeatGan(), SETTINGS, dataset, compute) for dataset, compute in given]
    assert len(set(names)) == 4
    assert all(len(name) == 64 for name in names)
    assert fingerprint(BeatGan(), tiny_teacher(), tiny_dataset(), CPU) == names[0]


def test_changed_settings_or_data_miss_the_cache(cache: Path):
    first = get(cache)
    other_data = get(cache, dataset=tiny_dataset(fingerprint="e" * 64, seed=9))
    other_seed = get(cache, seed=1)
    assert not other_data.found
    assert not other_seed.found
    assert len({first.fingerprint, other_data.fingerprint, other_seed.fingerprint}) == 3
    assert get(cache).found


# Damaged.

DAMAGES: dict[str, Callable[[Path], object]] = {
    "model torn": lambda e: (e / "model.pt").write_bytes((e / "model.pt").read_bytes()[:-9]),
    "model empty": lambda e: (e / "model.pt").write_bytes(b""),
    "model of zeros": lambda e: (e / "model.pt").write_bytes(b"\0" * 4096),
    "model gone": lambda e: (e / "model.pt").unlink(),
    "description torn": lambda e: (e / "teacher.json").write_text('{"history": [{"epo'),
    "description empty": lambda e: (e / "teacher.json").write_text(""),
    "description no text": lambda e: (e / "teacher.json").write_bytes(b"\xff\xfe\x00"),
    "description a list": lambda e: (e / "teacher.json").write_text("[]"),
    "description of nothing": lambda e: (e / "teacher.json").write_text("{}"),
    "history empty": lambda e: (e / "teacher.json").write_text('{"history": []}'),
    "history of something else": lambda e: (e / "teacher.json").write_text('{"history": [{}]}'),
    "description gone": lambda e: (e / "teacher.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_teacher_is_trained_anew(cache: Path, damage: Callable[[Path], object]):
    first = get(cache)
    damage(entry(cache))
    epochs = Epochs()
    second = get(cache, epochs)
    assert epochs.seen == [1, 2, 3]
    assert not second.found
    assert_same_teacher(first, second)
    assert get(cache).found


# Interrupted.


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path: Path, killed_at: int):
    expected = get(tmp_path / "uninterrupted")
    cache = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt, match="killed"):
        get(cache, Epochs(killed_at))
    assert files(cache) == [".lock", "partial.pt"]
    epochs = Epochs()
    found = get(cache, epochs)
    assert epochs.seen == list(range(killed_at + 1, 4))
    assert_same_teacher(found, expected)
    assert files(cache) == [".lock", "model.pt", "teacher.json"]


def test_a_training_killed_at_every_epoch_ends_the_same(tmp_path: Path):
    expected = get(tmp_path / "uninterrupted")
    for killed_at in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt, match="killed"):
            get(tmp_path / "interrupted", Epochs(killed_at))
    assert_same_teacher(get(tmp_path / "interrupted"), expected)


@pytest.mark.parametrize("damage", [b"", b"x" * 500])
def test_a_damaged_state_begins_anew(tmp_path: Path, damage: bytes):
    expected = get(tmp_path / "uninterrupted")
    cache = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt, match="killed"):
        get(cache, Epochs(2))
    (entry(cache) / "partial.pt").write_bytes(damage)
    epochs = Epochs()
    assert_same_teacher(get(cache, epochs), expected)
    assert epochs.seen == [1, 2, 3]


def test_a_kill_before_the_description_leaves_no_half_teacher(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt("killed")

    monkeypatch.setattr("kdsearch.tuning.teacher.write_json", killed)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        get(cache)
    monkeypatch.undo()
    monkeypatch.setenv("KDSEARCH_CACHE", str(cache))
    epochs = Epochs()
    assert not get(cache, epochs).found
    assert epochs.seen == [], "every epoch was kept already"


def test_a_diverged_teacher_ends_the_search_with_its_reason(cache: Path):
    with pytest.raises(SearchFailed, match=r"the teacher's training diverged: .* epoch \d"):
        get(cache, lr=1e30)
    assert "teacher.json" not in files(cache)


# Several at once.


def test_searches_that_start_together_train_once(cache: Path):
    epochs, start, found = Epochs(), threading.Barrier(3), []

    def ask() -> None:
        start.wait()
        found.append(get(cache, epochs))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert epochs.seen == [1, 2, 3]
    assert sorted(teacher.found for teacher in found) == [False, True, True]
    for teacher in found[1:]:
        assert_same_teacher(teacher, found[0])


# Targets.


class CountingBeatGan(BeatGan):
    def __init__(self) -> None:
        self.calls = self.scored = 0

    def targets(self, *arguments: Any) -> Any:
        self.calls += 1
        return super().targets(*arguments)

    def score(self, *arguments: Any) -> Any:
        self.scored += 1
        return super().score(*arguments)


def students(*targets: str) -> list[StudentSettings]:
    return [StudentSettings(width=2, latent=3, target=target) for target in targets]


def test_a_teacher_of_another_user_is_read_though_its_lock_cannot_be_taken(
    others_folder: Path, as_another_user, monkeypatch: pytest.MonkeyPatch
):
    first = get(others_folder)
    (lock,) = others_folder.rglob("*/.lock")
    lock.chmod(0o600)
    with as_another_user(others_folder):
        assert get(others_folder).found
        changed = get(others_folder, lr=2e-3)
    assert not changed.found
    assert changed.fingerprint != first.fingerprint


def test_targets_are_calculated_once_for_each_kind(cache: Path):
    teacher, method = get(cache), CountingBeatGan()
    task = Task(tiny_dataset().training, CPU, teacher.weights)
    ask = TeacherCache(cache).targets
    first = ask(teacher, method, students("score", "score"), task)
    assert set(first) == {"score"}
    assert first["score"].shape == (len(task.data.train),)
    again = ask(teacher, method, students("score"), task)
    np.testing.assert_array_equal(again["score"], first["score"])
    assert again["score"].dtype == np.float32
    assert method.calls == 1
    both = ask(teacher, method, students("score", "attention"), task)
    assert set(both) == {"score", "attention"}
    assert method.calls == 2


def test_targets_are_those_of_this_teacher(cache: Path):
    data = tiny_dataset().training
    ask = TeacherCache(cache).targets
    one, two = (
        ask(teacher, BeatGan(), students("score"), Task(data, CPU, teacher.weights))
        for teacher in (get(cache), get(cache, seed=1))
    )
    assert not np.array_equal(one["score"], two["score"])
    scores = BeatGan().score(get(cache).weights, data.train, CPU)
    np.testing.assert_allclose(one["score"], scores, rtol=1e-5)


def test_damaged_targets_are_calculated_anew(cache: Path):
    teacher, method = get(cache), CountingBeatGan()
    task = Task(tiny_dataset().training, CPU, teacher.weights)
    ask = TeacherCache(cache).targets
    first = ask(teacher, method, students("score"), task)
    (path,) = entry(cache).glob("targets-*.pt")
    path.write_bytes(path.read_bytes()[:-1])
    again = ask(teacher, method, students("score"), task)
    np.testing.assert_array_equal(again["score"], first["score"])
    assert method.calls == 2
    assert set(load_state(path)) == {"score"}


def test_scores_are_calculated_once_for_each_precision(cache: Path):
    teacher, method, dataset = get(cache), CountingBeatGan(), tiny_dataset()
    ask = TeacherCache(cache).scores
    first = ask(teacher, method, dataset, CPU)
    expected = BeatGan().score(teacher.weights, dataset.test.x, CPU)
    np.testing.assert_array_equal(first["test"], expected)
    assert first["validation"].shape == dataset.training.validation.abnormal.shape
    scored = method.scored
    again = ask(teacher, method, dataset, CPU)
    assert method.scored == scored == 2
    np.testing.assert_array_equal(again["test"], expected)
    ask(teacher, method, dataset, Compute("cpu", "bf16"))
    assert method.scored == 4
    path = cache / "teachers" / teacher.fingerprint / "scores-cpu-fp32.pt"
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(ask(teacher, method, dataset, CPU)["test"], expected)


def test_a_description_is_plain_json(cache: Path):
    teacher = get(cache)
    plain = json.loads((entry(cache) / "teacher.json").read_text())
    assert [report["epoch"] for report in plain["history"]] == [1, 2, 3]
    assert [EpochReport(**report) for report in plain["history"]] == teacher.history
    save_state(cache / "copy.pt", teacher.weights)
    assert_equal(load_state(cache / "copy.pt"), teacher.weights)


def test_members_of_an_ensemble_are_cached_each_and_judged_together(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    members = [get(tmp_path, seed=with_seed(SETTINGS, seed).seed) for seed in (0, 1, 2)]
    assert len({member.fingerprint for member in members}) == 3
    assert get(tmp_path, seed=1).found
    teacher = ensemble_teacher(members, BeatGan(), dataset, CPU)
    x = dataset.training.validation
    parts = []
    for member in members:
        train = np.log(BeatGan().score(member.weights, dataset.training.train, CPU))
        scores = np.log(BeatGan().score(member.weights, x.x, CPU))
        parts.append((scores - train.mean()) / train.std())
    expected = rank(np.mean(parts, axis=0), x.abnormal)
    assert teacher.best.val_auc == expected.roc_auc()
    assert teacher.seconds == pytest.approx(math.fsum(m.seconds for m in members))
    again = ensemble_teacher(members[:2], BeatGan(), dataset, CPU)
    assert again.fingerprint != teacher.fingerprint
