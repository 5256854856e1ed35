# SPDX-License-Identifier: Apache-2.0
"""A policy server on one event loop: listens, accepts, pings, and ends in good order.

Runs on the event loop it is started on; `request_stop` alone may be called from other threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import picows

from pi05_websocket.server.backend import BackendFactory
from pi05_websocket.server.closing import (
    CLOSE_GOING_AWAY,
    LOOK_AGAIN_S,
    STOP_GOODBYE_TIMEOUT_S,
)
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.connection import Connection
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.http import authorization_of, plain_response, refusal_response
from pi05_websocket.server.keys import Refusal
from pi05_websocket.server.listening import Gate
from pi05_websocket.server.open_connections import OpenConnections, close_out_of_bounds
from pi05_websocket.server.operator import Operator
from pi05_websocket.server.reception import Reception
from pi05_websocket.server.records import Listener
from pi05_websocket.server.tls import Certificate

__all__ = ["Service"]

logger = logging.getLogger(__name__)

# The WebSocket library reports every connection at INFO; ours says the same in our words.
_library_logger = logging.getLogger("pi05_websocket.server.picows")
_library_logger.setLevel(logging.WARNING)

_READ_BUFFER_BYTES = 2 * 1024 * 1024
# Holds the usual observation (1.1 MB), and two images of 640x480 pixels (1.8 MB), without growing.

_OVERDUE_S = 0.25
"""How often is looked whether a request has waited too long: the bound is seconds."""


class Service:
    """One run of a policy server, from listening to the last goodbye. Not reused."""

    def __init__(
        self,
        backend: BackendFactory,
        metadata: Callable[[], Mapping[str, Any]],
        config: ServerConfig,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Prepare on the running event loop.

        Raises:
            ConfigError: If the keys file or a certificate cannot be read.
        """
        self._loop = asyncio.get_running_loop()
        self._metadata = metadata
        self._config = config
        self._connections: OpenConnections[Connection] = OpenConnections(listeners)
        self._doorkeeper = Doorkeeper(config.keys)
        self._gate = Gate(config)
        self._certificate = Certificate(config)
        self._reception = Reception(
            config,
            self._doorkeeper,
            unready=lambda: self.operator.unready,
            full=lambda: self._gate.full,
            waits=lambda: self._backend.waits(),
            tell=self._connections.tell,
        )
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()
        self._backend = backend(
            config,
            lambda outcomes: self.call(self._reception.deliver, outcomes),
            lambda: self.call(self._drained.set),
        )
        self.operator = Operator(
            self._backend, self._connections, metadata, self._reception.no_room
        )
        """For whoever runs the server. On the event loop: see `call`."""

    async def run(self, host: str, port: int, listening: Callable[[int], None]) -> None:
        """Serve until `request_stop`; tell `listening` the port once clients can connect.

        Raises:
            OSError: If the address cannot be listened on.
        """
        context = self._certificate.context
        patience = self._config.handshake_timeout_s
        servers = [
            await picows.ws_create_server(
                self._accept,
                sock=sock,
                enable_auto_pong=False,  # pings count
                max_frame_size=self._config.max_message_bytes,
                read_buffer_init_size=_READ_BUFFER_BYTES,
                websocket_handshake_timeout=patience,
                logger_name=_library_logger,
                ssl=context,
                ssl_handshake_timeout=patience if context else None,
                ssl_shutdown_timeout=STOP_GOODBYE_TIMEOUT_S if context else None,
            )
            for sock in self._gate.listen(host, port)
        ]
        self._backend.start()
        tasks = [
            self._loop.create_task(self._ping_now_and_then()),
            self._loop.create_task(self._look_again_now_and_then()),
            self._loop.create_task(self._refuse_overdue_now_and_then()),
        ]
        try:
            listening(servers[0].sockets[0].getsockname()[1])
            await self._stop.wait()
            for server in servers:
                server.close()
            await self._finish_inference()
            await self._say_goodbye()
        finally:
            for task in tasks:
                task.cancel()
            for server in servers:
                server.close()
            self._backend.stop()
            self._connections.abort()

    def request_stop(self) -> None:
        """Ask the run to end, from any thread, without waiting. The second time it hurries."""
        self.call(self._stop_or_hurry)

    def call(self, callback: Callable[..., None], *args: Any) -> None:
        """Have the event loop call this, from any thread, without waiting."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)

    def _accept(self, request: Any) -> Any:
        response = plain_response(request)
        if response is not None:
            return picows.WSUpgradeResponseWithListener(response, None)
        if self._gate.full:
            self._gate.turn_away()
        guest = self._reception.admit(
            path=request.path.decode("ascii", "replace"),
            authorization=authorization_of(request),
            forwarded=request.headers.getall("X-Forwarded-For", []),
        )
        if isinstance(guest, Refusal):
            return picows.WSUpgradeResponseWithListener(refusal_response(guest), None)
        return Connection(
            self._metadata(),
            self._config,
            self._backend,
            self._connections,
            doorkeeper=self._doorkeeper,
            gate=self._gate,
            key=guest.key,
            path=guest.path,
            forwarded=guest.forwarded,
        )

    async def _ping_now_and_then(self) -> None:
        while self._config.ping_interval_s:
            await asyncio.sleep(self._config.ping_interval_s)
            self._connections.ping()

    async def _look_again_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            self._doorkeeper.look_again()
            self._certificate.look_again()
            self._connections.close_unwelcome()
            close_out_of_bounds(self._connections, self._config.max_held_bytes)
            self._gate.tell()

    async def _refuse_overdue_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_OVERDUE_S)
            if self._backend.waiting:
                self._backend.refuse_overdue()

    async def _finish_inference(self) -> None:
        self._backend.stop()
        try:
            async with asyncio.timeout(self._config.stop_timeout_s):
                await self._drained.wait()
        except TimeoutError:
            logger.warning("the inference under way did not end in time; its client gets no reply")

    async def _say_goodbye(self) -> None:
        self._connections.close(CLOSE_GOING_AWAY, "the server is stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_GOODBYE_TIMEOUT_S):
                await self._connections.all_gone()

    def _stop_or_hurry(self) -> None:
        if self._stop.is_set():
            self._drained.set()
        self.operator.stopping = True
        self._stop.set()
