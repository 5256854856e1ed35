# SPDX-License-Identifier: Apache-2.0
"""The operations port: a web server on a thread and an event loop of its own.

A browser that reads slowly, or a scrape of a thousand numbers, takes its time here and not from the robots.
Needs the extra `ops`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pi05_websocket.errors import ConfigError
from pi05_websocket.ops.config import OpsConfig
from pi05_websocket.ops.watch import Operable, Watch
from pi05_websocket.ops.web import OpsPages
from pi05_websocket.server.app import why_not
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.own_certificate import with_its_files
from pi05_websocket.server.records import Listener
from pi05_websocket.server.tls import Certificate

__all__ = ["OpsPort"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0
_GOODBYE_S = 1
_MOST_CONNECTIONS = 64
_SILENT_S = 10.0
"""How long a client may take for its first request. Between two of them uvicorn waits five seconds."""


class _Connection(H11Protocol):
    """Keeps no place for a client that says nothing: uvicorn would, and answer others that it is full."""

    _silent_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; when there are too many, the one that has said nothing for longest goes."""
        super().connection_made(transport)
        self._silent_since = self.loop.time()
        self._closer = self.loop.call_later(_SILENT_S, self._end_if_silent)
        others = [other for other in self.connections if other is not self]
        silent = [other for other in others if isinstance(other, _Connection) and other._is_silent]
        if len(others) >= _MOST_CONNECTIONS - 1 and silent:
            min(silent, key=lambda other: other._silent_since)._end_if_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._closer.cancel()
        super().connection_lost(exc)

    @property
    def _is_silent(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _end_if_silent(self) -> None:
        if self._is_silent:
            self.connections.discard(self)  # now: its place is somebody else's
            self.transport.abort()


class _WebServer(uvicorn.Server):
    """Sleeps until it is told to end; uvicorn's own looks ten times a second whether it is to."""

    def __init__(
        self, config: uvicorn.Config, stop: asyncio.Event, stopping: asyncio.Event
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._stopping = stopping

    async def main_loop(self) -> None:
        """Wait for the end, and tell those who look."""
        await self._stop.wait()
        self._stopping.set()


class OpsPort:
    """Shows one server to people and to Prometheus.

    Args:
        config: Where, and who may.
        server_config: The server's: its certificate is used here too.
        policy: What is served, in a word, for people.

    Raises:
        ConfigError: The address is not safe, or a file cannot be read.
    """

    def __init__(self, config: OpsConfig, server_config: ServerConfig, *, policy: str) -> None:
        wrong = config.why_not_safe(server_config)
        if wrong is not None:
            raise ConfigError(wrong)
        self._config = config
        self._doorkeeper = Doorkeeper(config.ops_admin_key_file)
        # Whoever may come in has a key here; a browser seldom has a certificate.
        with_files, _ = with_its_files(server_config, config.ops_host)  # the server renews them
        self._certificate = Certificate(replace(with_files, tls_client_ca=None))
        self._watch = Watch(
            policy,
            can_act=config.ops_admin_key_file is not None,
            with_content=config.ops_images,
        )
        self.port = config.ops_port or 0
        """The TCP port; the one the system chose once it listens."""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def __repr__(self) -> str:
        state = "stopped" if self._thread is None else "listening"
        return f"<OpsPort {self.url} {state}>"

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        scheme = "http" if self._certificate.context is None else "https"
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}
        return f"{scheme}://{host.get(self._config.ops_host, self._config.ops_host)}:{self.port}/"

    @property
    def listener(self) -> Listener:
        """What the server is to tell its records."""
        return self._watch.listener

    def watch(self, server: Operable) -> None:
        """Begin to watch a server; until then it is not ready, because the policy is being loaded."""
        self._watch.serve(server)

    def start(self) -> Self:
        """Listen, on a thread of its own; return once it does.

        Raises:
            OSError: If the address cannot be listened on.
        """
        listening = _listen(self._config.ops_host, self.port)
        self.port = listening.getsockname()[1]
        ready: Future[None] = Future()

        def serve() -> None:
            try:
                with listening:
                    asyncio.run(self._run(listening, ready))
            except BaseException as exc:
                if ready.done():
                    logger.exception("the operations port failed; robots are served as ever")
                else:
                    ready.set_exception(exc)

        self._thread = threading.Thread(target=serve, name="pi05-ops", daemon=True)
        self._thread.start()
        ready.result()
        logger.info("operations at %s", self.url)
        return self

    def close(self) -> None:
        """Stop listening; wait until it has. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _run(self, listening: socket.socket, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        pages = OpsPages(self._watch, self._config, self._doorkeeper)
        server = self._web_server(pages)
        tasks = [
            self._loop.create_task(self._watch.keep_up()),
            self._loop.create_task(self._look_again_now_and_then()),
        ]
        ready.set_result(None)
        await server.serve(sockets=[listening])
        for task in tasks:
            task.cancel()

    def _web_server(self, pages: OpsPages) -> uvicorn.Server:
        config = uvicorn.Config(
            pages.application,
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_GOODBYE_S,
        )
        config.load()
        config.ssl = self._certificate.context  # ours is read again when its files change
        return _WebServer(config, self._stop, pages.stopping)

    async def _look_again_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            self._doorkeeper.look_again()
            self._certificate.look_again()


def _listen(host: str, port: int) -> socket.socket:
    """Open the socket.

    Raises:
        OSError: If the address cannot be listened on; says what to do.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server((str(address[0]), port), family=family)
    except OSError as exc:
        raise OSError(exc.errno, why_not(exc, host, port)) from None
