# SPDX-License-Identifier: Apache-2.0
"""What one connection has waiting: when the server reads no further from it, and when it has to go. Pure.

In: requests that came and were answered, with their sizes. Out: whether there is room, why there is too much.
"""

from __future__ import annotations

from pi05_websocket.server.config import ServerConfig

__all__ = ["Backlog"]

_READ_AHEAD = 2
"""Times the bound that a client may have waiting where reading cannot be stopped."""


class Backlog:
    """Requests that are not answered, and their bytes."""

    def __init__(self, config: ServerConfig, *, reads_ahead: bool = False) -> None:
        """Begin with none.

        Args:
            config: The bounds.
            reads_ahead: Whether what is before us reads on, wanted or not: what it has read is in our memory,
                so the client can only be ended, not slowed down.
        """
        self._config = config
        self._reads_ahead = reads_ahead
        self.requests = 0
        self.nbytes = 0

    def __repr__(self) -> str:
        return f"<Backlog requests={self.requests} bytes={self.nbytes}>"

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read."""
        return self._reaches(1)

    def add(self, nbytes: int) -> str | None:
        """Note a request; say why its connection has to end, or None."""
        self.requests += 1
        self.nbytes += nbytes
        if self.requests > self._config.max_pipelined_requests:
            return f"more than {self._config.max_pipelined_requests} requests at once"
        if self._reads_ahead and self._reaches(_READ_AHEAD):
            limit = _READ_AHEAD * self._config.max_queued_requests
            return f"more than {limit} requests, or their bytes, wait unanswered"
        return None

    def remove(self, nbytes: int) -> None:
        """Note that one is answered."""
        self.requests -= 1
        self.nbytes -= nbytes

    def _reaches(self, times: int) -> bool:
        return (
            self.requests >= times * self._config.max_queued_requests
            or self.nbytes >= times * self._config.max_queued_bytes
        )
