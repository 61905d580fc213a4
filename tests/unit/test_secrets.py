"""A password is in nothing that a command prints or keeps, whichever way it came in."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml
from search_cases import space_file, write_space

from kdsearch.cli.main import analyze_command, search_command
from kdsearch.config.space_file import parse_config
from kdsearch.errors import RunError, UserError
from kdsearch.runs.folder import RunFolder
from kdsearch.texts import redact
from kdsearch.tuning.search import _logging_to

SECRET = "hunter2"
WEB = f"http://me:{SECRET}@127.0.0.1:1"
DATABASE = f"postgresql://me:{SECRET}@127.0.0.1:1/x?sslpassword={SECRET}"
SPACE = ["--space", "space.yaml"]


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_space(tmp_path, data={"simulated": {"patients": 10, "beats": 300}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def nothing_leaked(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    ours = [path for path in Path().rglob("*") if path.is_file() and path.name != "space.yaml"]
    assert [path for path in ours if SECRET.encode() in path.read_bytes()] == []
    return captured.err


ARGUMENTS = {
    "tracker": ["--track", f"mlflow={WEB}"],
    "tracker without a scheme": ["--track", f"mlflow=me:{SECRET}@127.0.0.1:1", "--space", "x"],
    "tracker in a dry run": ["--track", f"mlflow={WEB}", "--dry-run"],
    "tracker that is none": ["--track", f"{WEB}"],
    "Optuna's storage that is none": [
        "--optuna-storage",
        f"x://me:{SECRET}@h/y?token={SECRET}",
    ],
    "data": ["--data", WEB],
    "data by a token": ["--data", f"https://{SECRET}@host/x.npz"],
    "bucket": ["--runs-dir", f"s3://me:{SECRET}@bucket/x"],
    "name": ["--name", WEB],
    "space": ["--space", f"{WEB}/x.yaml"],
    "address": ["--address", f"me:{SECRET}@127.0.0.1:1"],
}


@pytest.mark.parametrize("flags", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_in_an_argument(capsys: pytest.CaptureFixture[str], flags: list[str]):
    assert search_command([*SPACE, *flags]) == 2
    assert nothing_leaked(capsys).startswith("error: ")


FILES = {
    "source": {"data": {"source": DATABASE}},
    "unknown key": {"search": {DATABASE: 1}},
    "a number": {"teacher": {"width": DATABASE}},
    "a bound": {"space": {"lr": {"uniform": [DATABASE, 1]}}},
    "method": {"method": f"{WEB}:Class"},
    "section": {"search": WEB},
}


@pytest.mark.parametrize("changes", FILES.values(), ids=FILES.keys())
def test_in_a_space_file(capsys: pytest.CaptureFixture[str], changes: dict):
    plain = space_file(**{k: v for k, v in changes.items() if isinstance(v, dict)})
    plain |= {k: v for k, v in changes.items() if not isinstance(v, dict)}
    Path("space.yaml").write_text(yaml.safe_dump(plain))
    assert search_command(SPACE) == 2
    assert nothing_leaked(capsys).startswith("error: ")


def test_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", WEB)
    assert search_command([*SPACE, "--track", "mlflow"]) == 2
    assert nothing_leaked(capsys).startswith("error: --track mlflow: ")


def test_in_an_exception_and_in_the_log(capsys: pytest.CaptureFixture[str]):
    with _logging_to(Path("search.log")):
        try:
            raise ConnectionError(f"{WEB}: refused")
        except ConnectionError:
            # MLflow's own logger prints on the standard error stream.
            for name in ("mlflow", "urllib3"):
                logging.getLogger(name).warning("%s fails", DATABASE, exc_info=True)
    nothing_leaked(capsys)
    assert (
        "ConnectionError: http://me:***@127.0.0.1:1: refused" in Path("search.log").read_text()
    )
    for kind in (UserError, RunError):
        assert SECRET not in str(kind(f"{DATABASE}: no answer")) + repr(kind(WEB))


def test_in_a_run_that_is_shown(capsys: pytest.CaptureFixture[str]):
    folder = RunFolder(Path("runs/space"))
    folder.write_config(parse_config(space_file(), "space.yaml").as_dict(), {})
    assert analyze_command(["runs/space", "--sort", WEB]) == 2
    assert analyze_command(["runs/space", "--optuna-storage", f"{WEB}/x"]) == 2
    nothing_leaked(capsys)


def test_in_the_command_line_that_ray_keeps(monkeypatch: pytest.MonkeyPatch):
    """The function that names the job in Ray's table, as `cluster` replaces it."""
    from kdsearch.tuning import cluster  # noqa: PLC0415

    line = ["python", "run_search.py", "--track", f"mlflow={WEB}", "--optuna-storage", DATABASE]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: line)
    assert SECRET in subprocess.list2cmdline(line)
    with cluster.adapted():
        told = cluster.ray._private.utils.get_entrypoint_name()
    assert told == redact(subprocess.list2cmdline(line))
    assert SECRET not in told
