# SPDX-License-Identifier: Apache-2.0
"""The two applications, as `serve deploy` and `pi05-websocket serve --engine ray` make them.

In: settings, as maps in a Serve config file (`integrations/ray/serve.yaml`). Out: Serve applications.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray import serve
from ray.serve import Application

from pi05_websocket import __version__
from pi05_websocket.engine_ray.config import (
    FRONT_DEPLOYMENT,
    POLICY_DEPLOYMENT,
    IngressSettings,
    PolicySettings,
    settings_from,
)
from pi05_websocket.engine_ray.deployments import Front, Ingress, PolicyDeployment
from pi05_websocket.engine_ray.exposure import why_not_on_ray
from pi05_websocket.engine_ray.machines import own_addresses
from pi05_websocket.engine_ray.serve_state import serving
from pi05_websocket.errors import ConfigError

__all__ = ["ingress", "ingress_application", "policy", "policy_application"]

_POLICY: dict[str, Any] = {
    # Our planner queues; where Ray does, it polls with growing pauses and a third of the throughput is left.
    "max_ongoing_requests": 256,
    "max_queued_requests": 1024,
    "health_check_period_s": 5,
    # Shorter, and a healthy replica on a busy machine is taken for dead.
    "health_check_timeout_s": 10,
    "graceful_shutdown_timeout_s": 30,
    # A line for each observation is for nobody.
    "logging_config": {"enable_access_log": False},
    "request_router_config": {
        "request_router_class": "pi05_websocket.engine_ray.router:ReplicaRouter"
    },
}

_FRONT: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0}}

_INGRESS: dict[str, Any] = {
    "num_replicas": 2,
    # An open socket counts as a request; how many come in is our decision (`max_connections`).
    "max_ongoing_requests": 100_000,
    "health_check_period_s": 5,
    "health_check_timeout_s": 10,
    "graceful_shutdown_timeout_s": 60,
    "logging_config": {"enable_access_log": False},
    "ray_actor_options": {"num_cpus": 0.5},
}


def policy(args: dict[str, Any]) -> Application:
    """Make the policy application; for `import_path` in a config file, where Ray wants one parameter."""
    return policy_application(args)


def ingress(args: dict[str, Any]) -> Application:
    """Make the ingress application; likewise.

    With no `args` the settings stand in the `user_config` of its deployment, where Ray changes them in running
    replicas; each replica looks at them before it serves anybody.
    """
    return ingress_application(args) if args else _ingress(IngressSettings(), __version__, _host())


def policy_application(
    args: Mapping[str, Any], *, deployed_by: str = "", **options: Any
) -> Application:
    """Make the policy application.

    Args:
        args: See `PolicySettings`.
        deployed_by: Whose it is, see `IngressSettings.deployed_by`.
        options: Of the deployment, as Ray Serve knows them; a config file says them in `deployments`.

    Raises:
        ConfigError: Of a setting.
    """
    settings = settings_from(PolicySettings, args, "policy")
    made = serve.deployment(name=POLICY_DEPLOYMENT, **{**_POLICY, **options})
    whose = {"deployed_by": deployed_by}
    front = serve.deployment(name=FRONT_DEPLOYMENT, user_config=whose, **_FRONT)
    return front(Front).bind(made(PolicyDeployment).bind(settings))


def ingress_application(
    args: Mapping[str, Any], *, version: str = __version__, **options: Any
) -> Application:
    """Make the ingress application.

    Its settings go into the deployment's `user_config`, which Ray changes in running replicas: robots stay.
    Ray puts new replicas in the place of the old ones where `version` is another, and in the config file's way
    where `args` are others.

    Args:
        args: See `IngressSettings`.
        version: Of the code.
        options: Of the deployment.

    Raises:
        ConfigError: Of a setting, or others could reach it who should not.
    """
    settings, host = settings_from(IngressSettings, args, "ingress"), _host()
    wrong = why_not_on_ray(host, settings.server, {"this machine": own_addresses()})
    if wrong is not None:
        raise ConfigError(f"ingress: {wrong}")
    return _ingress(settings, version, host, **options)


def _host() -> str | None:
    """Return where Ray Serve listens; None: everywhere, as where it starts with the application."""
    running = serving()
    return None if running is None else running.host


def _ingress(
    settings: IngressSettings, version: str, host: str | None, **options: Any
) -> Application:
    made = serve.deployment(name="ingress", **{**_INGRESS, **options})(Ingress)
    made = made.options(user_config=asdict(settings), version=version, _internal=True)
    return made.bind(host)
