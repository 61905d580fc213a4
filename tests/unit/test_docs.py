"""The pages for readers: links lead somewhere, commands take what they are given."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdsearch.cli.analyze import ANALYZE
from kdsearch.cli.main import parser
from kdsearch.cli.search import SEARCH
from kdsearch.config.space_file import REQUIRED_SECTIONS, parse_config

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Where a command ends: a pipe, another command, a file to write to.
END = re.compile(r"\s(?:\||\|\||&&|&|;|2?>{1,2})(?:\s|$)|;\s")
PROGRAMS = {
    "run_search.py": SEARCH.parser("run_search.py"),
    "analyze.py": ANALYZE.parser("analyze.py"),
    "kdsearch": parser("kdsearch"),
}


def commands(text: str) -> Iterator[str]:
    """Lines of shell blocks, lines with a prompt in other blocks, and code in sentences."""
    for language, block in FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        shell = language in ("sh", "bash", "shell", "fish", "zsh")
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        yield from prompted or (lines if shell else [])
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        # A name alone is only mentioned.
        if " " in code:
            yield code


def words(command: str) -> list[str]:
    """Program and arguments of a command of ours; nothing where it is another's."""
    found = END.split(command.partition(" #")[0])[0].split("$(")[0]
    try:
        split = shlex.split(found)
    except ValueError:
        return []
    while split and (re.fullmatch(r"[A-Z_]+=.*", split[0]) or split[0] in ("time", "$")):
        split = split[1:]
    if split and re.fullmatch(r"(.*/)?python[0-9.]*", split[0]):
        split = split[2:] if split[1:2] == ["-m"] else split[1:]
    return split


def called(page: Path) -> list[list[str]]:
    return [found for command in commands(page.read_text()) if (found := words(command))]


def check(program: str, arguments: list[str]) -> None:
    if program in PROGRAMS:
        if any(word in ("...", "…") for word in arguments):
            return
        try:
            PROGRAMS[program].parse_args(arguments)
        except SystemExit as end:
            if end.code != 0:
                raise AssertionError(f"{program} {shlex.join(arguments)}") from None
    elif program.startswith(("benchmarks/", "experiments.")):
        # The shell script hands its arguments on to the Python one.
        script = program.replace("experiments.", "experiments/").removesuffix(".sh")
        text = (ROOT / script).with_suffix(".py").read_text()
        if "add_data(" in text:
            text += (ROOT / "experiments" / "table.py").read_text()
        for flag in (word for word in arguments if word.startswith("--")):
            assert f'"{flag.split("=")[0]}"' in text, f"{program} {flag}"
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        named = [word for word in arguments if "=" not in word and not word.startswith("-")]
        assert set(named) <= set(targets), f"make {shlex.join(arguments)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_take_what_they_are_given(page: Path, capsys: pytest.CaptureFixture[str]):
    for program, *arguments in called(page):
        check(program, arguments)


