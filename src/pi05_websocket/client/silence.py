# SPDX-License-Identifier: Apache-2.0
"""Ends a connection that carries nothing any more, sooner than TCP or a request's own limit would.

In: when something is under way. Out: `vanished`, once. Runs on the connection's loop; decides by `progress`.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from pi05_websocket.client.progress import Patience, Progress
from pi05_websocket.tcp_facts import Sent

__all__ = ["SilenceWatch", "Watched"]

_LOOK_S: Final = 0.1


class Watched(Protocol):
    """What is looked at."""

    @property
    def round_trip_s(self) -> float:
        """Seconds of a round trip; 0 where that is not known."""

    def sent(self) -> Sent:
        """Return what has become of what was sent."""

    def vanished(self, silent_s: float) -> None:
        """End a connection whose other kernel has acknowledged nothing for so many seconds."""


class SilenceWatch:
    """Looks at one connection.

    Args:
        link: The connection.
        loop: Its event loop.
        patience: How long it may be silent; outlives the connection.
    """

    def __init__(self, link: Watched, loop: asyncio.AbstractEventLoop, patience: Patience) -> None:
        self._link = link
        self._loop = loop
        self._patience = patience
        self._progress = Progress()
        self._next: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<SilenceWatch {'resting' if self._next is None else 'looking'}>"

    def works(self) -> None:
        """Note that something is under way."""
        if self._next is None:
            self._progress = Progress()
            self._look()

    def rests(self) -> None:
        """Note that nothing is under way, or that the connection is over."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self._next = None
        silent_s = self._progress.look(self._loop.time(), self._link.sent())
        if silent_s >= self._patience.limit_s(self._link.round_trip_s):
            self._patience.renewed()
            self._link.vanished(silent_s)
        else:
            self._next = self._loop.call_later(_LOOK_S, self._look)
