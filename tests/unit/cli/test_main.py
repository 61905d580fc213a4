"""The command lines: whatever is wrong is one line on stderr and exit status 2."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from search_cases import space_file, write_space

from kdsearch.cli.command import Command
from kdsearch.cli.main import COMMANDS, analyze_command, main, parser, search_command
from kdsearch.config.shipped import find_space
from kdsearch.config.space_file import load_space, parse_config
from kdsearch.runs.folder import RunFolder

ROOT = Path(__file__).parents[3]
DATA = {"fingerprint": "f" * 64, "simulated": False}
TEACHER = {"val_auc": 0.9, "val_ap": 0.8, "best_epoch": 1, "epochs": 2, "seconds": 0.5}
TEACHER |= {"fingerprint": "f" * 64, "history": []}
SMALL = {"simulated": {"patients": 10, "beats": 300}}


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with a good space file in it, where the commands are given."""
    write_space(tmp_path, data=SMALL)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """The one line that a command left behind."""

    def line(status: int) -> str:
        captured = capsys.readouterr()
        assert status == 2, captured.err
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        return captured.err.removeprefix("error: ").strip()

    return line


SPACE = ["--space", "space.yaml"]


def write(text: str) -> None:
    Path("space.yaml").write_text(text)


BAD_FILES: dict[str, tuple[str, str]] = {
    "broken": ("data: [", "space.yaml: broken YAML: "),
    "empty": ("", "space.yaml: expected sections such as 'space:', found None"),
    "unknown key": (
        yaml.safe_dump(space_file(space={"temprature": 1})),
        "space.yaml: unknown key 'space.temprature' (did you mean 'temperature'?)",
    ),
    "bounds": (
        yaml.safe_dump(space_file(space={"lr": {"uniform": [0.1, 0.01]}})),
        "space.yaml: space.lr: low must be below high, but low=0.1 and high=0.01",
    ),
    "more threads than there are": (
        yaml.safe_dump(space_file(resources={"cpus_per_trial": 4096})),
        "resources: cpus_per_trial=4096, but this machine has ",
    ),
    "no data there": (
        yaml.safe_dump(space_file(data={"source": "nowhere/mitdb"})),
        "nowhere/mitdb",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_space_files(refused, text: str, message: str):
    write(text)
    assert message in refused(search_command(SPACE))
    assert not Path("runs/space/search.yaml").exists()


BAD_FLAGS: dict[str, tuple[list[str], str]] = {
    "no such file": (["--space", "none.yaml"], "none.yaml: no such file"),
    "no such file, but one is shipped": (
        ["--space", "kd.yaml"],
        "kd.yaml: no such file; --space kd uses the shipped one",
    ),
    "a folder": (["--space", "."], "--name: "),
    "a folder, named": (["--space", ".", "--name", "x"], ".: cannot be read: "),
    "name that escapes": ([*SPACE, "--name", "../x"], "--name: letters, digits, "),
    "no trials": (
        [*SPACE, "--num-samples", "0"],
        "space.yaml with --num-samples: search.num_samples: input should be greater than or "
        "equal to 1, but found 0",
    ),
    "negative seed": ([*SPACE, "--seed", "-1"], "with --seed: search.seed: "),
    "no time": ([*SPACE, "--time-budget", "0"], "--time-budget: search.time_budget_s: "),
    "time nan": ([*SPACE, "--time-budget", "nan"], "--time-budget: search.time_budget_s: "),
    "nothing at a time": (
        [*SPACE, "--seed", "1", "--max-concurrent", "0"],
        "with --max-concurrent, --seed: search.max_concurrent: ",
    ),
    "no data": ([*SPACE, "--data", "nowhere.npz"], "nowhere.npz"),
    "empty data": ([*SPACE, "--data", ""], "with --data: data.source: "),
    "runs in a web page": (
        [*SPACE, "--runs-dir", "http://x"],
        "http://...: expected s3://bucket/path or gs://bucket/path",
    ),
    "runs at nobody's home": (
        [*SPACE, "--runs-dir", "~nobody-of-this-name/runs"],
        "~nobody-of-this-name/runs: no home folder is known for '~'; use a full path",
    ),
    "data at nobody's home": (
        [*SPACE, "--data", "~nobody-of-this-name/x.npz"],
        "~nobody-of-this-name/x.npz: no home folder is known for '~'; use a full path",
    ),
    "a cluster that is not there": (
        [*SPACE, "--address", "127.0.0.1:1"],
        "--address 127.0.0.1:1: no Ray cluster answers: ",
    ),
    "a tracker that is none": (
        [*SPACE, "--track", "tb"],
        "--track: expected one of tensorboard, mlflow, wandb, but found 'tb'",
    ),
    "a dry run with a tracker that is none": (
        [*SPACE, "--dry-run", "--track", "tb"],
        "--track: expected one of tensorboard, mlflow, wandb, but found 'tb'",
    ),
    "a dry run with no storage": (
        [*SPACE, "--dry-run", "--optuna-storage", "x.txt"],
        "--optuna-storage: expected FILE.log, FILE.db, ",
    ),
    "an unknown key that is set": (
        [*SPACE, "--set", "student.widht=3"],
        "space.yaml with --set student.widht: unknown key 'student.widht' (did you mean ",
    ),
    "nothing to resume": (
        [*SPACE, "--resume"],
        "runs/space: nothing to resume; leave out --resume to start",
    ),
}


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_bad_flags(refused, flags: list[str], message: str):
    assert message in refused(search_command(flags))
    assert not Path("runs/space/search.yaml").exists()
    assert not Path("kdsearch-cache/teachers").exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_an_optuna_storage_in_a_run_is_refused(refused, more: list[str]):
    existing_run()
    target = "runs/space/study.journal"
    line = refused(search_command([*SPACE, "--name", "x", "--optuna-storage", target, *more]))
    assert line == f"--optuna-storage: {target} is a run's own study; name another file"


def test_a_run_folder_whose_path_is_not_utf8_is_refused(refused):
    line = refused(search_command([*SPACE, "--runs-dir", os.fsdecode(b"caf\xe9")]))
    assert line.startswith("--runs-dir: the path of a run must be UTF-8, but found /")
    assert line.endswith("caf\\xe9/space")


def test_flags_do_not_change_how_the_file_is_called(refused):
    Path("space.yaml").rename("my_own_space.yaml")
    line = refused(search_command(["--space", "my_own_space.yaml", "--num-samples", "0"]))
    assert line.startswith("my_own_space.yaml with --num-samples: ")


def existing_run(**changes) -> RunFolder:
    """A run that was started and killed before its first trial."""
    folder = RunFolder(Path("runs/space"))
    config = parse_config(space_file(data=SMALL, **changes), "space.yaml")
    folder.write_config(config.as_dict(), {})
    return folder


def test_a_run_that_exists_is_not_overwritten(refused):
    folder = existing_run()
    before = folder.config_file.read_bytes()
    line = refused(search_command(SPACE))
    assert line == (
        "runs/space: this run exists already; continue it with --resume, or choose another "
        "--name"
    )
    assert folder.config_file.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"teacher": {"width": 3}}, "teacher.width=3, not 2"),
        ({"space": {"w_adv": {"uniform": [0.5, 4]}}}, "space.w_adv="),
        ({"search": {"seed": 8}}, "search.seed=8, not 0"),
        ({"scheduler": {"grace_period": 2}}, "scheduler.grace_period=2.0, not 1.0"),
    ],
)
def test_another_search_is_not_resumed(refused, changes: dict, key: str):
    existing_run(**changes)
    line = refused(search_command([*SPACE, "--resume"]))
    assert line.startswith(f"runs/space holds a search with {key}")
    assert line.endswith("resume it with its own file and flags, or choose another --name")


