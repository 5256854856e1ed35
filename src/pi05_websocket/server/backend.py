# SPDX-License-Identifier: Apache-2.0
"""What stands behind the sockets: a policy's thread, or other servers. And what it tells of its work.

The sockets hand over requests; whoever answers gives them back with an outcome, each connection's in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, runtime_checkable

from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.records import UpstreamStanding
from pi05_websocket.server.requests import Outcome, Request

__all__ = ["Backend", "BackendFactory", "Deliver", "Delivery", "Pausable", "Relaying"]

Delivery = Sequence[tuple[Request, Outcome]]
"""Outcomes that became known together, in the order in which they are to be sent."""

Deliver = Callable[[Delivery], None]
"""Hands outcomes to the event loop, from any thread, without waiting."""


class Backend(Protocol):
    """Answers requests. Called on the event loop; none of its methods waits."""

    @property
    def waiting(self) -> int:
        """How many requests wait for an answer and are not being worked on."""
        ...

    @property
    def unready(self) -> str | None:
        """Why nobody should come in now, as the end of a sentence; None: robots are welcome."""
        ...

    def waits(self) -> Sequence[float]:
        """Return how long each connection with something waiting has asked in vain, in seconds."""
        ...

    def start(self) -> None:
        """Begin."""

    def submit(self, request: Request, /) -> None:
        """Let a request wait for its turn."""

    def forget(self, connection: Hashable, /) -> None:
        """Drop what waits for a connection that is gone."""

    def refuse_overdue(self) -> None:
        """End the waiting of whoever has waited longer than the settings allow. Called a few times a second."""

    def stop(self) -> None:
        """Take nothing more; what is being worked on is still delivered. Then `stopped` is called, once."""


@runtime_checkable
class Pausable(Protocol):
    """A backend that can be kept from beginning anything new."""

    def pause(self) -> None:
        """Begin no inference until `go_on`. Who waits is refused when its time is over, as ever."""

    def go_on(self) -> None:
        """Begin again."""


@runtime_checkable
class Relaying(Protocol):
    """A backend for which other servers answer."""

    def states(self) -> Sequence[UpstreamStanding]:
        """Return how each of them stands."""
        ...


class BackendFactory(Protocol):
    """Makes the backend of one run of a server, on its event loop."""

    def __call__(
        self, config: ServerConfig, deliver: Deliver, stopped: Callable[[], None], /
    ) -> Backend:
        """Make it. `stopped` is called once, from any thread, when nothing more will be delivered."""
        ...
