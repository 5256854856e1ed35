# SPDX-License-Identifier: Apache-2.0
"""The two deployments as Ray Serve starts them: thin; what they do is in `replica`, `link` and `server.asgi`.

Each runs in a process of its own, on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ray import serve

from pi05_websocket.engine_ray.calls import ServeCalls
from pi05_websocket.engine_ray.config import IngressSettings, PolicySettings
from pi05_websocket.engine_ray.draining import until_replaced
from pi05_websocket.engine_ray.ejection import Replicas
from pi05_websocket.engine_ray.link import PolicyLink
from pi05_websocket.engine_ray.replica import PolicyReplica
from pi05_websocket.engine_ray.tickets import share
from pi05_websocket.server.asgi import CLOSE_SERVICE_RESTART, PolicyApp, refuse, requested_path
from pi05_websocket.server.asgi_connection import Receive, Send
from pi05_websocket.server.backend import Deliver
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.keys import Refusal

__all__ = ["Front", "Ingress", "PolicyDeployment"]

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class PolicyDeployment:
    """A replica of the policy application."""

    async def __init__(self, settings: PolicySettings) -> None:  # type: ignore[misc]  # Ray awaits it
        _log_to_ray()
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


@serve.ingress()
class Ingress:
    """A replica of the ingress application: an ASGI application for each policy application behind it."""

    def __init__(self, settings: IngressSettings) -> None:
        _log_to_ray()
        self._settings = settings
        self._config = replace(settings.server, encoded_images=False, deadlines=False)
        doorkeeper = Doorkeeper(self._config.keys)
        name = serve.get_replica_context().replica_tag
        self._apps = {
            application: self._app(application, name, doorkeeper)
            for application in set(settings.paths.values())
        }
        self._draining: asyncio.Task[None] | None = None

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
            self._look_for_the_end(scope)
        path = requested_path(scope)
        application = self._settings.application(path)
        if application is not None:
            await self._apps[application](scope, receive, send)
        elif scope["type"] == "http":
            await next(iter(self._apps.values()))(scope, receive, send)
        else:
            await receive()  # websocket.connect
            await refuse(self._no_such_path(), scope, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            for app in self._apps.values():
                app.start()
            await send({"type": f"{message['type']}.complete"})
        for app in self._apps.values():
            await app.drain(CLOSE_SERVICE_RESTART, "this ingress is being replaced")
        await send({"type": "lifespan.shutdown.complete"})

    def _app(self, application: str, name: str, doorkeeper: Doorkeeper) -> PolicyApp:
        link_settings = self._settings.link
        replicas = Replicas(
            eject_s=link_settings.eject_s, longest_eject_s=link_settings.longest_eject_s
        )
        share(application, replicas)
        links: list[PolicyLink] = []

        def backend(
            config: ServerConfig, deliver: Deliver, stopped: Callable[[], None]
        ) -> PolicyLink:
            calls = ServeCalls(application)
            links.append(
                PolicyLink(calls, replicas, link_settings, config, deliver, stopped, name=name)
            )
            return links[-1]

        return PolicyApp(
            backend,
            lambda: links[-1].metadata,
            config=self._config,
            doorkeeper=doorkeeper,
            reads_ahead=True,
            through_proxy=True,
        )

    def _no_such_path(self) -> Refusal:
        paths = ", ".join(sorted(self._settings.paths))
        return Refusal(
            404, f"There is no policy at this path; there are {paths}.\n", "no such path"
        )

    def _look_for_the_end(self, scope: Mapping[str, Any]) -> None:
        if self._draining is None and scope.get("server") is not None:
            host, port = scope["server"]
            self._draining = asyncio.get_running_loop().create_task(self._drain(host, port))

    async def _drain(self, host: str, port: int) -> None:
        await until_replaced(host, port)
        for app in self._apps.values():
            await app.drain(CLOSE_SERVICE_RESTART, "this ingress is being replaced")


def _log_to_ray() -> None:
    """Let our log go where Ray collects a worker's output: Serve's own keeps a thousand lines back."""
    ours = logging.getLogger("pi05_websocket")
    if not ours.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
