"""What deploy/ holds: against Ray's schema, KubeRay's fields and our commands' options."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from kdsearch.cli.main import parser

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
)
# KubeRay 1.5, ray.io/v1: fields of a RayJob and of what is in it; those that it requires.
FIELDS = {
    "job": (
        {
            *(
                "activeDeadlineSeconds",
                "backoffLimit",
                "rayClusterSpec",
                "submitterPodTemplate",
            ),
            *("metadata", "clusterSelector", "submitterConfig", "managedBy", "entrypoint"),
            *("deletionStrategy", "runtimeEnvYAML", "jobId", "submissionMode", "suspend"),
            *("entrypointResources", "entrypointNumCpus", "entrypointNumGpus"),
            *("ttlSecondsAfterFinished", "shutdownAfterJobFinishes"),
        },
        {"entrypoint", "rayClusterSpec"},
    ),
    "cluster": (
        {
            *("headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling"),
            *("autoscalerOptions", "headServiceAnnotations", "suspend", "authOptions"),
        },
        {"headGroupSpec"},
    ),
    "head": (
        {"serviceType", "headService", "enableIngress", "rayStartParams", "template"},
        {"rayStartParams", "template"},
    ),
    "worker": (
        {
            *("groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts"),
            *("rayStartParams", "template", "scaleStrategy", "suspend"),
        },
        {"groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"},
    ),
}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return content


@pytest.fixture
def job() -> dict[str, Any]:
    return read("rayjob.yaml")


def test_the_cluster_keeps_to_rays_schema():
    cluster = read("ray-cluster.yaml")
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    workers = len(cluster["provider"]["worker_ips"])
    assert prepared["available_node_types"]["local.cluster.node"]["max_workers"] == workers


def test_the_job_has_kuberays_fields_alone(job: dict[str, Any]):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    parts = [("job", job["spec"]), ("cluster", cluster), ("head", cluster["headGroupSpec"])]
    parts += [("worker", group) for group in cluster["workerGroupSpecs"]]
    for kind, part in parts:
        known, required = FIELDS[kind]
        assert required <= set(part) <= known, kind
    for _, part in parts[2:]:
        # Kubernetes takes texts there, and Ray reads them.
        assert all(isinstance(value, str) for value in part["rayStartParams"].values())
        (container,) = part["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_one_image_of_the_pinned_ray(job: dict[str, Any]):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert images == {read("ray-cluster.yaml")["docker"]["image"]}
    assert cluster["rayVersion"] == PINNED["ray"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"rayproject/ray:{PINNED['ray']}-py311" in dockerfile
    assert f"torch=={PINNED['torch']}" in dockerfile
    assert f"-t {images.pop()} " in dockerfile


def test_what_the_image_copies_is_there_and_not_ignored():
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    for line in re.findall(
        r"^COPY --chown=\S+ (.*)$", (DEPLOY / "Dockerfile").read_text(), re.M
    ):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignore, source


def test_the_commands_are_taken(job: dict[str, Any]):
    launcher = (DEPLOY / "ray-cluster.yaml").read_text()
    (command,) = re.findall(r"\"(kdsearch search .*?)\"", launcher)
    for call in (command, job["spec"]["entrypoint"]):
        program, *arguments = shlex.split(call)
        assert program == "kdsearch"
        options = parser(program).parse_args(arguments)
        assert options.address == "auto"
    assert options.resume == "auto", "a job that is tried again continues"