@pytest.mark.parametrize("text", ["", "- a", "space: ["])
def test_a_damaged_run_is_not_resumed(refused, text: str):
    existing_run().config_file.write_text(text)
    assert "runs/space/search.yaml: " in refused(search_command([*SPACE, "--resume"]))


def test_a_run_that_another_driver_holds_is_left_alone(refused):
    folder = existing_run()
    with folder.lock():
        line = refused(search_command([*SPACE, "--resume"]))
    assert line.startswith("runs/space: another search is running in this folder")


def test_a_place_that_cannot_be_written(refused):
    Path("runs").touch()
    line = refused(search_command([*SPACE, "--name", "x"]))
    assert line == "runs/x: cannot be written: Not a directory"


# Analysis.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "nowhere: no such run folder"),
        (["."], ".: not a run folder, it has no search.yaml"),
        (["runs/space", "nowhere"], "nowhere: no such run folder"),
        (["runs/space", "--sort", "rnk"], "--sort: there is no 'rnk' (did you mean 'rank'?)"),
        (["runs/space", "--state", "done"], "--state: there is no 'done'"),
        (["runs/space", "--top", "0"], "--top: must be at least 1, but found 0"),
    ],
)
def test_bad_analyses(refused, flags: list[str], message: str):
    existing_run()
    assert message in refused(analyze_command(flags))


