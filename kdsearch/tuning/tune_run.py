"""Ray and Tune: started, quiet, and left again."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, cast

# Before Ray is imported: it reads some of these when it is.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # The study is the truth; Tune's own snapshots and loggers would only cost time.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A stopped student may be in the middle of a mini-batch; with the default of 2 s the
    # next trial on the same actor would abort and the search hang.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # Signals are ours: every epoch is on disk, so that leaving at once loses nothing.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
}
for _key, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_key, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402

from kdsearch.config.space_file import BUILT_IN, Config  # noqa: E402
from kdsearch.errors import Interrupted, RunError, UserError  # noqa: E402
from kdsearch.files.bucket import BucketPath, Place, place  # noqa: E402
from kdsearch.runs.folder import RunFolder  # noqa: E402
from kdsearch.tuning.bridge import (  # noqa: E402
    Retries,
    StudyScheduler,
    StudySearcher,
    TimeBudget,
)
from kdsearch.tuning.ledger import Ledger  # noqa: E402
from kdsearch.tuning.nodes import runtime_environment  # noqa: E402
from kdsearch.tuning.placement import THIN_CPUS, Placement, Processes, local_cpus  # noqa: E402
from kdsearch.tuning.workers.packed_trial import train_in_packer  # noqa: E402
from kdsearch.tuning.workers.packer import Packer  # noqa: E402
from kdsearch.tuning.workers.trial import TrialInputs, train_student  # noqa: E402

logger = logging.getLogger(__name__)
MIB = 2**20
CONNECT_TIMEOUT_S = 10.0
TEMPORARY_PREFIX = "kds-"
# Calls that a packer answers beside those in which its students wait.
CALLS = 16


class Signals:
    """SIGINT and SIGTERM: the first ends the search in order, a second one at once."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`."""
        self._seen: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Turn the first signal into `Interrupted`, wherever it comes.

        Raised in the middle of Ray's compiled code it arrives as another exception, or not
        at all; hence the translation here and `check` for loops around Ray. Only a main thread
        can catch signals; a search in another one leaves them to whoever started it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._seen is not None:
            raise Interrupted(self._seen)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._seen is not None and not hasattr(sys, "ps1"):
            # Not in a notebook or a shell of Python, whose other results would go with it.
            os._exit(128 + signum)
        self._seen = signum
        raise Interrupted(signum)


class _CheckSignals(tune.Callback):
    """Look for a lost signal whenever Tune has done something."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._signals.check()


@contextmanager
def cluster(
    address: str | None,
    config: Config,
    *,
    data_bytes: int,
    folder: RunFolder,
    signals: Signals,
) -> Iterator[None]:
    """Join the cluster at ``address``, or start Ray on this machine and stop it again.

    Args:
        address: As Ray takes it, for example ``auto``; None for this machine alone.
        data_bytes: Size of what the trials share.
        signals: Put in charge again once Ray, which has handlers of its own, has started.
        folder: The run, which remembers Ray's temporary files for the case of a kill.

    Raises:
        UserError: There is no cluster at ``address``.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if ray.is_initialized():
        raise UserError(
            "Ray runs in this process already: call ray.shutdown() before, and name a cluster "
            "that is to be used by its address"
        )
    if address is not None:
        _check_reachable(address)
        try:
            ray.init(
                address=address, runtime_env=runtime_environment(config, _ENVIRONMENT), **quiet
            )
        except (ConnectionError, ValueError, TimeoutError) as error:
            raise UserError(f"--address {address}: no Ray cluster answers: {error}") from None
        try:
            with signals.caught():
                yield
        finally:
            ray.shutdown()
        return
    temporary = _own_temporary_folder(folder)
    try:
        ray.init(
            address="local",
            job_config=ray.job_config.JobConfig(_py_driver_sys_path=_own_code(config)),
            num_cpus=local_cpus(config),
            include_dashboard=False,
            object_store_memory=max(100 * MIB, 2 * data_bytes),
            _temp_dir=temporary,
            **quiet,
        )
        # Again: starting Ray put its own handler of SIGTERM in the place of ours.
        with signals.caught():
            yield
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)
        folder.forget_temporary()


def _own_code(config: Config) -> list[str]:
    """The folder that a method of the user's own was imported from, for this machine's workers.

    What is installed they find by themselves; other machines are sent it.
    """
    name = type(config.method).__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    if config.method_name in BUILT_IN or file is None or "site-packages" in Path(file).parts:
        return []
    depth = name.count(".") + (Path(file).name == "__init__.py")
    return [str(Path(file).resolve().parents[depth])]


