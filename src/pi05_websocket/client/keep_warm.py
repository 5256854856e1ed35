# SPDX-License-Identifier: Apache-2.0
"""A connection that rests between two chunks stays as quick as it was: an empty pong every 50 ms.

A kernel forgets how much a path carries once nothing was sent for longer than a retransmission timeout, 200 ms
and more. The next observation then starts as slowly as the first: over 50 Mbit/s and 50 ms a resized one takes
twice as long. `tcp_slow_start_after_idle=0` says otherwise and is root's; BBR keeps what it knows; everybody
else may write six bytes now and then (RFC 6455, section 5.5.3: a pong that nobody asked for is not answered).

In: when exchanges are under way. Out: pongs while none is, for ten seconds. Runs on the connection's loop.
What nobody acknowledges tells of a peer that has vanished, sooner than TCP's own keepalive, which is silent
while bytes are outstanding.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from pi05_websocket.client.progress import Progress
from pi05_websocket.tcp_facts import Sent

__all__ = ["KeepWarm", "Link", "needs_warmth"]

_EVERY_S: Final = 0.05
_FOR_S: Final = 10.0
"""An arm that moves asks more often; one that does not may begin slowly."""
_VANISHED_S: Final = 10.0
"""Nothing was acknowledged for as long: the path or the peer is gone. A busy server's kernel acknowledges."""

_FAR_S: Final = 0.005
"""A nearer server's kernel has opened its window again before it is noticed."""
_REMEMBERS: Final = ("bbr",)
"""Congestion controls that begin after a pause as they ended before it."""


class Link(Protocol):
    """What is kept warm."""

    def send_pong(self) -> None:
        """Send an empty pong."""

    def sent(self) -> Sent:
        """Return what has become of what was sent."""

    def vanished(self, silent_s: float) -> None:
        """End a connection whose other kernel has acknowledged nothing for so many seconds."""


def needs_warmth(connect_s: float | None, congestion: str) -> bool:
    """Say whether a pause makes a connection slow.

    Args:
        connect_s: How long it took to open, about one round trip; None: not known.
        congestion: What its kernel uses; "" where it does not say.
    """
    far = connect_s is not None and connect_s > _FAR_S
    return far and bool(congestion) and not congestion.startswith(_REMEMBERS)


class KeepWarm:
    """Pongs of one connection.

    Args:
        link: The connection.
        loop: Its event loop.
    """

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._next: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._progress = Progress()

    def __repr__(self) -> str:
        return f"<KeepWarm {'working' if self._next is None else 'resting'}>"

    def rests(self) -> None:
        """Note that nothing is under way from now on."""
        if self._next is None:
            now = self._loop.time()
            self._until, self._progress = now + _FOR_S, Progress()
            self._next = self._loop.call_later(_EVERY_S, self._beat)

    def works(self) -> None:
        """Note that something is under way, or that the connection is over."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _beat(self) -> None:
        now, sent = self._loop.time(), self._link.sent()
        silent_s = self._progress.look(now, sent)
        if silent_s >= _VANISHED_S:
            self._next = None
            self._link.vanished(silent_s)
            return
        if not sent.in_flight and now >= self._until:
            self._next = None
            return
        if now < self._until:
            self._link.send_pong()
        self._next = self._loop.call_later(_EVERY_S, self._beat)
