"""The JSON Schema and the reference of the space file: made anew, and held against kdsearch."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict
from search_cases import space_file
from test_space_file import TABLE, changed

from kdsearch.cli.main import main
from kdsearch.config import schema
from kdsearch.config.dimensions import as_number
from kdsearch.config.space_file import BUILT_IN, parse_config
from kdsearch.errors import ConfigError
from kdsearch.methods.beatgan import BeatGan

ROOT = Path(__file__).parents[3]
# As whatever pytest imports this file.
OWN = f"{__name__}:OwnMethod"
SPACES = ROOT / "search_spaces"
SHIPPED = sorted(SPACES.glob("*.yaml"))
# Made once for each method.
schema_of = cache(schema.space_schema)


class OwnStudent(BaseModel):
    """What a method of a user's own may have."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    epochs: int = 3
    depth: Literal[2, 4]
    """Layers."""
    skip: bool = True
    rate: float | None = None


class OwnMethod(BeatGan):
    student_settings = OwnStudent


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema_of())


def numbers(raw: Any) -> Any:
    """What YAML 1.2, unlike PyYAML's 1.1, takes for numbers."""
    if isinstance(raw, dict):
        return {key: numbers(value) for key, value in raw.items()}
    if isinstance(raw, list):
        return [numbers(value) for value in raw]
    return as_number(raw) if isinstance(raw, str) else raw


def test_the_schema_is_one(validator: Draft202012Validator):
    Draft202012Validator.check_schema(validator.schema)


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        ([], "search_spaces/schema.json"),
        (["--markdown"], "docs/space.md"),
        (["--method", "memory"], "search_spaces/schema-memory.json"),
    ],
)
def test_the_kept_files_are_those_that_the_settings_give(
    capsys: pytest.CaptureFixture[str], flags: list[str], file: str
):
    assert main(["schema", *flags]) == 0
    made = capsys.readouterr().out
    assert made == (ROOT / file).read_text(), (
        f"python -m kdsearch schema {' '.join(flags)} > {file}"
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_spaces_name_their_schema_and_keep_it(path: Path):
    text = path.read_text()
    validator = Draft202012Validator(schema_of(yaml.safe_load(text).get("method", "beatgan")))
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named
    assert json.loads((path.parent / named.group(1)).read_text()) == validator.schema
    assert list(validator.iter_errors(numbers(yaml.safe_load(text)))) == []


# What a schema cannot say: settings that depend on each other, and numbers that are none.
BEYOND = {
    "a bound of 401 digits",
    "low above high",
    "low equals high",
    "one target twice",
    "nan",
    "nan as text",
    "infinity",
    "infinite bound",
    "endless time",
    "reduction factor nan",
    "grace over epochs",
    "student narrower than the teacher that it starts from",
    "one option starts from another width",
    "point with a wrong name",
    "point outside the space",
    "point of a fixed setting",
    "points twice",
    "no metric among the objectives",
    "two metrics",
    "a metric that the objectives contradict",
    "constraints with gp",
    "constraints with cmaes",
    "earlier runs with cmaes",
}
# Another method has another schema.
OWN_METHOD = {"method by its class"}


@pytest.mark.parametrize("case", TABLE)
def test_the_schema_accepts_what_kdsearch_accepts(validator: Draft202012Validator, case: str):
    changes, message = TABLE[case]
    accepted = validator.is_valid(numbers(changed(*changes)))
    assert accepted == (message is None or case in BEYOND) or case in OWN_METHOD


FORMS: dict[str, tuple[str, Any, bool]] = {
    "uniform": ("w_adv", {"uniform": [0, 1]}, True),
    "loguniform": ("lr", {"loguniform": [1e-5, 1e-3]}, True),
    "loguniform from zero": ("w_adv", {"loguniform": [0, 1]}, False),
    "int": ("width", {"int": [4, 16]}, True),
    "int on a log scale": ("width", {"int": [4, 16], "log": True}, True),
    "int in steps": ("width", {"int": [4, 16], "step": 4}, True),
    "int in fractions of steps": ("width", {"int": [4, 16], "step": 0.5}, False),
    "uniform in steps": ("lr", {"uniform": [0.1, 0.2], "step": 0.05}, True),
    "loguniform in steps": ("lr", {"loguniform": [0.1, 0.2], "step": 0.05}, False),
    "grid": ("width", {"grid": [4, 16]}, True),
    "int with a fraction": ("width", {"int": [4, 16.5]}, False),
    "uniform whole numbers": ("width", {"uniform": [4, 16]}, False),
    "choice of numbers": ("width", {"choice": [4, 16]}, True),
    "choice of one twice": ("width", {"choice": [4, 4]}, False),
    "choice of nothing": ("width", {"choice": []}, False),
    "choice of words": ("init", {"choice": ["random", "teacher"]}, True),
    "words from to": ("init", {"uniform": [0, 1]}, False),
    "three bounds": ("lr", {"uniform": [0.1, 0.2, 0.3]}, False),
    "two forms": ("lr", {"uniform": [0.1, 0.2], "choice": [0.1]}, False),
    "no form": ("lr", {}, False),
    "unknown form": ("lr", {"normal": [0, 1]}, False),
    "nothing": ("lr", None, False),
}


@pytest.mark.parametrize(("key", "entry", "good"), FORMS.values(), ids=FORMS.keys())
def test_forms_of_a_dimension(
    validator: Draft202012Validator, key: str, entry: Any, good: bool
):
    raw = space_file(space={key: entry})
    raw["student"].pop(key, None)
    assert validator.is_valid(raw) == good
    try:
        parse_config(raw, "space.yaml")
    except ConfigError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("method", BUILT_IN)
def test_the_reference_says_every_key(method: str):
    said = (ROOT / "docs" / "space.md").read_text()
    for section in schema_of(method)["properties"].values():
        for key, setting in section.get("properties", {}).items():
            assert f"\n| `{key}` | " in said
            assert setting["description"] in said


def test_the_smallest_file_of_the_reference_is_one():
    text = (ROOT / "docs" / "space.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert parse_config(yaml.safe_load(text), "space.md").search.num_samples == 24


def test_a_method_of_ones_own(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "--method", OWN]) == 0
    own = Draft202012Validator(json.loads(capsys.readouterr().out))
    file = {
        "method": OWN,
        **dict.fromkeys(("data", "teacher", "student", "search")),
        "space": {
            "depth": {"choice": [2, 4]},
            "skip": {"choice": [True, False]},
            "rate": {"loguniform": [0.1, 1]},
        },
    }
    assert list(own.iter_errors(file)) == []
    assert not own.is_valid({**file, "method": "beatgan"})
    assert not own.is_valid({**file, "space": {"depth": {"choice": [2, 3]}}})
    assert main(["schema", "--markdown", "--method", OWN]) == 0
    assert "| `depth` | `2` or `4` | required | Layers. |" in capsys.readouterr().out


def test_a_method_that_does_not_exist(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "--method", "nowhere:Method"]) == 2
    assert capsys.readouterr().err.startswith("error: --method: method: cannot import 'nowhere")
