# SPDX-License-Identifier: Apache-2.0
"""One Ray on this machine for all tests of the folder, with both applications on it."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.engine_ray import environment

PORT = 18431
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
"""Replicas load their policies from there."""

# What Ray raises about itself, and OpenPI's client about its websockets.
RAYS_WARNINGS = (
    "ignore:connect\\(\\) must be used as a context:DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning:ray.*",
    "ignore::FutureWarning:ray.*",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this folder time for Ray, and leave Ray its warnings."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))
            for warning in RAYS_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


class Cluster:
    """What a test does to the cluster."""

    def __init__(self) -> None:
        self.port = PORT
        self._serving = ""

    def serving(self, policy: str) -> None:
        """Have two replicas of a policy, whatever tests before this one left behind."""
        if self._serving != policy:
            self.deploy(policy)
        self.until(2, "policy", "policy")

    def deploy(self, policy: str, *, application: str = "policy", **options: Any) -> None:
        """Deploy a policy application, or roll out another policy; wait until it is there."""
        from ray import serve

        from pi05_websocket.engine_ray import apps

        settings = {"policy": f"numbered_policies:{policy}", "server": {"seed": 1}}
        options = {"num_replicas": 2, "ray_actor_options": {"num_cpus": 1}} | options
        serve.run(apps.policy_application(settings, **options), name=application, route_prefix=None)
        self._serving = policy if application == "policy" and "user_config" not in options else ""

    def deploy_ingress(self, *, version: str = "1", **settings: Any) -> None:
        """Deploy the ingress, change its settings, or replace it by one of another version."""
        from ray import serve

        from pi05_websocket.engine_ray import apps

        server = {"max_connections": 64} | settings.pop("server", {})
        made = apps.ingress_application(settings | {"server": server}, version=version)
        serve.run(made, name="ingress", route_prefix="/")

    def replicas(self, application: str, deployment: str) -> list[int]:
        """Process numbers of the replicas of a deployment that belong to this cluster."""
        title = f"ray::ServeReplica:{application}:{deployment}"
        return [pid for pid in _descendants(os.getpid()) if _title(pid).startswith(title)]

    def until(self, count: int, application: str, deployment: str) -> None:
        """Wait until so many replicas run."""
        from ray import serve

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            states = serve.status().applications[application].deployments[deployment].replica_states
            if (
                states == {"RUNNING": count}
                and len(self.replicas(application, deployment)) == count
            ):
                return
            time.sleep(0.25)
        raise AssertionError(f"no {count} replicas of {application}: {states}")


@pytest.fixture(scope="session", autouse=True)
def rays_environment() -> None:
    """What Ray reads when it is first imported, which any test of this folder may do, in any order."""
    environment.prepare(os.environ)
    os.environ["RAY_DEDUP_LOGS"] = "1"
    os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "2"


@pytest.fixture(scope="session")
def cluster(rays_environment: None) -> Iterator[Cluster]:
    """Ray Serve with two policy replicas and two ingress replicas."""
    path = [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray import serve

        ray.init(
            address="local",
            num_cpus=8,
            object_store_memory=200_000_000,
            include_dashboard=False,
            log_to_driver=False,
        )
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": PORT})
        made = Cluster()
        made.deploy("Numbered")
        made.deploy_ingress()
    yield made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        serve.shutdown()
        ray.shutdown()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0")
    except OSError:
        return ""


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                stat = (each / "stat").read_text()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(each.name)] = int(parent)
    found, edge = [], {root}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge}
        found += sorted(edge)
    return found
