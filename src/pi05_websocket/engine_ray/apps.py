# SPDX-License-Identifier: Apache-2.0
"""The two applications, as `serve deploy` and `pi05-websocket serve --engine ray` make them.

In: settings, as maps in a Serve config file (`integrations/ray/serve.yaml`). Out: Serve applications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from pi05_websocket.engine_ray.config import (
    POLICY_DEPLOYMENT,
    IngressSettings,
    PolicySettings,
    settings_from,
)
from pi05_websocket.engine_ray.deployments import Front, Ingress, PolicyDeployment

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
    """Make the ingress application; likewise."""
    return ingress_application(args)


def policy_application(args: Mapping[str, Any], **options: Any) -> Application:
    """Make the policy application.

    Args:
        args: See `PolicySettings`.
        options: Of the deployment, as Ray Serve knows them; a config file says them in `deployments`.

    Raises:
        ConfigError: Of a setting.
    """
    settings = settings_from(PolicySettings, args, "policy")
    made = serve.deployment(name=POLICY_DEPLOYMENT, **{**_POLICY, **options})
    front = serve.deployment(name="front", **_FRONT)
    return front(Front).bind(made(PolicyDeployment).bind(settings))


def ingress_application(args: Mapping[str, Any], **options: Any) -> Application:
    """Make the ingress application.

    Args:
        args: See `IngressSettings`.
        options: Of the deployment.

    Raises:
        ConfigError: Of a setting.
    """
    settings = settings_from(IngressSettings, args, "ingress")
    return serve.deployment(name="ingress", **{**_INGRESS, **options})(Ingress).bind(settings)
