# SPDX-License-Identifier: Apache-2.0
"""The two deployments as Ray Serve starts them: thin; what they do is in `replica` and `applications`.

Each runs in a process of its own, on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any

from ray import serve

from pi05_websocket.engine_ray.applications import Applications
from pi05_websocket.engine_ray.calls import ServeCalls
from pi05_websocket.engine_ray.config import (
    IngressSettings,
    LogLevel,
    PolicySettings,
    settings_from,
)
from pi05_websocket.engine_ray.draining import until_replaced
from pi05_websocket.engine_ray.exposure import why_not_on_ray
from pi05_websocket.engine_ray.machines import own_addresses
from pi05_websocket.engine_ray.replica import PolicyReplica
from pi05_websocket.engine_ray.serve_state import ingress_ports
from pi05_websocket.errors import ConfigError
from pi05_websocket.server.asgi import refuse, requested_path
from pi05_websocket.server.asgi_connection import Receive, Send
from pi05_websocket.server.keys import Refusal

__all__ = ["Front", "Ingress", "PolicyDeployment"]

logger = logging.getLogger(__name__)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class PolicyDeployment:
    """A replica of the policy application."""

    async def __init__(self, settings: PolicySettings) -> None:  # type: ignore[misc]  # Ray awaits it
        _log_to_ray(settings.log_level)
        self._replica = PolicyReplica(settings)
        await self._replica.begin()

    async def ask(self, payload: bytes | str, said: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        return await self._replica.ask(payload, said)

    async def describe(self) -> dict[str, Any]:
        """Say what the application is."""
        return self._replica.describe()

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Go over to another policy without a new process: `{"policy": ...}`."""
        await self._replica.change(user_config)

    async def check_health(self) -> None:
        """Fail when the policy is stuck."""
        self._replica.check_health()

    async def __del__(self) -> None:
        await self._replica.end()


class Front:
    """The first deployment of the policy application, which has nothing to do.

    Ray treats an application's first deployment as its ingress: it gives it an HTTP port, keeps it for a while
    when it is replaced, and does not let it have a router of ours.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def reconfigure(self, said: Mapping[str, Any]) -> None:
        """Nothing: whose the application is stands in the deployment for those who ask Ray."""


@serve.ingress()
class Ingress:
    """A replica of the ingress application: an ASGI application for each policy application behind it.

    Its settings come through `reconfigure`, at the start and when they change: nobody is disconnected for that.
    """

    def __init__(self, host: str | None) -> None:
        self._host = host
        self._applications = Applications(ServeCalls, name=serve.get_replica_context().replica_tag)
        _log_to_ray(self._applications.settings.log_level)
        self._ports = ingress_ports()
        self._watch: asyncio.Task[None] | None = None
        """Looks for the end, from the first robot on."""

    async def reconfigure(self, said: Mapping[str, Any]) -> None:
        """Go over to settings, see `IngressSettings`; where that fails everything stays as it was.

        Raises:
            ConfigError: They are none, or others could reach this who should not.
        """
        settings = settings_from(IngressSettings, said, "ingress")
        wrong = why_not_on_ray(self._host, settings.server, {"this machine": own_addresses()})
        if wrong is not None:
            raise ConfigError(f"ingress: {wrong}")
        self._applications.change(settings)
        _log_to_ray(settings.log_level)
        if settings.server.behind_proxy:
            logger.info("TLS ends at a proxy: what comes to this ingress is not encrypted")

    def __serve_build_asgi_app__(self) -> Any:
        """Give Ray Serve the ASGI application: a function, or uvicorn takes it for one of ASGI 2."""

        async def application(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
            await self.answer(scope, receive, send)

        return application

    async def answer(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one scope of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "websocket":
            if self._watch is None:
                self._watch = asyncio.get_running_loop().create_task(self._drain())
            self._tell_of_a_detour(scope)
        app = self._applications.serving(requested_path(scope))
        if app is not None:
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await self._applications.any()(scope, receive, send)
        else:
            await receive()  # websocket.connect
            await refuse(self._no_such_path(), scope, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self._applications.end()
        await send({"type": "lifespan.shutdown.complete"})

    def _no_such_path(self) -> Refusal:
        paths = ", ".join(sorted(self._applications.settings.paths))
        return Refusal(
            404, f"There is no policy at this path; there are {paths}.\n", "no such path"
        )

    async def _drain(self) -> None:
        await until_replaced(self._ports)
        await self._applications.end()

    def _tell_of_a_detour(self, scope: Mapping[str, Any]) -> None:
        server = scope.get("server")
        if server is not None and server[1] not in self._ports:
            logger.warning(
                "a client comes through a proxy of Ray's (port %s), because HAProxy knew no ingress replica "
                "when it connected; until it connects again each message takes 10 to 20 ms longer",
                server[1],
            )


def _log_to_ray(level: LogLevel) -> None:
    """Let our log go where Ray collects a worker's output: Serve's own keeps a thousand lines back."""
    ours = logging.getLogger("pi05_websocket")
    ours.setLevel(level.upper())
    if not ours.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        ours.addHandler(handler)
        ours.propagate = False