def _check_reachable(address: str) -> None:
    """Ray would try for minutes where nobody listens."""
    host, colon, port = address.rpartition(":")
    if not colon or "//" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers: {error}") from None


def _own_temporary_folder(folder: RunFolder) -> str:
    """A new folder for Ray's files; that of a driver that was killed is removed first."""
    parent = Path(tempfile.gettempdir())
    before = folder.remembered_temporary()
    # The name comes from a file of the run folder: nothing but our own kind is removed.
    if re.fullmatch(TEMPORARY_PREFIX + r"\w{8}", before):
        shutil.rmtree(parent / before, ignore_errors=True)
    temporary = tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)
    folder.remember_temporary(Path(temporary).name)
    return temporary


def probe_storage(run: Place) -> None:
    """Refuse a run folder that some machine of the cluster cannot see.

    Raises:
        RunError: Names the machines.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(nodes) < 2:
        return
    look = ray.remote(num_cpus=0)(_sees)
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    answers = [
        look.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(str(run))
        for node in nodes
    ]
    blind = [
        node["NodeManagerAddress"]
        for node, sees in zip(nodes, ray.get(answers), strict=True)
        if not sees
    ]
    if blind:
        remedy = (
            "give them credentials for this bucket"
            if isinstance(run, BucketPath)
            else "put it on storage that all share, or in a bucket, with --runs-dir"
        )
        raise RunError(
            f"{run}: the machines {', '.join(blind)} cannot see this folder; {remedy}"
        )


def _sees(run: str) -> bool:
    try:
        return (place(run) / "search.yaml").is_file()
    except OSError:
        return False


def run_tune(
    inputs: TrialInputs,
    placement: Placement,
    ledger: Ledger,
    searcher: StudySearcher,
    scheduler: StudyScheduler,
    *,
    trials: int,
    scratch: Path,
    signals: Signals,
) -> None:
    """Run ``trials`` trials; what became of them is in their folders.

    Args:
        scratch: A folder for Tune's own files, which nobody reads; removed at the end.
    """
    config = inputs.config
    # Named, so that they stay in the object store for a packer that has to start again.
    shared = [_shared(inputs, kind) for kind in placement.kinds] if placement.packed else []
    packers = _start_packers(shared, placement, trials) if placement.packed else []
    if placement.packed:
        function = tune.with_parameters(train_in_packer, packers=packers)
        resources = {"cpu": THIN_CPUS}
    else:
        function = tune.with_parameters(train_student, inputs=inputs)
        resources = {"cpu": placement.main.cpus, "gpu": placement.main.gpus}
    trainable = tune.with_resources(function, resources)
    budget = config.search.time_budget_s
    shutil.rmtree(scratch, ignore_errors=True)
    _silence()
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=trials,
            max_concurrent_trials=placement.at_a_time,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            failure_config=tune.FailureConfig(max_failures=config.search.retries),
            callbacks=[_CheckSignals(signals), Retries(ledger)],
            stop=None if budget is None else TimeBudget(budget),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        for packer in packers:
            # Their processors and GPUs are needed for what follows.
            ray.kill(packer)
        shutil.rmtree(scratch, ignore_errors=True)


class _PackerActor(Packer):
    """A packer that fetches what all trials share itself: Ray may then start it again."""

    def __init__(self, shared: Sequence[Any], slots: int, expected: int) -> None:
        super().__init__(ray.get(shared[0]), slots, expected=expected)


def _shared(inputs: TrialInputs, kind: Processes) -> Any:
    return ray.put(replace(inputs, compute=kind.compute))


def _start_packers(shared: Sequence[Any], placement: Placement, trials: int) -> list[Any]:
    """An actor for each process of a search whose trials only wait; the fastest first."""
    packers = []
    for inputs, kind in zip(shared, placement.kinds, strict=True):
        actor = cast("Any", ray.remote(_PackerActor)).options(
            num_cpus=kind.cpus_of_packer,
            num_gpus=kind.gpus,
            # A student waits in one call, and others come and go meanwhile.
            max_concurrency=2 * kind.students + CALLS,
            max_restarts=-1,
        )
        expected = max(1, min(kind.students, trials // kind.count))
        packers += [actor.remote([inputs], kind.students, expected) for _ in range(kind.count)]
    return packers


def _silence() -> None:
    """Keep Tune's own messages out of the terminal; failures stand in the leaderboard."""
    for name in ("ray.tune", "ray.train", "ray._private", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
