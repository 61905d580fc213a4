"""Several Ray nodes on this machine: one is lost, one joins, one cannot see the run folder."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from faulty import TEACHER
from promises import study_in_journal
from ray.cluster_utils import Cluster
from workplace import ROOT, Done, Workplace

MIB = 2**20
NODE = {"num_cpus": 1, "object_store_memory": 80 * MIB}


@pytest.fixture
def cluster(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs of its own and two workers of one CPU, with their own files."""
    place.space.write_text(place.space.read_text().replace(", max_concurrent: 1", ""))
    for key, value in place._environment().items():
        monkeypatch.setenv(key, value)
    head = {**NODE, "num_cpus": 0, "temp_dir": str(place.temporary / "ray")}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def search_on(cluster: Any, place: Workplace, *flags: str) -> Done:
    """In a process of its own: this one's Ray is the cluster's."""
    space = ("--space", str(place.space), "--runs-dir", str(place.run.parent))
    return place.script("run_search.py", *space, "--address", cluster.address, *flags)


def held(place: Workplace, epochs: int) -> dict[str, str]:
    """What lets a node, which starts with it, compute so many epochs until `go_on`."""
    return {"FAULTY_AFTER": str(place.path / "go on"), "FAULTY_HOLD": str(epochs)}


def teachers(place: Workplace) -> list[tuple[str, str]]:
    """The node and the process of each teacher whose training began or continued."""
    log = place.path / "epochs.log.teachers"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(node, process) for node, process in (line.split() for line in lines)]


def test_an_ensemble_trains_side_by_side_and_sigterm_saves_its_epochs(
    place: Workplace, cluster: Any
) -> None:
    space = place.space.read_text()
    place.space.write_text(space.replace("latent: 4, epochs: 2", "members: 2, epochs: 4"))
    for node in ("one", "two"):
        slow = {"FAULTY_PAUSE_S": "0.5", "FAULTY_NODE": node}
        cluster.add_node(**NODE, env_vars={**held(place, 3), **slow})
    cluster.wait_for_nodes()
    place.environment["KDSEARCH_GRACE_S"] = "600"
    flags = ("--num-samples", "1", "--address", cluster.address)
    process = place.start(*flags)
    # Of 8 epochs only 3 are computed; neither teacher ends.
    place.wait_for(lambda: {node for node, _ in teachers(place)} == {"one", "two"})
    place.wait_for_epochs(3)
    process.send_signal(signal.SIGTERM)
    place.go_on()
    assert process.wait(timeout=600) == 128 + signal.SIGTERM
    assert sum(place.epochs().values()) < 8
    done = place.script("run_search.py", *place._flags(flags), "--resume")
    assert done.returncode == 0, done.stderr
    computed = place.epochs()
    assert [computed[(-1, epoch)] for epoch in range(1, 5)] == [2, 2, 2, 2]
    assert "teacher 2 of 2 epoch 4/4: val_auc" in done.stderr


def test_lost_teacher_lost_node_and_new_node(place: Workplace, cluster: Any) -> None:
    """What trained there continues on another one, and the driver lives."""
    # Of the teacher 2 and one more, the trials 5.
    env = {**held(place, 8), "FAULTY_NODE": "one", "FAULTY_PLAN": '{"-1": ["kill", 2, 1]}'}
    first, _second = (cluster.add_node(**NODE, env_vars=env) for _ in range(2))
    cluster.wait_for_nodes()
    process = place.start("--address", cluster.address)
    place.wait_for_held()
    cluster.remove_node(first, allow_graceful=False)
    cluster.add_node(**NODE)
    place.go_on()
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    assert [node for node, _ in teachers(place)] == ["one", "one"]
    rows = place.trials()
    assert sorted(row["trial"] for row in rows) == list(range(6))
    assert {row["state"] for row in rows} <= {"completed", "stopped"}
    computed = place.epochs()
    assert (computed.pop((-1, 1)), computed.pop((-1, 2))) == (1, 2)
    twice = sum(count - 1 for count in computed.values())
    assert twice <= 1, f"the lost trial went on from its checkpoint: {computed}"


def test_gpus_and_cpus_in_one_search(place: Workplace, cluster: Any) -> None:
    """Two places beside each other on the node with a GPU, and one on the node without.

    The teacher trains on the node with the GPU.
    """
    text = place.space.read_text().replace("FaultyBeatGan", "AnywhereBeatGan")
    resources = "device: all, students_per_gpu: 2"
    place.space.write_text(
        text.replace("device: cpu", resources).replace("name: asha", "name: none")
    )
    # Students wait for each other.
    cluster.add_node(**NODE, num_gpus=1, env_vars={**held(place, 2), "FAULTY_NODE": "gpu"})
    cluster.add_node(**NODE, env_vars=held(place, 2))
    cluster.wait_for_nodes()
    process = place.start("--address", cluster.address)
    place.wait_for_held()
    stacks, wanted = place.path / "epochs.log.devices", {"teacher cuda", "cuda 2", "cpu 1"}
    place.wait_for(lambda: wanted <= set(stacks.read_text().splitlines()))
    place.go_on()
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    assert [node for node, _ in teachers(place)] == ["gpu"]
    assert "teacher epoch 2/2: val_auc" in err
    assert {row["state"] for row in place.trials()} == {"completed"}


