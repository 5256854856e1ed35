# SPDX-License-Identifier: Apache-2.0
"""What whoever runs a server may want of it while it runs: to know how it is, pause, drain, disconnect.

Runs on the event loop; from other threads through `PolicyServer.operate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pi05_websocket.server.backend import Backend, Pausable
from pi05_websocket.server.connection import CLOSE_GOING_AWAY, OpenConnections

__all__ = ["DISCONNECTED", "Operator", "ServerState"]

DISCONNECTED = "an operator has disconnected this robot"
"""Why a connection ended that `disconnect` closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """How a server is."""

    at: float
    """`time.perf_counter()` on the event loop."""

    unready: str | None
    """Why nobody is let in, as the end of a sentence; None: robots are welcome."""

    paused: bool
    draining: bool
    can_pause: bool

    waiting: int
    """Requests that wait and are not being worked on."""

    unanswered: Mapping[int, int]
    """Number of each connection to how many of its requests are not answered yet."""

    metadata: Mapping[str, Any]
    """What a client that comes now is told."""


class Operator:
    """One run's levers."""

    def __init__(
        self,
        backend: Backend,
        connections: OpenConnections,
        metadata: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._backend = backend
        self._connections = connections
        self._metadata = metadata
        self._pausable = backend if isinstance(backend, Pausable) else None
        self.paused = False
        self.draining = False
        self.stopping = False

    def __repr__(self) -> str:
        return f"<Operator {self.unready or 'ready'}>"

    @property
    def unready(self) -> str | None:
        """Why nobody should come in now, as the end of a sentence; None: robots are welcome."""
        if self.stopping:
            return "it is stopping"
        if self.draining:
            return "it is being drained: who is here stays, nobody else comes in"
        if self.paused:
            return "an operator has paused it"
        return self._backend.unready

    def state(self) -> ServerState:
        """Return how the server is."""
        return ServerState(
            at=time.perf_counter(),
            unready=self.unready,
            paused=self.paused,
            draining=self.draining,
            can_pause=self._pausable is not None,
            waiting=self._backend.waiting,
            unanswered={connection.number: connection.waiting for connection in self._connections},
            metadata=self._metadata(),
        )

    def pause(self, *, on: bool) -> None:
        """Let no inference begin, or again. Who is here is told `busy`, or waits; nobody else comes in."""
        if self._pausable is not None:
            self.paused = on
            (self._pausable.pause if on else self._pausable.go_on)()

    def drain(self, *, on: bool) -> None:
        """Let nobody else in, or again. Who is here stays."""
        self.draining = on

    def disconnect(self, number: int) -> None:
        """Say goodbye to one client, if it is still there. Nothing keeps it from coming back."""
        for connection in self._connections:
            if connection.number == number:
                connection.close(CLOSE_GOING_AWAY, DISCONNECTED)
