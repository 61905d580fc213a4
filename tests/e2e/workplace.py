"""The commands of a user: in this process, or in processes that are killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from kdsearch.cli.main import analyze_command, search_command
from kdsearch.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]

# One trial at a time, since every process takes seconds to import torch.
SPACE = """
method: faulty:FaultyBeatGan
data:
  source: simulated
  simulated: {patients: 6, beats: 900}
  train_limit: 128
teacher: {width: 2, latent: 4, epochs: 2, lr: 1.0e-3}
student: {width: 2, latent: 4, epochs: 5, target: score}
space:
  temperature: {loguniform: [0.5, 4]}
  alpha: {loguniform: [1.0e-2, 1]}
  w_adv: {uniform: [0.5, 5]}
  lr: {loguniform: [1.0e-4, 5.0e-3]}
search: {num_samples: 6, retries: 2, max_concurrent: 1}
confirm: {top: 0}
scheduler: {name: asha, grace_period: 1, reduction_factor: 3}
resources: {device: cpu, precision: fp32, checkpoint_interval_s: 0}
"""


class Done(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Workplace:
    """A folder with a space file, its runs, a cache and a log of the epochs computed."""

    path: Path
    temporary: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    runs_dir: str = ""
    """A URL in the place of the folder ``runs``."""

    @property
    def space(self) -> Path:
        return self.path / "kd.yaml"

    @property
    def run(self) -> Path:
        return self.path / "runs" / "kd"

    @property
    def url(self) -> str:
        """The run folder as the commands take it."""
        return f"{self.runs_dir or self.run.parent}/kd"

    def search(self, *flags: str) -> Done:
        """Run a search to its end, in this process."""
        return self._call(search_command, *self._flags(flags))

    def analyze(self, *flags: str) -> Done:
        """Print the leaderboard, in this process."""
        return self._call(analyze_command, self.url, *flags)

    def start(self, *flags: str) -> subprocess.Popen[str]:
        """Start a search in a process of its own and return at once."""
        return self._start("run_search.py", *self._flags(flags))

    def script(self, name: str, *arguments: str) -> Done:
        """Run a script in a process of its own, as a user does."""
        process = self._start(name, *arguments)
        out, err = process.communicate(timeout=600)
        return Done(process.returncode, out, err)

    def trials(self) -> list[dict[str, Any]]:
        """The leaderboard as analyze.py prints it for programs."""
        done = self.analyze("--format", "json")
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def epochs(self) -> Counter[tuple[int, int]]:
        """How often each (trial, epoch) was computed; trial -1 is the teacher."""
        lines = (self.path / "epochs.log").read_text().split("\n")[:-1]
        return Counter((int(line.split()[0]), int(line.split()[1])) for line in lines)

    def wait_for(self, what: Callable[[], bool], timeout: float = 600) -> None:
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline, "what the test waits for did not happen"
            time.sleep(0.02)

    def wait_for_epochs(self, count: int) -> None:
        log = self.path / "epochs.log"
        self.wait_for(lambda: log.exists() and log.read_text().count("\n") >= count)

    def hold(self, epochs: int, *, each: bool = False) -> None:
        """Let searches compute so many epochs, or so many of each student, until `go_on`."""
        self.environment["FAULTY_AFTER"] = str(self.path / "go on")
        self.environment["FAULTY_HOLD_EACH" if each else "FAULTY_HOLD"] = str(epochs)

    def wait_for_held(self) -> None:
        """Wait until an epoch has begun that is held."""
        self.wait_for((self.path / "epochs.log.held").exists)

    def go_on(self) -> None:
        (self.path / "go on").touch()

    def wait_for_running(self, trials: int = 1, epochs: int = 0) -> None:
        """Wait until the folders of so many running trials have so many epochs."""
        folder = RunFolder(self.run)

        def there() -> bool:
            running = [r for r in folder.records() if not r.finished and not r.reason]
            return sum(record.epochs >= epochs for record in running) >= trials

        self.wait_for(there)

    def _flags(self, flags: tuple[str, ...]) -> list[str]:
        runs_dir = self.runs_dir or str(self.run.parent)
        return ["--space", str(self.space), "--runs-dir", runs_dir, *flags]

    def _call(self, command: Callable[[list[str]], int], *arguments: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in self._environment().items():
                patch.setenv(name, value)
            patch.setattr(tempfile, "tempdir", str(self.temporary))
            patch.chdir(self.path)
            status = command([*arguments])
        return Done(status, out.getvalue(), err.getvalue())

    def _start(self, script: str, *flags: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.path,
            env=self._environment(),
        )
        self.started.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            # Two threads of a tiny network wait for each other longer than they work.
            "OMP_NUM_THREADS": "1",
            "KDSEARCH_CACHE": str(self.path / "cache"),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
            ),
            "FAULTY_LOG": str(self.path / "epochs.log"),
            # SIGTERM ends a search at once: most tests hold its epochs.
            "KDSEARCH_GRACE_S": "0",
            **self.environment,
        }


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a search and every process that it started, as a power cut would."""
    root = psutil.Process(process.pid)
    family = [root, *root.children(recursive=True)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


def kill_driver(process: subprocess.Popen[str]) -> None:
    """Kill a search alone; Ray's processes notice and go."""
    process.kill()
    process.wait()


@contextmanager
def workplace(path: Path) -> Iterator[Workplace]:
    """A workplace whose processes and temporary files are gone afterwards."""
    # Ray's sockets need a short path, which pytest's own folders do not have.
    with tempfile.TemporaryDirectory(
        prefix="k", dir="/tmp", ignore_cleanup_errors=True
    ) as temporary:
        place = Workplace(path, Path(temporary))
        place.space.write_text(SPACE)
        yield place
        for process in place.started:
            if process.poll() is None:
                kill_all(process)
