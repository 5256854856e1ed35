# SPDX-License-Identifier: Apache-2.0
"""What Ray Serve says of itself: where it listens, whose an application is, with what the ingress runs.

In: nothing. Out: plain values; None where there is no such thing. Asks Serve's controller; Ray is imported
when it is asked. It uses what Ray does not promise to keep, so that nothing else has to: written against 2.60.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pi05_websocket.engine_ray.config import (
    FRONT_DEPLOYMENT,
    INGRESS_APPLICATION,
    IngressSettings,
    settings_from,
)
from pi05_websocket.errors import ConfigError

__all__ = ["Serving", "ingress_ports", "serving"]


class Serving:
    """A Ray Serve that runs."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"<Serving {self.host}:{self.port}>"

    @property
    def host(self) -> str | None:
        """Where its HAProxies listen, on each machine."""
        host: str | None = self._client.http_config.host
        return host

    @property
    def port(self) -> int:
        """At which port."""
        return int(self._client.http_config.port)

    def applications(self) -> dict[str, str]:
        """Return the name of each application, and who deployed it, see `IngressSettings.deployed_by`."""
        found = self._client.get_serve_details()["applications"]
        return {name: _deployed_by(each) for name, each in found.items()}

    def ingress(self) -> IngressSettings | None:
        """Return what the ingress runs with; None: there is none of ours, or it is of another version."""
        found = self._client.get_serve_details()["applications"].get(INGRESS_APPLICATION)
        said = None if found is None else _user_config(found, "ingress")
        if said is None:
            return None
        try:
            return settings_from(IngressSettings, said, "ingress")
        except ConfigError:
            return None


def serving() -> Serving | None:
    """Return the Ray Serve of the cluster to which this process is connected; None: there is none yet."""
    import ray

    if not ray.is_initialized():
        return None
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else Serving(client)


def ingress_ports() -> range:
    """Return the ports of which each ingress replica on a machine has one, by Ray's settings."""
    from ray.serve._private import constants

    return range(
        constants.RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT,
        constants.RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT + 1,
    )


def _deployed_by(application: Mapping[str, Any]) -> str:
    for deployment in ("ingress", FRONT_DEPLOYMENT):
        said = _user_config(application, deployment)
        if said is not None:
            return str(said.get("deployed_by", ""))
    return ""


def _user_config(application: Mapping[str, Any], deployment: str) -> Mapping[str, Any] | None:
    found = application["deployments"].get(deployment)
    said = None if found is None else found["deployment_config"].get("user_config")
    return said if isinstance(said, Mapping) else None
