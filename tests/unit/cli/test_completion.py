"""Shells complete the commands: asked in the shells that there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from services import absent

from kdsearch.cli.completion import SHELLS
from kdsearch.cli.main import main

ROOT = Path(__file__).parents[3]
# Asks bash's own function for what follows a line, as the tab key does.
BASH = """
{load}
COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"
COMP_CWORD=${{#COMP_WORDS[@]}}
{function} "${{COMP_WORDS[0]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with a run and a space, and the commands on the path as pip installs them."""
    script = tmp_path / "bin" / "kdsearch"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom kdsearch.cli.main import main\n"
        "sys.exit(main())\n"
    )
    script.chmod(0o755)
    (tmp_path / "runs" / "kd").mkdir(parents=True)
    (tmp_path / "runs" / "kd" / "leaderboard.csv").write_text("rank,trial,val_auc,seconds\n")
    (tmp_path / "own.yaml").touch()
    (tmp_path / "own.txt").touch()
    return tmp_path


def asked(workplace: Path, *command: str) -> list[str]:
    path = f"{workplace / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=workplace,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [word.strip() for word in done.stdout.splitlines()]


def in_bash(workplace: Path, line: str, load: str, function: str) -> list[str]:
    script = BASH.format(load=load, line=line, function=function)
    return asked(workplace, "bash", "--norc", "-c", script)


ANSWERS = {
    "kdsearch ": {"search", "analyze", "score", "export", "completion"},
    "kdsearch search --re": {"--resume"},
    "kdsearch search --space own": {"own.yaml"},
    "kdsearch search --space ": {"own.yaml", "kd", "smoke"},
    "kdsearch analyze runs/kd --format ": {"table", "csv", "markdown", "json"},
    "kdsearch analyze runs/kd --sort ": {"rank", "trial", "val_auc", "seconds"},
    "kdsearch analyze runs/kd --state st": {"stopped"},
}


@pytest.mark.parametrize(("line", "expected"), ANSWERS.items())
def test_bash_completes(workplace: Path, line: str, expected: set[str]):
    load = 'eval "$(kdsearch completion bash)"'
    assert set(in_bash(workplace, line, load, "_python_argcomplete")) >= expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"python {ROOT / 'run_search.py'} --dry", "--dry-run"),
        (f"python {ROOT / 'analyze.py'} runs/kd --sort val_", "val_auc"),
        ("python -m kdsearch sco", "score"),
    ],
)
def test_bash_completes_the_scripts(workplace: Path, line: str, expected: str):
    library = resources.files("argcomplete") / "bash_completion.d" / "_python-argcomplete"
    found = in_bash(workplace, line, f"source {library}", "_python_argcomplete_global")
    assert found == [expected]


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        absent(f"{shell} is not installed (Debian: apt-get install {shell})")


def test_fish_completes(workplace: Path):
    need("fish")
    command = "kdsearch completion fish | source; complete -C 'kdsearch search --re'"
    assert asked(workplace, "fish", "--no-config", "-c", command) == [
        "--resume\tcontinue or extend this run; 'auto' also starts it if there is none"
    ]


def test_zsh_takes_the_completion(workplace: Path):
    need("zsh")
    command = 'autoload -Uz compinit; compinit -u; eval "$(kdsearch completion zsh)"'
    shown = asked(workplace, "zsh", "-f", "-c", f"{command}; print $_comps[kdsearch]")
    assert shown == ["_python_argcomplete"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_installed_command_is_completed(capsys: pytest.CaptureFixture[str], shell: str):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "kdsearch" in script.split()
