# SPDX-License-Identifier: Apache-2.0
"""The policy applications behind an ingress: an ASGI application for each, made, changed and drained together.

In: settings, one after the other. Out: who serves a path. On the event loop of an ingress; Ray is not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from pi05_websocket.engine_ray.config import IngressSettings, LinkSettings
from pi05_websocket.engine_ray.ejection import Replicas
from pi05_websocket.engine_ray.link import Calls, PolicyLink
from pi05_websocket.engine_ray.tickets import share
from pi05_websocket.server.asgi import PolicyApp
from pi05_websocket.server.asgi_connection import AsgiConnection
from pi05_websocket.server.backend import Deliver
from pi05_websocket.server.closing import CLOSE_SERVICE_RESTART
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.open_connections import OpenConnections

__all__ = ["Applications"]


@dataclass(slots=True)
class _Served:
    """A policy application, as this ingress sees it."""

    app: PolicyApp
    replicas: Replicas
    links: list[PolicyLink] = field(default_factory=list)
    """One, once the application is asked for anything."""


class Applications:
    """All of an ingress's, with one doorkeeper and one count of connections."""

    def __init__(self, calls: Callable[[str], Calls], *, name: str) -> None:
        """Prepare for settings.

        Args:
            calls: Returns what asks an application, by its name.
            name: This ingress's, unique in the cluster.
        """
        self.settings = IngressSettings()
        """Those that count now."""
        self._calls = calls
        self._name = name
        self._doorkeeper = Doorkeeper(None)
        self._connections: OpenConnections[AsgiConnection] = OpenConnections()
        self._served: dict[str, _Served] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def serving(self, path: str) -> PolicyApp | None:
        """Return what serves a path; None: nobody does."""
        application = self.settings.application(path)
        return None if application is None else self._served[application].app

    def any(self) -> PolicyApp:
        """Return one of them, for what is nobody's in particular."""
        return next(iter(self._served.values())).app

    def change(self, settings: IngressSettings) -> None:
        """Go over to settings, or stay as it was.

        Raises:
            ConfigError: The keys cannot be read.
            Exception: An application cannot be made.
        """
        config = replace(settings.server, encoded_images=False, deadlines=False)
        wanted = set(settings.paths.values())
        made: dict[str, _Served] = {}
        try:  # what can fail comes first
            for application in sorted(wanted - self._served.keys()):
                made[application] = self._made(application, settings.link, config)
            self._doorkeeper.change(config.keys)
        except BaseException:
            for served in made.values():
                self._task(served.app.drain())
            raise
        for application in self._served.keys() - wanted:
            gone = self._served.pop(application)
            self._task(gone.app.drain(CLOSE_SERVICE_RESTART, "there is no policy here any more"))
        for served in self._served.values():
            served.app.change(config)
            served.replicas.change(
                eject_s=settings.link.eject_s, longest_eject_s=settings.link.longest_eject_s
            )
            for link in served.links:
                link.change(settings.link, config)
        for application, served in made.items():
            share(application, served.replicas)
            self._served[application] = served
        self.settings = settings

    async def end(self) -> None:
        """Say goodbye to everybody: this ingress is being replaced."""
        for served in self._served.values():
            await served.app.drain(CLOSE_SERVICE_RESTART, "this ingress is being replaced")

    def _made(self, application: str, link_settings: LinkSettings, config: ServerConfig) -> _Served:
        replicas = Replicas(
            eject_s=link_settings.eject_s, longest_eject_s=link_settings.longest_eject_s
        )
        links: list[PolicyLink] = []

        def backend(
            config: ServerConfig, deliver: Deliver, stopped: Callable[[], None]
        ) -> PolicyLink:
            calls = self._calls(application)
            link = PolicyLink(
                calls, replicas, link_settings, config, deliver, stopped, name=self._name
            )
            links.append(link)
            return link

        app = PolicyApp(
            backend,
            lambda: links[-1].metadata,
            config=config,
            doorkeeper=self._doorkeeper,
            connections=self._connections,
            reads_ahead=True,
            through_proxy=True,
        )
        app.start()
        return _Served(app, replicas, links)

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
