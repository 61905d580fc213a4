"""Signals: one line and the usual status at any time, and no signal is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdsearch.errors import ConfigError, Interrupted
from kdsearch.tuning.signals import Signals

ROOT = Path(__file__).parents[3]
BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("signum", BOTH)
def test_the_first_signal_is_raised_and_handlers_come_back(signum: signal.Signals):
    before = [signal.getsignal(s) for s in BOTH]
    signals = Signals()
    with pytest.raises(Interrupted, match=signum.name) as raised, signals.caught():
        signal.raise_signal(signum)
    assert raised.value.signum == signum
    assert [signal.getsignal(s) for s in BOTH] == before


def test_an_exception_after_a_signal_is_the_signals():
    signals = Signals()

    def lose() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise RuntimeError("what compiled code makes of it") from None

    with pytest.raises(Interrupted, match="SIGTERM"), signals.caught():
        lose()


@pytest.mark.parametrize("signum", BOTH)
def test_a_signal_is_held_back(signum: signal.Signals):
    signals, done = Signals(), []

    def start() -> None:
        with signals.held_back():
            # To this thread: another one of the test runner's could take one for the process.
            signal.raise_signal(signum)
            # A library replaces our handlers.
            signal.signal(signum, lambda *_: None)
            done.append("all of it")
        done.append("more")

    with pytest.raises(Interrupted, match=signum.name), signals.caught():
        start()
    assert done == ["all of it"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*BOTH} == set()


def test_child_processes_inherit_that_signals_are_blocked():
    signals = Signals()
    with signals.caught(), signals.held_back():
        child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    child.send_signal(signal.SIGINT)
    child.kill()
    assert child.wait() == -signal.SIGKILL


def test_another_thread_than_the_main_one_leaves_signals_alone():
    before, seen = [signal.getsignal(s) for s in BOTH], []

    def search() -> None:
        signals = Signals()
        with signals.caught(), signals.held_back():
            seen.extend(signal.getsignal(s) for s in BOTH)

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == before


STUCK = """
import sys, time
from kdsearch.tuning import signals
signals.GRACE_S = 0.1
caught = signals.Signals()
with caught.caught():
    with {body}:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            time.sleep(60)
        time.sleep(60)
"""


@pytest.mark.parametrize("body", ["caught.held_back()", "open('/dev/null')"])
@pytest.mark.parametrize("signum", BOTH)
def test_a_process_that_does_not_react_is_ended(body: str, signum: signal.Signals):
    status, said = ended_by(signum, "-c", STUCK.format(body=body))
    assert status == 128 + signum
    assert said == f"{signum.name}: stopped; finished epochs are saved, rerun with --resume\n"


@pytest.mark.parametrize("signum", BOTH)
@pytest.mark.parametrize(
    "command",
    [("run_search.py", "--space", "kd"), ("analyze.py", "x"), ("-m", "kdsearch", "spaces")],
    ids=lambda command: command[0],
)
def test_a_signal_during_imports_is_one_line(
    tmp_path: Path, command: tuple[str, ...], signum: signal.Signals
):
    (tmp_path / "argcomplete.py").write_text(
        "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    status, said = ended_by(signum, *command, first=tmp_path)
    assert (status, said) == (128 + signum, f"{signum.name}: stopped\n")


def ended_by(
    signum: signal.Signals, *command: str, first: Path | None = None
) -> tuple[int, str]:
    """Status and stderr of a command that is sent a signal once it has printed a line."""
    path = os.pathsep.join(map(str, filter(None, [first, ROOT])))
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as the tests may be one, ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    return process.wait(timeout=60), process.communicate()[1]


def test_sigterm_waits_for_running_epochs():
    signals = Signals()
    saved = []

    def train() -> None:
        with signals.saving_epochs():
            signals.check()
            assert not signals.leaving
            signal.raise_signal(signal.SIGTERM)
            assert signals.leaving
            signals.check()
            saved.append("epoch")
            signals.leave()
            saved.append("another")

    with pytest.raises(Interrupted, match="SIGTERM"), signals.caught():
        train()
    assert saved == ["epoch"]


def test_a_body_that_ends_by_itself_is_interrupted_then():
    signals = Signals()

    def train() -> None:
        with signals.saving_epochs():
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"), signals.caught():
        train()


def test_running_epochs_have_no_more_time_than_there_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KDSEARCH_GRACE_S", "17.2")
    signals = Signals()

    def train() -> None:
        with signals.saving_epochs():
            signal.raise_signal(signal.SIGTERM)
            threading.Event().wait(60)
            pytest.fail("nothing has ended it")

    started = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM"), signals.caught():
        train()
    assert time.monotonic() - started < 60


def test_sigint_does_not_wait():
    signals = Signals()

    def train() -> None:
        with signals.saving_epochs():
            signal.raise_signal(signal.SIGINT)
            pytest.fail("nothing has ended it")

    with pytest.raises(Interrupted, match="SIGINT"), signals.caught():
        train()


@pytest.mark.parametrize("signum", BOTH)
def test_a_body_that_looks_for_signals_is_interrupted_there_alone(
    monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
):
    """Without time for epochs at once, with it after that."""
    monkeypatch.setenv("KDSEARCH_GRACE_S", "17.2")
    signals = Signals()

    def train() -> None:
        with signals.saving_epochs(polled=True):
            signal.raise_signal(signum)
            deadline = time.monotonic() + 60
            while signals.leaving:
                assert time.monotonic() < deadline, "nothing has ended it"
                time.sleep(0.01)
            signals.check()
            pytest.fail("it goes on")

    with pytest.raises(Interrupted, match=signum.name), signals.caught():
        train()


def test_a_grace_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KDSEARCH_GRACE_S", "30s")
    with pytest.raises(ConfigError, match=r"KDSEARCH_GRACE_S: expected the seconds .* '30s'"):
        Signals()