def test_a_run_before_its_first_trial_is_shown(capsys: pytest.CaptureFixture[str]):
    existing_run()
    assert analyze_command(["runs/space"]) == 0
    assert "4 trials: 4 to come" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "json"])
def test_every_format_is_printed(capsys: pytest.CaptureFixture[str], form: str):
    existing_run()
    assert analyze_command(["runs/space", "--format", form, "--top", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.strip()


def test_a_reader_who_has_seen_enough_is_no_error():
    existing_run()
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, str(ROOT / "analyze.py"), "runs/space"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_terminal_without_unicode_shows_the_rest():
    folder = existing_run()
    folder.write_teacher({}, TEACHER | {"data": {**DATA, "description": "1 µV ± 2 · ♥"}})
    for encoding, shown in (("ascii", "1 uV +- 2 | ?"), ("latin-1", "1 µV ± 2 · ?")):
        ended = subprocess.run(
            [sys.executable, str(ROOT / "analyze.py"), "runs/space"],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout.decode(encoding).startswith(f"runs/space: {shown}\n")


def test_nothing_in_a_run_folder_steers_the_terminal(capsys: pytest.CaptureFixture[str]):
    folder = existing_run()
    hostile = {**DATA, "description": "\x1b[2J\x1b]0;title\x07\ud800"}
    folder.write_teacher({}, TEACHER | {"data": hostile})
    assert analyze_command(["runs/space"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("runs/space:  [2J ]0;title  \n")
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_folder_whose_name_is_not_utf8_is_read(capsys: pytest.CaptureFixture[str]):
    existing_run()
    Path("runs/space").rename(os.fsdecode(b"runs/caf\xe9"))
    assert analyze_command([os.fsdecode(b"runs/caf\xe9")]) == 0
    assert capsys.readouterr().out.startswith("runs/caf\\xe9\n4 trials: 4 to come")


# What argparse answers.


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (search_command, [], "the following arguments are required: --space"),
        (search_command, [*SPACE, "--num-samples", "many"], "invalid int value: 'many'"),
        (search_command, [*SPACE, "--trials", "3"], "unrecognized arguments: --trials 3"),
        (analyze_command, [], "the following arguments are required: RUN"),
        (analyze_command, ["runs/space", "--format", "xml"], "invalid choice: 'xml'"),
        (main, ["scores"], "invalid choice: 'scores' (choose from"),
    ],
)
def test_flags_that_do_not_exist(
    capsys: pytest.CaptureFixture[str], command, flags: list[str], message: str
):
    with pytest.raises(SystemExit, match="2"):
        command(flags)
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""


def help_of(capsys: pytest.CaptureFixture[str], command, *flags: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        command([*flags, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "example"),
    [
        (search_command, "python run_search.py --space kd --resume"),
        (analyze_command, "python analyze.py runs/kd --top 5 --format markdown"),
    ],
)
def test_help_shows_examples(capsys: pytest.CaptureFixture[str], command, example: str):
    shown = help_of(capsys, command)
    assert "examples:\n" in shown
    assert f"  {example}\n" in shown


def test_an_installed_command_is_shown_by_its_own_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kdsearch"])
    shown = help_of(capsys, main, "analyze")
    assert shown.startswith("usage: kdsearch analyze [-h]")
    assert "  kdsearch analyze runs/kd --top 5 --format markdown\n" in shown


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_stands_below_one(capsys: pytest.CaptureFixture[str], command: Command):
    assert f"    {command.name} " in help_of(capsys, main).replace("\n", " \n")
    shown = help_of(capsys, main, command.name)
    assert shown.startswith(f"usage: python -m kdsearch {command.name} ")
    for line in shown.split("examples:\n")[1].splitlines():
        words = shlex.split(line.partition(">")[0], comments=True)
        assert words[:4] == ["python", "-m", "kdsearch", command.name]
        assert parser("kdsearch").parse_args(words[3:]).run is command.run


def test_no_command_is_answered_by_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said == help_of(capsys, main)
    for line in said.split("examples:\n")[1].split("\n\n")[0].splitlines():
        assert parser("kdsearch").parse_args(line.split()[3:]).run


def test_the_commands_below_one_fail_as_on_their_own(refused):
    assert "nowhere: no such run folder" in refused(main(["analyze", "nowhere"]))
    assert "none.yaml: no such file" in refused(main(["search", "--space", "none.yaml"]))


def examples(capsys: pytest.CaptureFixture[str], command) -> list[list[str]]:
    lines = help_of(capsys, command).split("examples:\n")[1].splitlines()
    return [line.split() for line in lines if line.strip()]


def test_examples_name_files_that_are_shipped(capsys: pytest.CaptureFixture[str]):
    for _, program, *flags in examples(capsys, search_command):
        assert program == "run_search.py"
        space = Path(flags[flags.index("--space") + 1])
        found = find_space(space) if space.parent == Path() else ROOT / space
        assert load_space(found).search.num_samples > 1
    for _, program, *flags in examples(capsys, analyze_command):
        assert program == "analyze.py"
        assert flags[0] == "runs/kd"


# Shipped spaces.


def test_shipped_spaces_are_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(
        path.stem for path in (ROOT / "search_spaces").glob("*.yaml")
    )
    (smoke,) = [line for line in lines if line.startswith("smoke ")]
    assert re.match(
        r"smoke +Test that a search runs: the smallest settings, less than a minute$", smoke
    )


def test_a_shipped_space_is_taken_by_name_unless_there_is_a_file(
    capsys: pytest.CaptureFixture[str],
):
    assert find_space(Path("smoke")) == ROOT / "search_spaces" / "smoke.yaml"
    Path("smoke").mkdir()
    assert search_command(["--space", "smoke", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["search"]["num_samples"] == 8
    Path("smoke").rmdir()
    Path("space.yaml").rename("smoke")
    assert find_space(Path("smoke")) == Path("smoke")


def test_shipped_spaces_are_copied_but_overwrite_nothing(
    refused, capsys: pytest.CaptureFixture[str]
):
    assert main(["spaces", "--copy", "own/spaces"]) == 0
    copies = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in copies} >= {"kd.yaml", "schema.json"}
    for path in copies:
        assert path.read_bytes() == (ROOT / "search_spaces" / path.name).read_bytes()
    Path("own/spaces/compress.yaml").unlink()
    message = "own/spaces/kd.yaml: exists already; choose another folder"
    assert refused(main(["spaces", "--copy", "own/spaces"])) == message
    assert not Path("own/spaces/compress.yaml").exists()


# A dry run.


def test_a_dry_run_prints_the_configuration_and_its_cost(capsys: pytest.CaptureFixture[str]):
    assert search_command([*SPACE, "--dry-run", "--num-samples", "7", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    expected = load_space(Path("space.yaml")).as_dict()
    expected["search"] |= {"num_samples": 7, "seed": 3}
    assert yaml.safe_load(printed) == expected
    assert parse_config(yaml.safe_load(printed), "printed").as_dict() == expected
    comments = [line for line in printed.splitlines() if line.startswith("# ")]
    assert "# teacher: 2 epochs to train" in comments
    assert any(line.startswith("# students: 7 trials, at most 63 epochs") for line in comments)
    assert not Path("runs").exists()
