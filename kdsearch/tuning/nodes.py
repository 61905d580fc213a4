"""Code and settings for the nodes of a cluster: kdsearch and the user's own method.

A node needs Python, Ray and torch of the same versions (an image, see ``deploy/``), but not
kdsearch: the driver's package is sent with the search, so that versions are always the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kdsearch
from kdsearch.config.space_file import BUILT_IN, Config

# Where Ray keeps what `ray job submit` was told, in the job's own process.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Where a bucket is; its keys must be on the nodes, since everyone who sees the cluster sees
# what travels with a search.
WHERE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


def runtime_environment(config: Config, settings: Iterable[str]) -> dict[str, Any]:
    """The runtime environment of a search's workers, as `ray.init` takes it.

    Inside of a job, what the job's own environment says stays.

    Args:
        settings: Names of further environment variables of this process that workers need.
    """
    names = [name for name in (*settings, *WHERE) if name in os.environ]
    environment: dict[str, Any] = {
        "py_modules": [str(Path(kdsearch.__file__).parent), *_own_method(config)],
        "excludes": ["__pycache__"],
        "env_vars": {name: os.environ[name] for name in names},
    }
    job = json.loads(os.environ.get(JOB_CONFIG) or "{}").get("runtime_env") or {}
    known = job.pop("env_vars", {})
    environment["env_vars"] = {
        name: value for name, value in environment["env_vars"].items() if name not in known
    }
    return {key: value for key, value in environment.items() if key not in job}


def _own_method(config: Config) -> list[str]:
    """The package or module of a method of the user's own, unless it is installed."""
    if config.method_name in BUILT_IN:
        return []
    package = config.method_name.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    path = origin.parent if spec.submodule_search_locations else origin
    installed = Path(sysconfig.get_path("purelib"))
    return [] if path.is_relative_to(installed) else [str(path)]
