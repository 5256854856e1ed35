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
import contextlib
import socket
import struct
import sys
from typing import Final, Protocol

__all__ = ["KeepWarm", "Link", "needs_warmth", "unacknowledged"]

_EVERY_S: Final = 0.05
_FOR_S: Final = 10.0
"""An arm that moves asks more often; one that does not may begin slowly."""
_VANISHED_S: Final = 10.0
"""Nothing was acknowledged for as long: the path or the peer is gone. A busy server's kernel acknowledges."""

_FAR_S: Final = 0.005
"""A nearer server's kernel has opened its window again before it is noticed."""
_REMEMBERS: Final = ("bbr",)
"""Congestion controls that begin after a pause as they ended before it."""

_SIOCOUTQ: Final = 0x5411


class Link(Protocol):
    """What is kept warm."""

    def send_pong(self) -> None:
        """Send an empty pong."""

    def unacknowledged(self) -> int:
        """Return the bytes that the other kernel has not acknowledged."""

    def vanished(self, why: str) -> None:
        """End a connection that carries nothing any more."""


def needs_warmth(connect_s: float | None, congestion: str) -> bool:
    """Say whether a pause makes a connection slow.

    Args:
        connect_s: How long it took to open, about one round trip; None: not known.
        congestion: What its kernel uses; "" where it does not say.
    """
    far = connect_s is not None and connect_s > _FAR_S
    return far and bool(congestion) and not congestion.startswith(_REMEMBERS)


def unacknowledged(sock: socket.socket) -> int:
    """Return the bytes in a socket's send queue; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    import fcntl

    with contextlib.suppress(OSError, ValueError):  # it is closed
        said = fcntl.ioctl(sock.fileno(), _SIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", said)[0])
    return 0


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
        self._acknowledged_at = 0.0
        self._waiting = 0
        self._added = False

    def __repr__(self) -> str:
        return f"<KeepWarm {'working' if self._next is None else 'resting'}>"

    def rests(self) -> None:
        """Note that nothing is under way from now on."""
        if self._next is None:
            now = self._loop.time()
            self._until, self._acknowledged_at = now + _FOR_S, now
            self._waiting, self._added = 0, False
            self._next = self._loop.call_later(_EVERY_S, self._beat)

    def works(self) -> None:
        """Note that something is under way, or that the connection is over."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _beat(self) -> None:
        now, waiting = self._loop.time(), self._link.unacknowledged()
        # Over a long way some are always outstanding: as few as before, although one was added, is progress.
        if waiting < self._waiting or (self._added and waiting == self._waiting) or not waiting:
            self._acknowledged_at = now
        if now - self._acknowledged_at >= _VANISHED_S:
            self._next = None
            why = f"the server's machine has acknowledged nothing for {_VANISHED_S:g} s"
            self._link.vanished(why)
            return
        if not waiting and now >= self._until:
            self._next = None
            return
        self._waiting, self._added = waiting, now < self._until
        if self._added:
            self._link.send_pong()
        self._next = self._loop.call_later(_EVERY_S, self._beat)