def space_files(page: Path) -> list[dict[str, Any]]:
    """The whole space files that a page shows."""
    blocks = [
        block for language, block in FENCE.findall(page.read_text()) if language == "yaml"
    ]
    read = [yaml.safe_load(block) for block in blocks]
    return [raw for raw in read if isinstance(raw, dict) and set(REQUIRED_SECTIONS) <= set(raw)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_space_files_that_are_shown_can_be_searched(
    page: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(ROOT / "examples")
    for raw in space_files(page):
        assert parse_config(raw, page.name).max_epochs() > 0


def test_space_files_are_found_at_all():
    pages = [page.name for page in PAGES if space_files(page)]
    assert {"space.md", "tutorial.md"} <= set(pages)


def slugs(page: Path) -> set[str]:
    """The anchors that a code host gives to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in slugs(target), f"{page.name}: {link}"


def fixed_and_values(node: ast.expr) -> list[str | None]:
    """The parts of a text in the sources: what is fixed in it, and None for each value."""
    match node:
        case ast.JoinedStr(values):
            return [str(v.value) if isinstance(v, ast.Constant) else None for v in values]
        case ast.Constant(str(text)):
            # A text for `str.format` has its values in braces.
            split = re.split(r"\{[^{}]*\}", text)
            return [part for fixed in split for part in (fixed, None)][:-1]
    return [None]


@cache
def templates() -> list[re.Pattern[str]]:
    """Every text of two words or more in the sources, with its values left open.

    The file, run or record that a message begins with may be left out.
    """
    found = []
    for path in (ROOT / "kdsearch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = fixed_and_values(node) if isinstance(node, ast.expr) else []
            words_in_it = re.findall(r"[a-z]{3,}", " ".join(filter(None, parts)))
            if len(words_in_it) < 2 or len("".join(words_in_it)) < 10:
                continue
            origin, named = "", parts[0] is None and len(parts) > 1
            if named and parts[1] and parts[1].startswith(": "):
                origin, parts = "(.*: )?", [parts[1][2:], *parts[2:]]
            elif named and parts[1] and parts[1].startswith(" "):
                origin, parts = "(.* )?", [parts[1][1:], *parts[2:]]
            fixed = [".*" if part is None else re.escape(part) for part in parts]
            found.append(re.compile(origin + "".join(fixed), re.DOTALL))
    return found


def is_printed(message: str) -> bool:
    """Whether one text in the sources prints the whole message."""
    return any(template.fullmatch(message) for template in templates())


def test_the_messages_that_are_explained_are_printed():
    rows = (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    seen = [code for row in rows for code in row.split(" | ")[0].split("`")[1::2]]
    messages = [code for code in seen if len(re.findall(r"[a-z]{4,}", code)) > 2]
    assert len(messages) > 40
    assert [message for message in messages if not is_printed(message)] == []


@pytest.mark.parametrize(
    "message",
    [
        "this run exists already; go on with --resume, or choose another --name",
        "this run exists already; continue it with --resume",
        "low must be below high, but found low=0.1",
        "low must be below high",
        "the worker process died without a word",
        "nothing to resume; leave out --resume to start again",
    ],
)
def test_a_message_that_nothing_prints_is_found(message: str):
    assert not is_printed(message)


def test_every_part_stands_in_the_architecture():
    page = (ROOT / "docs" / "architecture.md").read_text()
    parts = {
        path.stem + "/" * path.is_dir()
        for path in (ROOT / "kdsearch").iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    }
    parts = {part for part in parts if not part.startswith("_")}
    assert {part for part in parts if f"`{part}`" not in page} == set()


def test_every_page_stands_in_the_index():
    index = ROOT / "docs" / "README.md"
    listed = {link.partition("#")[0] for link in LINK.findall(index.read_text())}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {index.name}
    assert pages <= listed


WRONG = [
    "python run_search.py --space x.yaml --trials 3",
    "python -m kdsearch scor runs/kd x.npz",
    "kdsearch analyze runs/kd --format xml | head",
    "KDSEARCH_CACHE=/x .venv/bin/python analyze.py",
    "python benchmarks/torture.py --deaths 3",
    "benchmarks/gpu.sh --outputs results",
    "python -m experiments.compare --data x --score y",
    "make coffee",
]


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_is_found(command: str, capsys: pytest.CaptureFixture[str]):
    (found,) = [words(line) for line in commands(f"```sh\n{command}\n```")]
    with pytest.raises(AssertionError, match=re.escape(found[0])):
        check(found[0], found[1:])


def test_commands_are_found_at_all():
    assert ["run_search.py", "--space", "search_spaces/kd.yaml"] in called(ROOT / "README.md")
    found = [call[0] for page in PAGES for call in called(page)]
    assert sum(program in PROGRAMS for program in found) > 15
    assert sum(program.startswith(("benchmarks/", "experiments.")) for program in found) > 15
