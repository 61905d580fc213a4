"""How many processes fit on which machines, and how long other jobs are waited for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
from search_cases import space_file

from kdsearch.config.space_file import Config, parse_config
from kdsearch.errors import RunError, UserError
from kdsearch.methods.protocol import Compute
from kdsearch.tuning import placement
from kdsearch.tuning.placement import (
    SETTLE_S,
    WAIT_S,
    Node,
    placement_on,
    teachers_on,
    wait_for_room,
)

CPU, GPU = Compute("cpu", "fp32"), Compute("cuda", "fp32")


def config(max_concurrent: int | None = None, **resources: Any) -> Config:
    return parse_config(
        space_file(search={"max_concurrent": max_concurrent}, resources=resources), "kd.yaml"
    )


@pytest.mark.parametrize(
    ("nodes", "cpus", "compute", "processes"),
    [
        ([Node(2, 0)], 1, CPU, 2),
        ([Node(3, 0), Node(3, 0)], 2, CPU, 2),
        ([Node(0.5, 0), Node(0.5, 0), Node(1, 0)], 1, CPU, 1),
        ([Node(4, 0), Node(4, 8)], 1, GPU, 4),
        ([Node(16, 0), Node(2, 4)], 4, GPU, 0),
        ([Node(8, 2), Node(8, 1)], 1, GPU, 3),
    ],
)
def test_a_process_fits_on_one_machine_or_not_at_all(
    nodes: list[Node], cpus: int, compute: Compute, processes: int
) -> None:
    placement = placement_on(nodes, config(cpus_per_trial=cpus), compute, 3)
    assert [kind.count for kind in placement.kinds] == [processes]
    assert placement.at_a_time == 3 * processes


@pytest.mark.parametrize(
    ("most", "processes", "at_a_time"), [(None, 4, 8), (5, 3, 5), (8, 4, 8), (1, 1, 1)]
)
def test_no_more_processes_than_concurrent_trials_can_fill(
    most: int | None, processes: int, at_a_time: int
) -> None:
    placement = placement_on([Node(4, 0)], config(most), CPU, 2)
    assert placement.main.count == processes
    assert placement.at_a_time == at_a_time


def test_cpus_beside_gpus() -> None:
    nodes = [Node(4, 1), Node(2, 0), Node(1, 2)]
    placement = placement_on(nodes, config(device="all", precision="fp32"), GPU, 8)
    assert [(k.compute.device, k.count, k.students) for k in placement.kinds] == [
        ("cuda", 2, 8),
        ("cpu", 5, 1),
    ]
    assert placement.packed


@pytest.mark.parametrize(
    ("nodes", "compute", "members", "most", "cpus", "count"),
    [
        ([Node(0, 0), Node(8, 0), Node(2, 0)], CPU, 1, None, 8, 1),
        ([Node(8, 0), Node(2, 0)], CPU, 2, None, 4, 2),
        ([Node(8, 0), Node(2, 0)], CPU, 99, None, 2, 5),
        ([Node(8, 0), Node(2, 0)], CPU, 1, 2, 4, 1),
        ([Node(8, 0), Node(4, 3)], GPU, 1, None, 2, 1),
        ([Node(8, 0), Node(8, 3)], GPU, 4, None, 2, 3),
    ],
)
def test_teachers_have_as_many_cpus_as_all_can_have_or_a_gpu(
    nodes: list[Node], compute: Compute, members: int, most: int | None, cpus: int, count: int
) -> None:
    processes = teachers_on(nodes, config(most, cpus_per_trial=2), compute, members)
    assert (processes.compute, processes.cpus, processes.count) == (compute, cpus, count)


class Cluster:
    """Two machines of two CPUs; what is free changes with each look."""

    def __init__(self, *free: Sequence[Node]) -> None:
        self.said: list[str] = []
        self.slept = 0.0
        self._free = list(free)

    def wait(self, cpus: int = 2, gpus: int = 0) -> Sequence[Node]:
        machines = {"a": {"CPU": 2.0}, "b": {"CPU": 2.0}}
        with (
            mock.patch.object(placement, "total_resources", return_value=machines),
            mock.patch.object(placement, "available_resources", self._look),
            mock.patch.object(time, "sleep", self._sleep),
        ):
            return wait_for_room(cpus, gpus, self.said.append)

    def _look(self) -> dict[str, dict[str, float]]:
        free = self._free.pop(0) if len(self._free) > 1 else self._free[0]
        return {name: {"CPU": node.cpus} for name, node in zip("ab", free, strict=True)}

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_an_idle_cluster_is_not_waited_for() -> None:
    cluster = Cluster([Node(2, 0), Node(2, 0)])
    assert cluster.wait() == [Node(2, 0), Node(2, 0)]
    assert (cluster.slept, cluster.said) == (0.0, [])


def test_what_was_released_a_moment_ago_is_waited_for_in_silence() -> None:
    cluster = Cluster([Node(0, 0), Node(2, 0)], [Node(2, 0), Node(2, 0)])
    assert len(cluster.wait()) == 2
    assert cluster.slept < SETTLE_S
    assert cluster.said == []


def test_what_other_jobs_leave_is_enough() -> None:
    cluster = Cluster([Node(1, 0), Node(2, 0)])
    assert cluster.wait() == [Node(1, 0), Node(2, 0)]
    assert SETTLE_S <= cluster.slept <= 2 * SETTLE_S
    assert cluster.said == []


def test_other_jobs_are_waited_for_with_one_line() -> None:
    busy: list[Sequence[Node]] = [[Node(1, 0), Node(1, 0)]] * 50
    cluster = Cluster(*busy, [Node(2, 0), Node(0, 0)])
    assert cluster.wait() == [Node(2, 0), Node(0, 0)]
    assert cluster.said == ["waiting for 2 CPUs: other jobs use the cluster"]


def test_a_cluster_that_stays_full_ends_the_search() -> None:
    cluster = Cluster([Node(1, 0), Node(1, 0)])
    with pytest.raises(RunError, match="no room for 2 CPUs for 10 minutes; rerun"):
        cluster.wait()
    assert cluster.slept == WAIT_S


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (3, 0, "resources: cpus_per_trial=3, but the largest machine has 2 CPUs"),
        (1, 1, "resources: cpus_per_trial=1, but the largest machine with a GPU has 0 CPUs"),
    ],
)
def test_what_no_machine_holds_is_refused_at_once(cpus: int, gpus: int, message: str) -> None:
    cluster = Cluster([Node(2, 0), Node(2, 0)])
    with pytest.raises(UserError, match=message):
        cluster.wait(cpus, gpus)
    assert cluster.slept == 0.0
