# SPDX-License-Identifier: Apache-2.0
"""What whoever runs a server may want of it while it runs: to know how it is, pause, drain, disconnect.

Runs on the event loop; from other threads through `PolicyServer.operate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pi05_websocket.server.backend import Backend, Pausable, Relaying
from pi05_websocket.server.closing import CLOSE_GOING_AWAY
from pi05_websocket.server.connection import Connection
from pi05_websocket.server.keys import Refusal
from pi05_websocket.server.open_connections import OpenConnections
from pi05_websocket.server.records import DISCONNECTED, ServerState, UpstreamStanding

__all__ = ["Operator"]


class Operator:
    """One run's levers."""

    def __init__(
        self,
        backend: Backend,
        connections: OpenConnections[Connection],
        metadata: Callable[[], Mapping[str, Any]],
        no_room: Callable[[], Refusal | None],
    ) -> None:
        self._backend = backend
        self._connections = connections
        self._metadata = metadata
        self._no_room = no_room
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
        refusal = self._no_room()
        return ServerState(
            at=time.perf_counter(),
            unready=None if refusal is None else refusal.cause,
            paused=self.paused,
            draining=self.draining,
            can_pause=self._pausable is not None,
            waiting=self._backend.waiting,
            unanswered={connection.number: connection.waiting for connection in self._connections},
            metadata=self._metadata(),
            upstreams=self._upstreams(),
        )

    def _upstreams(self) -> tuple[UpstreamStanding, ...]:
        if not isinstance(self._backend, Relaying):
            return ()
        return tuple(self._backend.states())

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
