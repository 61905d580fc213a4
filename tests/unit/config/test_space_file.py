"""The space file: good and bad ones side by side, and what the good ones become."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from search_cases import space_file, write_space

from kdsearch.config.dimensions import Fixed, Float
from kdsearch.config.space_file import Config, load_method, load_space, parse_config
from kdsearch.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
NAN, INF = float("nan"), float("inf")

# The last key of a path is set to the value; ABSENT removes it.
ABSENT = object()


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    plain = space_file()
    for path, value in changes:
        *sections, key = path.split(".")
        inner = plain
        for section in sections:
            inner = inner.setdefault(section, {})
        if value is ABSENT:
            del inner[key]
        else:
            inner[key] = value
    return plain


# What differs from a good file, and None or what its one line must say.
TABLE: dict[str, tuple[list[tuple[str, Any]], str | None]] = {
    "unchanged": ([], None),
    # Unknown keys, with the nearest known one.
    "unknown section": ([("serach", {})], r"unknown key 'serach' \(did you mean 'search'\?\)"),
    "unknown key far from all": (
        [("zzz", 1)],
        r"unknown key 'zzz' \(known: method, data, ",
    ),
    "unknown key that is a number": ([("7", 1)], r"unknown key '7' \(known: "),
    "unknown in data": ([("data.sorce", "x")], r"'data\.sorce' \(did you mean 'source'\?\)"),
    "unknown in teacher": ([("teacher.widht", 2)], r"'teacher\.widht' .*'width'\?"),
    "unknown in student": ([("student.epoch", 2)], r"'student\.epoch' .*'epochs'\?"),
    "unknown in space": (
        [("space.temprature", 2)],
        r"'space\.temprature' \(did you mean 'temperature'\?\)",
    ),
    "unknown in search": ([("search.num_sample", 2)], r"'search\.num_sample' .*'num_samples'"),
    "unknown in scheduler": ([("scheduler.grace", 2)], r"'scheduler\.grace' .*'grace_period'"),
    "unknown in resources": ([("resources.devise", "cpu")], r"'resources\.devise' .*'device'"),
    "unknown in simulated": (
        [("data.simulated.patient", 9)],
        r"'data\.simulated\.patient' \(did you mean 'patients'\?\)",
    ),
    "teacher's setting in student": ([("student.seed", 1)], r"unknown key 'student\.seed'"),
    # Sections.
    **{
        f"no section {name}": ([(name, ABSENT)], f"section '{name}' is missing")
        for name in ("data", "teacher", "student", "space", "search")
    },
    "no scheduler": ([("scheduler", ABSENT)], None),
    "empty data": ([("data", None)], None),
    "section that is a list": ([("teacher", [1])], r"teacher: expected keys .* found \[1\]"),
    "section that is text": ([("search", "tpe")], "search: expected keys .* found 'tpe'"),
    "space that is a list": ([("space", ["lr"])], r"space: expected keys .* found \['lr'\]"),
    "space that is empty": ([("space", None)], "space: expected keys .* found None"),
    # The space.
    "no temperature": (
        [("space.temperature", ABSENT)],
        "space: 'temperature' is missing; fix it or search it there",
    ),
    "low above high": (
        [("space.lr", {"uniform": [0.1, 0.01]})],
        r"space\.lr: low must be below high, but low=0\.1 and high=0\.01",
    ),
    "low equals high": (
        [("space.lr", {"uniform": [0.1, 0.1]})],
        r"space\.lr: low must be below high, but low=0\.1 and high=0\.1",
    ),
    "negative temperature": (
        [("space.temperature", -1)],
        r"space\.temperature: input should be greater than 0, but found -1",
    ),
    "zero temperature": ([("space.temperature", 0)], r"space\.temperature: .*found 0"),
    "temperature from below zero": (
        [("space.temperature", {"uniform": [-1, 4]})],
        r"space\.temperature: input should be greater than 0, but found -1",
    ),
    "negative alpha": ([("space.alpha", -0.1)], r"space\.alpha: .*equal to 0, but found -0\.1"),
    "alpha of zero": ([("space.alpha", {"choice": [0, 1]})], None),
    "bounds as text": ([("space.lr", {"loguniform": ["1e-3", "1e-2"]})], None),
    "nan": ([("space.alpha", NAN)], r"space\.alpha: .*finite number, but found nan"),
    "nan as text": ([("space.alpha", "nan")], r"space\.alpha: .*finite number, but found nan"),
    "infinity": ([("space.alpha", INF)], r"space\.alpha: .*finite number, but found inf"),
    "infinite bound": (
        [("space.alpha", {"uniform": [0, INF]})],
        r"space\.alpha: a bound must be finite, but found inf",
    ),
    "boolean bound": (
        [("space.alpha", {"uniform": [False, True]})],
        r"space\.alpha: a bound must be a number, but found False",
    ),
    "boolean value": (
        [("space.alpha", True)],
        r"space\.alpha: input should not be a boolean, but found True",
    ),
    "boolean choice": (
        [("space.alpha", {"choice": [0.5, True]})],
        r"space\.alpha: input should not be a boolean, but found True",
    ),
    "word for a number": (
        [("space.lr", "fast")],
        r"space\.lr: input should be a valid number, .* but found 'fast'",
    ),
    "bad option among good ones": (
        [("space.target", {"choice": ["score", "scores"]})],
        r"space\.target: input should be 'score', .* but found 'scores'",
    ),
    "words": ([("space.target", {"choice": ["score", "none"]})], None),
    "several targets": ([("student.target", "reconstruction+neighbours")], None),
    "several targets among others": (
        [("space.target", {"choice": ["score", "score+attention"]})],
        None,
    ),
    "one target twice": (
        [("student.target", "score+score")],
        r"student\.target: input should be .* joined by '\+', .* but found 'score\+score'",
    ),
    "unknown target among several": (
        [("space.target", {"choice": ["none", "score+scores"]})],
        r"space\.target: input should be .* but found 'score\+scores'",
    ),
    "no target with another": (
        [("student.target", "score+none")],
        r"student\.target: .* or one of 'published', .* 'none', but found 'score\+none'",
    ),
    "epochs between whole numbers": (
        [("student.epochs", ABSENT), ("space.epochs", {"uniform": [1, 4]})],
        r"space\.epochs: input should be a valid integer, .* but found 1\.5",
    ),
    "epochs in whole numbers": (
        [("student.epochs", ABSENT), ("space.epochs", {"int": [1, 4]})],
        None,
    ),
    "key in student and space": (
        [("student.lr", 0.1)],
        "'lr' is set in both 'student' and 'space'",
    ),
    "all fixed": (
        [("space.temperature", 1), ("space.alpha", 1), ("space.w_adv", 1)],
        None,
    ),
    # Single settings.
    "fraction of an epoch": ([("teacher.epochs", 1.5)], r"teacher\.epochs: .*found 1\.5"),
    "boolean epochs": ([("teacher.epochs", True)], r"teacher\.epochs: .*boolean, .*found True"),
    "no epochs": ([("student.epochs", 0)], r"student\.epochs: .*or equal to 1, but found 0"),
    "number as text": ([("teacher.lr", "1e-3")], None),
    "learning rate of zero": ([("teacher.lr", 0)], r"teacher\.lr: .*greater than 0, .*found 0"),
    "no trials": ([("search.num_samples", 0)], r"search\.num_samples: .*found 0"),
    "unknown sampler": (
        [("search.sampler", "grid")],
        r"search\.sampler: input should be 'auto', 'tpe', .* or 'qmc', but found 'grid'",
    ),
    "negative seed": ([("search.seed", -1)], r"search\.seed: .*found -1"),
    "seed beyond all bounds": ([("search.seed", 10**20)], r"search\.seed: .*less than 42949"),
    "no time": ([("search.time_budget_s", 0)], r"search\.time_budget_s: .*found 0"),
    "endless time": ([("search.time_budget_s", INF)], r"search\.time_budget_s: .*found inf"),
    "reduction of nothing": (
        [("scheduler.reduction_factor", 1)],
        r"scheduler\.reduction_factor: .* greater than or equal to 1\.1, but found 1",
    ),
    "reduction factor near 1": (
        [("scheduler.reduction_factor", 1.0000001)],
        r"scheduler\.reduction_factor: input should be greater than or equal to 1\.1",
    ),
    "a width of a million": ([("student.width", 10**6)], r"student\.width: .*equal to 16384"),
    "a searched width of a million": (
        [("student.width", ABSENT), ("space.width", {"choice": [4, 10**6]})],
        r"space\.width: .*equal to 16384, but found 1000000",
    ),
    "a seed of more than 63 bits": (
        [("teacher.seed", 2**63)],
        r"teacher\.seed: input should be less than 9223372036854775808, but found 92233720",
    ),
    "a data seed of more than 63 bits": ([("data.seed", 2**63)], r"data\.seed: .*less than"),
    "few adaptive seeds": ([("confirm.seeds", {"max": 2})], r"confirm\.seeds.*equal to 3"),
    "unknown key of adaptive seeds": (
        [("confirm.seeds", {"most": 12})],
        r"unknown key 'confirm\.seeds\.most'",
    ),
    "no metric among the objectives": (
        [("search.objectives", ["parameters"])],
        r"search\.objectives: the first objective must be val_auc or val_ap",
    ),
    "two metrics": (
        [("search.objectives", ["val_auc", "val_ap"])],
        r"search\.objectives: the first objective must be val_auc or val_ap",
    ),
    "average precision": ([("search.metric", "val_ap")], None),
    "average precision and a cost": ([("search.objectives", ["val_ap", "parameters"])], None),
    "a metric that the objectives contradict": (
        [("search.metric", "val_ap"), ("search.objectives", ["val_auc", "parameters"])],
        r"search: metric=val_ap, but the first objective is val_auc; leave one of them out",
    ),
    "unknown metric": ([("search.metric", "test_auc")], r"search\.metric: .*'test_auc'"),
    "unknown objective": ([("search.objectives", ["val_auc", "size"])], r"search\.objectives"),
    "limit without max": (
        [("search.constraints", {"parameters": 40000})],
        r"search\.constraints\.parameters",
    ),
    "objectives with gp": (
        [("search.objectives", ["val_auc", "parameters"]), ("search.sampler", "gp")],
        None,
    ),
    "constraints with gp": (
        [("search.constraints", {"parameters": {"max": 9}}), ("search.sampler", "gp")],
        r"search\.sampler: gp takes no constraints; choose tpe",
    ),
    "constraints with cmaes": (
        [("search.constraints", {"parameters": {"max": 9}}), ("search.sampler", "cmaes")],
        r"search\.sampler: cmaes takes no objectives or constraints; choose tpe",
    ),
    "earlier runs with cmaes": (
        [("search.learn_from", ["runs/a"]), ("search.sampler", "cmaes")],
        r"search\.learn_from: cmaes learns from its own trials alone; choose tpe or gp",
    ),
    "a billion seeds": ([("confirm.seeds", 10**9)], r"confirm\.seeds: .*equal to 1000"),
    "a billion to confirm": ([("confirm.top", 10**9)], r"confirm\.top: .*equal to 1000"),
    "a billion students": (
        [("resources.students_per_cpu", 10**9)],
        r"resources\.students_per_cpu: .*equal to 1000, but found 1000000000",
    ),
    "a million warped copies": ([("data.n_aug", 10**6)], r"data\.n_aug: .*equal to 100"),
    "hardly a normal beat": (
        [("data.simulated", {"abnormal": 0.9999999})],
        r"data\.simulated\.abnormal: .*equal to 0\.9, but found 0\.9999999",
    ),
    "a bound of 401 digits": (
        [("space.alpha", {"uniform": [0, 10**400]})],
        r"space\.alpha: a bound must be finite, but found 10000000",
    ),
    "a key that is far from all": (
        [("search.zzz", "val_ap")],
        r"unknown key 'search\.zzz' \(known: num_samples, sampler, ",
    ),
    "reduction factor nan": ([("scheduler.reduction_factor", NAN)], "finite .*found nan"),
    "unknown device": ([("resources.device", "tpu")], r"resources\.device: .*found 'tpu'"),
    "split": ([("data.split", "inter_patient")], None),
    "unknown split": ([("data.split", "folds")], r"data\.split.*found 'folds'"),
    "fold six": ([("data.fold", 5)], r"data\.fold: .*less than or equal to 4, but found 5"),
    # Settings together.
    "grace over epochs": (
        [("scheduler.grace_period", 10)],
        r"scheduler\.grace_period: must not exceed the students' epochs, but "
        r"grace_period=10 and epochs=9",
    ),
    "grace over epochs, which nobody asks": (
        [("scheduler.grace_period", 10), ("scheduler.name", "none")],
        None,
    ),
    "grace of the last epoch": ([("scheduler.grace_period", 9)], None),
    "grace of a part of an epoch": ([("scheduler.grace_period", 0.25)], None),
    "no grace": (
        [("scheduler.grace_period", 0)],
        r"scheduler\.grace_period: .*greater than 0, but found 0",
    ),
    "student as its teacher": ([("student.init", "teacher")], None),
    "student narrower than the teacher that it starts from": (
        [("student.init", "teacher"), ("teacher.width", 4)],
        "width.*4.*2|width.*2.*4",
    ),
    "one option starts from another width": (
        [("space.init", {"choice": ["random", "teacher"]}), ("teacher.width", 4)],
        "width.*4.*2|width.*2.*4",
    ),
    # The method.
    "method by name": ([("method", "beatgan")], None),
    "method by its class": ([("method", "kdsearch.methods.beatgan:BeatGan")], None),
    "unknown method": ([("method", "gan")], "expected 'beatgan', 'memory' or .*found 'gan'"),
    "method in no module": ([("method", "nowhere.at_all:X")], "method: cannot import 'nowhere"),
    "method of no module": ([("method", ":X")], "method: cannot import ':X'"),
    "method that is no class": ([("method", "os:sep")], "method: cannot import 'os:sep'"),
    "method that is a function": ([("method", "os:abort")], "'os:abort': not a class"),
    "method of another kind": (
        [("method", "collections:Counter")],
        "not a method: 'score', 'student_settings' missing",
    ),
    # Points that are tried first.
    "points": ([("search.points", [{"temperature": 1}, {"w_adv": "1e0", "alpha": 0.1}])], None),
    "point with a wrong name": (
        [("search.points", [{"temprature": 1}])],
        r"search\.points\[0\]: unknown key 'temprature' \(did you mean 'temperature'",
    ),
    "point outside the space": (
        [("search.points", [{"temperature": 1}, {"temperature": 1000}])],
        r"search\.points\[1\]\.temperature: expected a number from .* but found 1000",
    ),
    "point of a fixed setting": (
        [("space.lr", 0.001), ("search.points", [{"lr": 0.001}])],
        r"search\.points\[0\]: 'lr' is not searched; leave it out",
    ),
    "points twice": (
        [("search.points", [{"alpha": 0.01}, {"alpha": "1e-2"}])],
        r"search\.points\[1\]: the same settings as search\.points\[0\]",
    ),
    "points that are none": ([("search.points", "best")], r"search\.points: .* found 'best'"),
    "method not in its module": ([("method", "os:Gan")], "method: cannot import 'os:Gan'"),
}


def check(load: Callable[[], Config], message: str | None, origin: str) -> None:
    if message is None:
        assert load().corners()
        return
    with pytest.raises(ConfigError, match=message) as refused:
        load()
    assert str(refused.value).startswith(f"{origin}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("changes", "message"), TABLE.values(), ids=TABLE.keys())
def test_space_file(changes: list[tuple[str, Any]], message: str | None):
    check(lambda: parse_config(changed(*changes), "my.yaml"), message, "my.yaml")


def bomb(form: str) -> str:
    """A short text that stands for 2**40 values."""
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {form.format(f'*a{n - 1}', f'*a{n - 1}')}" for n in range(1, 41)
    ]
    return "\n".join(lines)


GOOD_TEXT = yaml.safe_dump(space_file(), sort_keys=False)

TEXTS: dict[str, tuple[str, str | None]] = {
    "good": (GOOD_TEXT, None),
    "with a byte order mark": ("\ufeff" + GOOD_TEXT, None),
    "with Windows' line ends": (GOOD_TEXT.replace("\n", "\r\n"), None),
    "empty": ("", "expected sections such as 'space:', found None"),
    "comments only": ("# nothing\n", "expected sections .* found None"),
    "a list": ("- data\n- teacher\n", r"expected sections .* found \['data', 'teacher'\]"),
    "a word": ("search", "expected sections .* found 'search'"),
    "a long word": ("x" * 500, r"expected sections .* found 'x{50,60}\.\.\.$"),
    "broken": ("data: [1, 2\nspace: {", "broken YAML: .*line 2"),
    "tab": ("data:\n\tsource: simulated\n", r"broken YAML: .*line 2"),
    "two documents": (GOOD_TEXT + "---\n" + GOOD_TEXT, "broken YAML: expected a single doc"),
    "runs code": ("data: !!python/object/apply:os.getcwd []", "broken YAML: .*constructor"),
    "contains itself": (
        GOOD_TEXT.replace("data:\n  source: simulated", "data: &x\n  source: *x"),
        r"broken YAML: \*x contains itself in .*line 2",
    ),
    "a list that holds itself": ("data: &x [1, *x]", r"broken YAML: \*x contains itself"),
    "a bomb of aliases": (bomb("[{}, {}]"), "aliases repeat more than 100,000 values"),
    "a bomb of merges": (bomb("{{<<: [{}, {}]}}"), "aliases repeat more than 100,000 values"),
    "a large file": ("# " + "x" * 2**20, "a space file has at most 1,048,576 bytes"),
    "unhashable keys": ("? [a]\n: 1\n? [a]\n: 2\n", "broken YAML: .*found unhashable key"),
    "a bottomless list": ("data: " + "[" * 5000, "broken YAML"),
    "the thirteenth month": ("data: 2026-13-01", "broken YAML: month must be in 1..12"),
    "duplicate section": (GOOD_TEXT + "data: {leads: 2}\n", "the key 'data' is set twice"),
    "duplicate key": (
        GOOD_TEXT.replace("  lr: 0.001\n", "  lr: 0.001\n  lr: 0.1\n"),
        r"broken YAML: the key 'lr' is set twice .*line \d+",
    ),
    "key that is a list": ("? [a]\n: 1\n", "broken YAML: .*unhashable key"),
    "1e-3, which YAML calls text": (GOOD_TEXT.replace("lr: 0.001", "lr: 1e-3"), None),
    "merge key": (
        GOOD_TEXT.replace("teacher:\n", "teacher: &size\n").replace(
            "student:\n  width: 2\n  latent: 4\n", "student:\n  <<: *size\n"
        ),
        None,
    ),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS.keys())
def test_text_of_a_space_file(tmp_path: Path, text: str, message: str | None):
    path = tmp_path / "my.yaml"
    path.write_bytes(text.encode())
    check(lambda: load_space(path), message, str(path))


def test_files_that_cannot_be_read(tmp_path: Path):
    latin, folder, missing = (
        tmp_path / "latin.yaml",
        tmp_path / "dir.yaml",
        tmp_path / "no.yaml",
    )
    latin.write_bytes("data: {source: Größe}".encode("latin-1"))
    folder.mkdir()
    check(lambda: load_space(missing), "no such file$", str(missing))
    check(lambda: load_space(latin), "cannot be read: 'utf-8' codec", str(latin))
    check(lambda: load_space(folder), "cannot be read: .*directory", str(folder))


def test_some_space_files_are_shipped():
    assert {"kd.yaml", "mitbih.yaml", "smoke.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_space_files_load(path: Path):
    config = load_space(path)
    wanted = {"alpha"} if config.method_name == "memory" else {"temperature", "alpha"}
    assert wanted <= set(config.searched())
    assert config.scheduler.grace_period < config.max_epochs()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_plain_form_is_the_same_search(path: Path):
    config = load_space(path)
    plain = yaml.safe_load(yaml.safe_dump(config.as_dict(), sort_keys=False))
    again = parse_config(plain, str(path))
    assert again.as_dict() == config.as_dict()
    assert again.space == config.space
    assert list(again.searched()) == list(config.searched())


def test_1e_minus_3_is_the_number(tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text(GOOD_TEXT.replace("lr: 0.001", "lr: 1e-3"))
    assert load_space(path).space["lr"] == Fixed(0.001)


def test_merged_keys_are_defaults(tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text(TEXTS["merge key"][0])
    config = load_space(path)
    assert config.student["latent"] == 4
    assert config.max_epochs() == 9


def test_searched_settings_stand_in_the_files_order_without_the_fixed_ones():
    config = parse_config(space_file(), "my.yaml")
    assert list(config.searched()) == ["temperature", "alpha", "w_adv"]
    assert config.space["temperature"] == Float(0.25, 8, log=True)


def test_settings_of_a_trial_join_student_fixed_and_searched():
    config = parse_config(space_file(student={"batch_size": 16}), "my.yaml")
    settings = config.student_settings({"temperature": 2.0, "alpha": 0.5, "w_adv": 3.0})
    found = settings.model_dump()
    expected = {"width": 2, "batch_size": 16, "lr": 0.001, "temperature": 2, "w_adv": 3}
    assert {key: found[key] for key in expected} == expected


def test_searched_epochs_count_with_their_most():
    plain = space_file(space={"epochs": {"int": [2, 7]}})
    del plain["student"]["epochs"]
    assert parse_config(plain, "my.yaml").max_epochs() == 7


def test_corners_hold_every_candidate_of_every_dimension():
    plain = space_file(space={"target": {"choice": ["score", "attention", "none"]}})
    config = parse_config(plain, "my.yaml")
    corners = config.corners()
    for key, dimension in config.searched().items():
        assert {corner[key] for corner in corners} == set(dimension.candidates())
    assert all(set(corner) == set(config.searched()) for corner in corners)


def test_a_configuration_travels_to_another_process(tmp_path: Path):
    config = load_space(write_space(tmp_path))
    assert pickle.loads(pickle.dumps(config)).as_dict() == config.as_dict()


def test_a_configuration_cannot_be_changed():
    config = parse_config(space_file(), "my.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.search.num_samples = 5
    with pytest.raises(AttributeError, match="cannot assign to field 'origin'"):
        config.origin = "another"


# A space changed from Python.


def test_what_is_replaced_is_replaced_and_nothing_else():
    space = parse_config(space_file(), "my.yaml")
    changed = space.replace(
        search={"num_samples": 9}, space={"lr": {"uniform": [0.1, 0.2]}}, confirm={"top": 0}
    )
    expected = space.as_dict()
    expected["search"]["num_samples"] = 9
    expected["space"]["lr"] = {"uniform": [0.1, 0.2]}
    expected["confirm"]["top"] = 0
    assert changed.as_dict() == expected
    assert (changed.origin, space.search.num_samples) == ("my.yaml", 4)


def test_a_setting_moves_between_student_and_space():
    space = parse_config(space_file(), "my.yaml")
    searched = space.replace(space={"width": {"choice": [2, 4]}})
    assert "width" not in searched.student
    assert set(searched.searched()) == {*space.searched(), "width"}
    assert searched.replace(student={"width": 8}).student["width"] == 8


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"search": {"num_samples": 0}},
            "my.yaml with search.num_samples replaced: search.num_samples: .* but found 0",
        ),
        ({"space": {"temprature": 2}}, "unknown key 'space.temprature' .*'temperature'"),
        ({"serach": {"seed": 2}}, "unknown key 'serach' .*'search'"),
        ({"student": {"alpha": 2}}, "space: 'alpha' is missing"),
    ],
)
def test_what_cannot_be_replaced_is_named(sections: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        parse_config(space_file(), "my.yaml").replace(**sections)


# Where a method is imported from.

METHOD = "from kdsearch.methods.beatgan import BeatGan as {name}\n"


@pytest.fixture
def import_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the test has Python import, and from wherever, is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("import_path")
def test_a_method_may_lie_beside_its_space_file(tmp_path: Path):
    (tmp_path / "lies_beside.py").write_text(METHOD.format(name="Mine"))
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**space_file(), "method": "lies_beside:Mine"}))
    with pytest.raises(ConfigError, match="No module named 'lies_beside'"):
        parse_config(yaml.safe_load(path.read_text()), str(path))
    assert load_space(path).method_name == "lies_beside:Mine"


@pytest.mark.usefixtures("import_path")
@pytest.mark.parametrize("where", ["", "best", "package"])
def test_no_code_is_taken_from_a_run_folder(tmp_path: Path, where: str):
    """Not even where Python would find it, as in the folder that it was started in."""
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "search.yaml").write_text("")
    name = f"strange_{where}"
    if where == "package":
        (run / name).mkdir()
        (run / name / "method.py").write_text("raise SystemExit('it ran')")
        sys.path.insert(0, str(run))
        name = f"{name}.method"
    else:
        (run / where / f"{name}.py").write_text("raise SystemExit('it ran')")
        sys.path.insert(0, str(run / where))
    for foreign in (run, run / "best"):
        with pytest.raises(ConfigError, match="is in the run folder, whose code is not run"):
            load_method(f"{name}:Method", "card", foreign=foreign)


def test_code_beside_a_student_is_run_only_if_the_user_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    student = tmp_path / "best"
    student.mkdir()
    (tmp_path / "beside_a_student.py").write_text(
        "class Method:\n    score = student_settings = None\n"
    )
    # As of `python -m` in that folder.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(
        ConfigError, match=r"beside_a_student\.py is beside best and is not run"
    ):
        load_method("beside_a_student:Method", "card", foreign=student)
    assert "beside_a_student" not in sys.modules
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert load_method("beside_a_student:Method", "card", foreign=student).score is None
    del sys.modules["beside_a_student"]


@pytest.mark.parametrize("rule", ["f1", {"sensitivity": 0.95}, {"specificity": 0.99}, 0.02])
def test_a_threshold_is_read_and_written_back(rule):
    config = parse_config(space_file() | {"threshold": rule}, "kd.yaml")
    assert config.as_dict()["threshold"] == rule
    assert parse_config(config.as_dict(), "kd.yaml").threshold == config.threshold
    assert parse_config(space_file(), "kd.yaml").as_dict()["threshold"] == "f1"


def test_a_threshold_that_is_none_is_one_line():
    with pytest.raises(ConfigError, match=r"^kd\.yaml: threshold: sensitivity must be above 0"):
        parse_config(space_file() | {"threshold": {"sensitivity": 2}}, "kd.yaml")