def test_other_jobs_on_the_cluster(place: Workplace, cluster: Any) -> None:
    """They have both CPUs at the start, and keep one: students train in one process."""
    text = place.space.read_text().replace("device: cpu", "device: cpu, students_per_cpu: 2")
    place.space.write_text(text)
    cluster.add_node(**{**NODE, "num_cpus": 2})
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
    try:
        jobs = [ray.util.placement_group([{"CPU": 1}]) for _ in range(2)]
        assert all(job.wait(600) for job in jobs)
        process = place.start("--address", cluster.address)
        log = place.run / "search.log"
        waiting = "waiting for 1 CPU: other jobs use the cluster"
        place.wait_for(lambda: log.exists() and waiting in log.read_text())
        ray.util.remove_placement_group(jobs[0])
        _, err = process.communicate(timeout=1200)
    finally:
        ray.shutdown()
    assert process.returncode == 0, err
    assert waiting in err
    assert "1 processes train students; other jobs have the room for 1 more" in err
    assert {row["state"] for row in place.trials()} <= {"completed", "stopped"}
    lines = (place.path / "epochs.log").read_text().splitlines()
    assert len({line.split()[3] for line in lines if not line.startswith("-1")}) == 1


def test_no_cluster_at_the_address(place: Workplace) -> None:
    done = place.search("--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def blind_node(place: Workplace, cluster: Any) -> Iterator[None]:
    """A node whose view of the runs folder is an empty disk."""
    runs = place.run.parent
    runs.mkdir()
    ray = Path(sys.executable).with_name("ray")
    with node_of_its_own(cluster, [str(ray)], hidden=[runs], environment=dict(os.environ)):
        yield


@contextmanager
def node_of_its_own(
    cluster: Any, ray: list[str], *, hidden: list[Path], environment: dict[str, str]
) -> Iterator[None]:
    """A node that finds empty disks in the place of some folders."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here to give a node its own view of the disk")
    mounts = [f"mount -t tmpfs none {folder}" for folder in hidden]
    memory = f"--object-store-memory={80 * MIB}"
    start = shlex.join(
        [*ray, "start", f"--address={cluster.address}", "--num-cpus=1", memory, "--block"]
    )
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", " && ".join([*mounts, f"exec {start}"])],
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd="/",
    )
    try:
        yield
    finally:
        family = psutil.Process(node.pid).children(recursive=True)
        for process in [*family, psutil.Process(node.pid)]:
            process.kill()
        node.wait()


@pytest.mark.usefixtures("blind_node")
def test_run_folder_that_a_node_cannot_see(place: Workplace, cluster: Any) -> None:
    cluster.wait_for_nodes()
    place.wait_for(lambda: _alive(cluster) == 2)
    done = search_on(cluster, place)
    assert done.returncode == 2, done.stderr
    assert "cannot see this folder" in done.stderr
    assert not list((place.run / "trials").glob("*")), "it says so before anything is trained"


@pytest.fixture
def bare_slow_node(place: Workplace, cluster: Any) -> Iterator[None]:
    """A node without kdsearch, without the method and without a cache, and slow."""
    python = place.temporary / "bare" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(place.temporary / "bare")],
        check=True,
    )
    # Packages that are installed as such, but not what an editable install points to.
    (site,) = (place.temporary / "bare").glob("lib/*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {
        **place._environment(),
        "KDSEARCH_CACHE": str(place.path / "empty"),
        "FAULTY_LOG": str(place.path / "slow.log"),
        "FAULTY_PAUSE_S": "2",
    }
    del environment["PYTHONPATH"]
    with node_of_its_own(
        cluster,
        [str(python), "-m", "ray.scripts.scripts"],
        hidden=[ROOT / "kdsearch", ROOT / "tests"],
        environment=environment,
    ):
        yield


@pytest.mark.usefixtures("bare_slow_node")
def test_bare_slow_node(place: Workplace, cluster: Any) -> None:
    """It is sent code and data, and its trials hold back nobody else's."""
    # One node after the other: Ray gives up a node that takes too long to start.
    place.wait_for(lambda: _alive(cluster) == 2)
    # The bare node needs a while to begin, and is to find trials left.
    begun = {
        "FAULTY_PAUSE_S": "0.2",
        "FAULTY_AFTER": str(place.path / "slow.log.students"),
        # Of each student, not of the teacher, which trains on either node.
        "FAULTY_HOLD_EACH": "0",
    }
    cluster.add_node(**NODE, env_vars=begun)
    place.wait_for(lambda: _alive(cluster) == 3)
    done = search_on(cluster, place, "--num-samples", "9")
    assert done.returncode == 0, done.stderr
    slow = {int(line.split()[0]) for line in (place.path / "slow.log").open()} - {TEACHER}
    assert slow, "the bare node trained something"
    assert not (place.path / "empty").exists(), "from what it was sent, not from a cache"
    trials = study_in_journal(place).get_trials()
    assert len(trials) == 9
    assert len(slow) <= 4, "the other did not wait for it"
    assert {"COMPLETE", "PRUNED"} >= {trial.state.name for trial in trials}


def _alive(cluster: Any) -> int:
    return len([node for node in cluster.global_state.node_table() if node["Alive"]])
