"""Teachers that exist already: recognised, checked, with unchanged scores."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beatgan_cases import trained_teacher, training_data
from search_cases import CPU, space_file, write_space

from kdsearch.config.space_file import Config, load_space, parse_config
from kdsearch.data import load_dataset
from kdsearch.data.beats import Dataset
from kdsearch.data.settings import DataSettings
from kdsearch.errors import ConfigError, DataError, RunError, UserError
from kdsearch.files.atomic import save_state, write_text
from kdsearch.methods.beatgan import BeatGan
from kdsearch.methods.beatgan.networks import Discriminator, Generator, build, initialise
from kdsearch.methods.beatgan.scoring import architecture_of
from kdsearch.methods.protocol import State, Task
from kdsearch.metrics.ranking import rank
from kdsearch.runs.folder import RunFolder
from kdsearch.student.student import describe_student
from kdsearch.teachers.existing import Existing, read_sources, realise
from kdsearch.teachers.kinds import Standard, ensemble, part_scores, reconstructions, targets_of

SETTINGS = DataSettings.model_validate(
    {"simulated": {"patients": 6, "beats": 900}, "train_limit": 60, "validation_limit": 60}
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(SETTINGS, Path("unused"))


@pytest.fixture(scope="module")
def weights(dataset: Dataset) -> State:
    """A small generator and discriminator, as this project keeps them."""
    return trained_teacher(dataset.training, width=2, latent=4)


def config(**teacher: Any) -> Config:
    plain = space_file(student={"target": "score"})
    return parse_config(plain | {"teacher": teacher}, "my.yaml")


def use(dataset: Dataset, cache: Path, chosen: Config) -> Existing:
    return realise(read_sources(chosen), chosen, dataset, CPU, cache)


def published(values: dict[str, Any]) -> dict[str, Any]:
    """A state dict as torch saves one of modules that count their batches."""
    norms = [name for name in values if name.endswith("running_var")]
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(3) for name in norms
    }
    return {**values, **counters}


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bare": dict,
    "with counters": published,
    "below a key": lambda values: {"epoch": 7, "state_dict": dict(values)},
    "of DataParallel": lambda values: {f"module.{k}": v for k, v in values.items()},
    "in double precision": lambda values: {k: v.double() for k, v in values.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_published_generator_scores_as_before(
    form: str, legacy: bool, dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    path = tmp_path / "generator.pkl"
    torch.save(
        FORMS[form](weights["generator"]), path, _use_new_zipfile_serialization=not legacy
    )
    teacher = use(dataset, tmp_path, config(**{"from": str(path)}))
    x = dataset.test.x
    np.testing.assert_array_equal(
        part_scores(teacher.state, BeatGan(), "test", x, CPU), BeatGan().score(weights, x, CPU)
    )
    assert architecture_of(teacher.state) == architecture_of(weights)
    assert teacher.origin["gives"] == ["reconstruction", "scores"]
    expected = rank(
        BeatGan().score(weights, dataset.training.validation.x, CPU),
        dataset.training.validation.abnormal,
    )
    assert teacher.val_auc == expected.roc_auc()


@pytest.mark.parametrize("beside", [True, False], ids=["beside it", "named"])
def test_its_discriminator_is_found(
    beside: bool, dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    torch.save(weights["generator"], tmp_path / "fold0_G.pkl")
    other = tmp_path / ("fold0_D.pkl" if beside else "any.pt")
    torch.save(published(weights["discriminator"]), other)
    named = {} if beside else {"discriminator": str(other)}
    teacher = use(dataset, tmp_path, config(**{"from": str(tmp_path / "fold0_G.pkl")}, **named))
    assert "attention" in teacher.origin["gives"]
    students = [config().method.student_settings.model_validate({"target": "attention"})]
    taught, own = (
        targets_of(BeatGan(), students, Task(dataset.training, CPU, state))["attention"]
        for state in (teacher.state, weights)
    )
    np.testing.assert_array_equal(taught, own)


def test_both_networks_may_be_in_one_file(
    dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    both = {name: weights[name] for name in ("generator", "discriminator")}
    torch.save(both, tmp_path / "both.pt")
    teacher = use(dataset, tmp_path, config(**{"from": str(tmp_path / "both.pt")}))
    assert "weights" in teacher.origin["gives"]


class _Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return shutil.rmtree, ("nowhere",)


def _linear(path: Path) -> None:
    torch.save(
        {"encoder.0.weight": torch.zeros(8, 256), "encoder.0.bias": torch.zeros(8)}, path
    )


def _other_shape(path: Path) -> None:
    state = build(Generator, architecture_of(trained_teacher(training_data()))).state_dict()
    state["decoder.main.0.weight"] = state["decoder.main.0.weight"][:1]
    torch.save(state, path)


def _short(path: Path) -> None:
    torch.save(trained_teacher(training_data())["generator"], path)


def _discriminator(path: Path) -> None:
    torch.save(
        build(Discriminator, architecture_of(trained_teacher(training_data()))).state_dict(),
        path,
    )


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file or folder"),
    "pickled code": (
        lambda path: torch.save({"a": _Code()}, path),
        r"it needs shutil\.rmtree, and code that a file names is not run",
    ),
    "motion capture": (_linear, "motion capture, fully connected layers for windows of 256"),
    "another shape": (_other_shape, r"generator: decoder.main.0.weight should be"),
    "other beats": (
        _short,
        r"does not score the beats of this data: .*\(1, 32\), not \(1, 320\)",
    ),
    "a discriminator": (_discriminator, "discriminator alone; name the file of its generator"),
    "unknown tensors": (
        lambda path: torch.save({"a": torch.zeros(3)}, path),
        "no network in it that is known; expected a BeatGAN generator",
    ),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), "a Tensor and no state dict"),
    "a text": (lambda path: path.write_text("weights"), "not a readable file of tensors"),
    "an empty file": (lambda path: path.write_text(""), "not a readable file of tensors"),
    "another .npz": (lambda path: np.savez(path, x=np.zeros(3)), r"'scores' .*\(found: x\)"),
    "too few scores": (
        lambda path: np.savez(path, scores=np.zeros(3)),
        "'scores' has 3 values, but the data source has 900 beats",
    ),
    "rows of scores": (
        lambda path: np.savez(path, scores=np.zeros((3, 2))),
        "one number per beat",
    ),
    "no finite score": (
        lambda path: np.savez(path, scores=np.array([0, np.nan])),
        r"scores\[1\] is nan",
    ),
    "scores of objects": (
        lambda path: np.savez(
            path, scores=np.array([_Code()], dtype=object), allow_pickle=True
        ),
        "holds Python objects",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_teach_is_refused_with_the_reason(
    name: str, dataset: Dataset, tmp_path: Path
) -> None:
    write, message = REFUSED[name]
    path = tmp_path / "file.npz"
    write(path)
    with pytest.raises(UserError, match=message) as refused:
        use(dataset, tmp_path, config(**{"from": str(path)}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"from": "a", "epochs": 3}, "teacher.epochs: a teacher that exists is not trained"),
        ({"from": "a", "members": 2}, "'members' are trained"),
        ({"from": "a", "detector": "b.C"}, "two teachers; leave one out"),
        ({"options": {"a": 1}}, "'options' are those of a 'detector'"),
        ({"from": ["a", "b"], "discriminator": "c"}, "belongs to one teacher"),
        ({"detector": "os; rm"}, "teacher.detector: string should match pattern"),
        ({"form": "a"}, r"unknown key 'teacher.form' \(did you mean 'from'"),
        ({"members": 0}, "teacher.members: input should be greater"),
    ],
)
def test_a_bad_section_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(space_file() | {"teacher": section}, "my.yaml")


@pytest.mark.parametrize(
    "section",
    [
        {"from": "/a"},
        {"from": ["/a", "/b"]},
        {"from": "/a", "discriminator": "/d"},
        {"detector": "a.B", "options": {"novelty": True}},
        {"members": 3, "width": 2},
    ],
)
def test_the_section_is_read_back_equal(section: dict[str, Any]) -> None:
    parsed = parse_config(space_file() | {"teacher": section}, "my.yaml")
    again = parse_config(parsed.as_dict(), "my.yaml")
    assert again.as_dict() == parsed.as_dict()
    assert again.teacher_source == parsed.teacher_source


def scores_of(dataset: Dataset) -> np.ndarray:
    """A score per beat of the source: noise, and more for abnormal ones."""
    scores = np.random.default_rng(0).lognormal(size=dataset.source_beats).astype(np.float32)
    assert dataset.rows is not None
    for part, beats in ((dataset.rows.validation, dataset.training.validation),
                        (dataset.rows.test, dataset.test)):  # fmt: skip
        scores[part[beats.abnormal]] *= 3
    return scores


def test_a_table_of_scores_teaches_each_beat_its_own(dataset: Dataset, tmp_path: Path) -> None:
    scores = scores_of(dataset)
    np.savez(tmp_path / "scores.npz", scores=scores.astype(np.float64))
    chosen = config(**{"from": str(tmp_path / "scores.npz")})
    teacher = use(dataset, tmp_path, chosen)
    assert dataset.rows is not None
    students = [chosen.student_settings(point) for point in chosen.corners()]
    (taught,) = targets_of(
        BeatGan(), students, Task(dataset.training, CPU, teacher.state)
    ).values()
    own = np.log(scores[dataset.rows.train])
    np.testing.assert_allclose(np.log(taught), (own - own.mean()) / own.std(), atol=1e-5)
    ranking = rank(scores[dataset.rows.validation], dataset.training.validation.abnormal)
    assert teacher.val_auc == ranking.roc_auc()
    assert reconstructions(teacher.state, BeatGan(), dataset.test.x[:2], CPU) is None


def test_scores_in_the_wrong_direction_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    np.savez(tmp_path / "scores.npz", scores=-scores_of(dataset))
    with pytest.raises(ConfigError, match="scores must be higher for abnormal beats"):
        use(dataset, tmp_path, config(**{"from": str(tmp_path / "scores.npz")}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student": {"target": "attention"}},
            "needs attention, but .* gives scores",
        ),
        ({"student": {"target": "score+reconstruction"}}, "needs reconstruction, but"),
        ({"student": {"init": "teacher"}}, "needs weights, but"),
    ],
)
def test_a_target_that_the_teacher_cannot_give_is_refused(
    changes: dict[str, Any], message: str, dataset: Dataset, tmp_path: Path
) -> None:
    np.savez(tmp_path / "scores.npz", scores=scores_of(dataset))
    teacher = {"from": str(tmp_path / "scores.npz")}
    chosen = parse_config(space_file(**changes) | {"teacher": teacher}, "my.yaml")
    with pytest.raises(ConfigError, match=message):
        read_sources(chosen)


def test_a_table_needs_beats_without_warped_copies(tmp_path: Path) -> None:
    dataset = load_dataset(SETTINGS.changed(n_aug=1), Path("unused"))
    np.savez(tmp_path / "scores.npz", scores=scores_of(dataset))
    with pytest.raises(ConfigError, match="set n_aug to 0"):
        use(dataset, tmp_path, config(**{"from": str(tmp_path / "scores.npz")}))


def test_the_content_decides_the_fingerprint(
    dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    for name, values in (
        ("one.pt", weights["generator"]),
        ("same.pkl", published(weights["generator"])),
        ("other.pt", {k: v + 1e-3 for k, v in weights["generator"].items()}),
    ):
        torch.save(values, tmp_path / name)
    one, same, other = (
        use(dataset, tmp_path, config(**{"from": str(tmp_path / name)})).fingerprint
        for name in ("one.pt", "same.pkl", "other.pt")
    )
    assert one == same != other


DETECTOR = "sklearn.neighbors.LocalOutlierFactor"


def test_a_detector_is_fitted_and_scores_its_own_beats_left_out(
    dataset: Dataset, tmp_path: Path
) -> None:
    from sklearn.neighbors import LocalOutlierFactor  # noqa: PLC0415

    chosen = config(detector=DETECTOR, options={"novelty": True, "n_neighbors": 5})
    teacher = use(dataset, tmp_path, chosen)
    train = dataset.training.train.reshape(len(dataset.training.train), -1)
    fitted = LocalOutlierFactor(novelty=True, n_neighbors=5).fit(train)
    own = -fitted.negative_outlier_factor_
    np.testing.assert_allclose(teacher.state["train"].numpy(), own, rtol=1e-5)
    # Compared with itself, a beat would look more usual than it is.
    assert not np.allclose(own, -fitted.score_samples(train), rtol=1e-3)
    test = dataset.test.x.reshape(len(dataset.test.x), -1)
    np.testing.assert_allclose(
        teacher.state["test"].numpy(), -fitted.score_samples(test), rtol=1e-4
    )
    assert teacher.val_auc > 0.5


def test_the_sign_of_a_pyod_detector_is_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(
        tmp_path / "far_away.py",
        "import numpy as np\n"
        "class Far:\n"
        "    def fit(self, X):\n"
        "        self.mean = X.mean(axis=0)\n"
        "        self.decision_scores_ = self.decision_function(X) + 1\n"
        "    def decision_function(self, X):\n"
        "        return ((X - self.mean) ** 2).mean(axis=1)\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = use(dataset, tmp_path, config(detector="far_away.Far"))
    x = dataset.training.train
    expected = ((x - x.mean(axis=0)) ** 2).mean(axis=(1, 2)) + 1
    np.testing.assert_allclose(teacher.state["train"].numpy(), expected, rtol=1e-4)


def test_a_changed_detector_scores_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = config(detector="changing.Squares")
    trained = []
    for constant in ("1", "20"):
        write_text(
            tmp_path / "changing.py",
            "class Squares:\n"
            "    def fit(self, X):\n"
            "        self.mean = X.mean(axis=0)\n"
            "    def decision_function(self, X):\n"
            f"        return ((X - self.mean) ** 2).mean(axis=1) + {constant}\n",
        )
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        importlib.invalidate_caches()
        trained.append(use(dataset, tmp_path, chosen).state["train"].numpy())
    np.testing.assert_allclose(trained[1], trained[0] + 19, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sklearn.neighbors.LocalOutlierFactor", {}, r"try options: \{novelty: true\}"),
        ("sklearn.neighbors.Nothing", {}, "has no attribute 'Nothing'"),
        ("no_such_package.Detector", {}, "No module named 'no_such_package'"),
        ("sklearn.neighbors.LocalOutlierFactor", {"novelty": 1, "a": 2}, "'a'"),
        ("os.system", {}, "not a class with a method 'fit'"),
        ("sklearn.neighbors.NearestNeighbors", {}, "neither 'score_samples'"),
    ],
)
def test_a_bad_detector_is_refused(
    name: str, options: dict[str, Any], message: str, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        use(dataset, tmp_path, config(detector=name, options=options))


def test_a_detector_that_a_run_folder_names_is_not_imported(tmp_path: Path) -> None:
    plain = space_file() | {"teacher": {"detector": DETECTOR, "options": {"novelty": True}}}
    foreign = parse_config(plain, "runs/theirs/search.yaml", foreign=tmp_path)
    with pytest.raises(RunError, match="named by a run folder and is not imported"):
        read_sources(foreign)
    with pytest.raises(RunError, match="named by a run folder and is not imported"):
        read_sources(foreign.replace(search={"num_samples": 8}))


def test_weights_of_a_run_of_ours_teach(
    dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    save_state(tmp_path / "teacher.pt", weights)
    teacher = use(dataset, tmp_path, config(**{"from": str(tmp_path / "teacher.pt")}))
    assert teacher.origin["kind"] == "kdsearch teacher"
    assert teacher.origin["note"] == "what it was trained on is unknown"


def test_several_teach_together_on_a_common_scale(
    dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    scores = scores_of(dataset)
    np.savez(tmp_path / "scores.npz", scores=1e6 * scores)
    save_state(tmp_path / "teacher.pt", weights)
    chosen = config(**{"from": [str(tmp_path / "scores.npz"), str(tmp_path / "teacher.pt")]})
    teacher = use(dataset, tmp_path, chosen)
    assert dataset.rows is not None
    x = dataset.test.x
    table, network = scores[dataset.rows.test], BeatGan().score(weights, x, CPU)
    train = BeatGan().score(weights, dataset.training.train, CPU)
    expected = Standard.of(scores[dataset.rows.train])(table) + Standard.of(train)(network)
    found = part_scores(teacher.state, BeatGan(), "test", x, CPU)
    np.testing.assert_allclose(np.log(found), expected / 2, atol=1e-4)
    assert teacher.origin["gives"] == ["scores"]
    students = [chosen.student_settings(point) for point in chosen.corners()]
    taught = targets_of(BeatGan(), students, Task(dataset.training, CPU, teacher.state))[
        "score"
    ]
    own = Standard.of(scores[dataset.rows.train])(scores[dataset.rows.train])
    joined = (own + Standard.of(train)(train)) / 2
    assert np.corrcoef(np.log(taught), joined)[0, 1] > 0.9999


def test_reconstructions_of_several_are_averaged(dataset: Dataset, tmp_path: Path) -> None:
    paths, states = [], []
    for seed in (1, 2):
        state = trained_teacher(dataset.training, width=2, latent=4)
        generator = build(Generator, architecture_of(state))
        initialise(generator, torch.Generator().manual_seed(seed))
        for name, value in state["generator"].items():
            if "running" not in name:
                value.copy_(generator.state_dict()[name])
        save_state(tmp_path / f"{seed}.pt", state)
        paths.append(str(tmp_path / f"{seed}.pt"))
        states.append(state)
    x = dataset.test.x[:3]
    parts = [BeatGan().reconstruct(state, x, CPU) for state in states]
    plain = space_file(student={"target": "reconstruction"}) | {"teacher": {"from": paths}}
    chosen = parse_config(plain, "my.yaml")
    assert len(read_sources(chosen)) == 2
    joined = ensemble(states, BeatGan(), dataset.training.train, CPU)
    np.testing.assert_allclose(
        reconstructions(joined, BeatGan(), x, CPU), np.mean(parts, axis=0), atol=1e-6
    )


def test_a_flag_replaces_the_recipe(tmp_path: Path) -> None:
    space = load_space(write_space(tmp_path))
    replaced = space.replace(teacher={"from": "/somewhere"})
    assert replaced.teacher_source.paths == ("/somewhere",)
    back = replaced.replace(teacher={"epochs": 3})
    assert back.teacher_source.paths == ()


def test_details_of_a_teacher_that_exists_can_be_set() -> None:
    detector = config(detector=DETECTOR, options={"novelty": True, "n_neighbors": 5})
    options = detector.overridden({"teacher.options.n_neighbors": 9}, "my.yaml")
    assert options.teacher_source.detector == DETECTOR
    assert options.teacher_source.options == {"novelty": True, "n_neighbors": 9}
    generator = config(**{"from": "/one.pt"})
    both = generator.overridden({"teacher.discriminator": "/two.pt"}, "my.yaml")
    assert both.teacher_source.paths == ("/one.pt",)
    assert both.teacher_source.discriminator == "/two.pt"
    other = detector.overridden({"teacher.detector": "sklearn.svm.OneClassSVM"}, "my.yaml")
    assert other.teacher_source.options == {}


def test_a_table_file_that_is_damaged(tmp_path: Path, dataset: Dataset) -> None:
    np.savez(tmp_path / "scores.npz", scores=scores_of(dataset))
    content = bytearray((tmp_path / "scores.npz").read_bytes())
    content[200] ^= 255
    (tmp_path / "scores.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        use(dataset, tmp_path, config(**{"from": str(tmp_path / "scores.npz")}))


def test_an_ensemble_has_no_weights_to_start_from() -> None:
    plain = space_file(student={"init": "teacher"}, teacher={"members": 2})
    with pytest.raises(ConfigError, match="their teacher's weights need one teacher"):
        parse_config(plain, "my.yaml")


def finished_run(path: Path, dataset: Dataset, weights: State) -> RunFolder:
    """A run folder with a best student, as a search ends with one."""
    folder = RunFolder(path)
    settings = BeatGan().student_settings.model_validate({"width": 2, "latent": 4})
    card = describe_student(config(), settings, dataset, 0.5)
    write_text(folder.config_file, "search: {}\n")
    folder.write_best(weights, card, {"trial": 0}, {"scores": np.zeros(2)})
    return folder


@pytest.mark.parametrize("name", ["", "best", "best/model.safetensors"])
def test_the_student_of_an_earlier_search_teaches_with_all_it_has(
    name: str, dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "run", dataset, weights)
    teacher = use(dataset, tmp_path, config(**{"from": str(run.path / name)}))
    assert teacher.origin["kind"] == "student of an earlier search"
    assert teacher.origin["gives"] == ["attention", "reconstruction", "scores", "weights"]
    assert teacher.origin["note"] == f"trained on {dataset.description}"
    x = dataset.test.x
    np.testing.assert_array_equal(
        part_scores(teacher.state, BeatGan(), "test", x, CPU), BeatGan().score(weights, x, CPU)
    )


def test_a_student_of_another_built_in_method_gives_its_scores(
    dataset: Dataset, weights: State, tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "run", dataset, weights)
    plain = {"method": "memory", "teacher": {"from": str(run.path)}, "student": {}}
    plain |= {"data": {}, "search": {}, "space": {"lr": 0.001, "alpha": {"uniform": [0, 1]}}}
    with pytest.raises(
        ConfigError, match=r"needs scores of distorted beats, but .* gives scores$"
    ):
        read_sources(parse_config(plain, "my.yaml"))


def test_a_run_without_a_best_student_is_refused(tmp_path: Path) -> None:
    write_text(RunFolder(tmp_path).config_file, "search: {}\n")
    with pytest.raises(RunError, match="has no best student yet"):
        read_sources(config(**{"from": str(tmp_path)}))
