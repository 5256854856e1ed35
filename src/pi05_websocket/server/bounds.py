# SPDX-License-Identifier: Apache-2.0
"""How much of the server one stranger may take: open sockets, slow messages, floods of small frames. Pure.

In: addresses, what a connection did, monotonic seconds. Out: who may come in, who gives way, why one must go.
What a request may ask for is `wire.limits`, how often it may ask `rate`; here it is who has said nothing yet,
or says it in a way that costs more than it is worth.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.exposure import is_loopback
from pi05_websocket.server.rate import TokenBucket

__all__ = ["Admission", "Conduct", "Door", "neighbourhood", "too_much"]

T = TypeVar("T", bound=Hashable)

_SPARE = 64
"""Sockets beyond `max_connections`: so that a health check is answered, and a robot too many gets HTTP 503."""

_PER_ADDRESS = 64
"""Connections from one address where nothing else is said: a laboratory behind one router."""

_SMALL_FRAME = 1024
"""Bytes; a fragment below costs more to take than it brings."""

_IPV6_HOME = 64
"""Bits of an IPv6 address that are the network's: one customer has all addresses below."""


def neighbourhood(address: str) -> str:
    """Return who is behind an address: itself, for IPv6 its /64 network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_HOME), strict=False))
    return str(parsed)


def too_much(held: Mapping[T, int], most: int) -> list[T]:
    """Return who has to go so that the rest hold no more bytes than `most`: the largest, as few as possible."""
    excess = sum(held.values()) - most
    going: list[T] = []
    for who in sorted(held, key=held.__getitem__, reverse=True):
        if excess <= 0:
            break
        excess -= held[who]
        going.append(who)
    return going


@dataclass(frozen=True, slots=True)
class Admission:
    """What to do with a socket that has come."""

    number: int | None
    """Its number; None: it does not come in."""

    instead_of: int | None = None
    """The socket that has to go for it."""


class Door:
    """Counts open sockets, from before their handshakes to their ends.

    One that has not become a WebSocket yet gives way to a newer one where there is no room; a WebSocket never
    does. So sockets that say nothing keep nobody out, and nobody loses a connection to one that comes later.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._most = config.max_connections
        self._most_of_one = config.max_connections_per_address
        self._exempt_all = config.behind_proxy  # all come from the proxy's address
        self._open: dict[int, str] = {}
        self._unfinished: dict[int, str] = {}  # oldest first
        self._last = 0
        self.refused = 0
        """How many did not come in, or had to go for another."""

    def __repr__(self) -> str:
        return f"<Door open={len(self._open)} unfinished={len(self._unfinished)}>"

    @property
    def full(self) -> bool:
        """Whether as many WebSockets are open as may be."""
        return len(self._open) - len(self._unfinished) >= self._most

    def arrive(self, address: str) -> Admission:
        """Say whether a socket from this address may come in, and who goes for it."""
        who = neighbourhood(address)
        goes: int | None = None
        most_of_one = self._bound_of(address)
        if most_of_one is not None and self._count_of(who) >= most_of_one:
            goes = self._oldest_unfinished_of(who)
            if goes is None:
                self.refused += 1
                return Admission(None)
        elif len(self._open) >= self._most + _SPARE:
            # Of those who hold most: one stranger with many sockets gives way before many with one.
            crowd = Counter(self._unfinished.values()).most_common(1)
            goes = self._oldest_unfinished_of(crowd[0][0]) if crowd else None
            if goes is None:
                self.refused += 1
                return Admission(None)
        if goes is not None:
            self.refused += 1
            self.leave(goes)
        self._last += 1
        self._open[self._last] = self._unfinished[self._last] = who
        return Admission(self._last, goes)

    def finish(self, number: int) -> None:
        """Note that a socket has become a WebSocket."""
        self._unfinished.pop(number, None)

    def leave(self, number: int) -> None:
        """Note that a socket is closed. Safe to call twice."""
        self._unfinished.pop(number, None)
        self._open.pop(number, None)

    def _bound_of(self, address: str) -> int | None:
        """Return how many may come from there; None: tunnels and proxies end there, it is many people's."""
        if self._exempt_all:
            return None
        if self._most_of_one is not None:
            return self._most_of_one
        return None if is_loopback(address) else _PER_ADDRESS

    def _count_of(self, who: str) -> int:
        return sum(other == who for other in self._open.values())

    def _oldest_unfinished_of(self, who: str) -> int | None:
        return next((number for number, other in self._unfinished.items() if other == who), None)


class Conduct:
    """How one connection behaves. It answers with the reason to end it, or None."""

    def __init__(self, config: ServerConfig, now: float, received: int) -> None:
        """Begin.

        Args:
            config: The bounds.
            now: Monotonic seconds.
            received: Bytes that its socket has received so far.
        """
        self._config = config
        self._small = TokenBucket(config.max_small_frames_per_s, now)
        self._seen = received
        self._unfinished_since: float | None = None
        self._unread_since: float | None = None

    def __repr__(self) -> str:
        return f"<Conduct unfinished={self._unfinished_since} unread={self._unread_since}>"

    def small_frame(self, now: float) -> str | None:
        """Count a ping, pong or short fragment."""
        if self._small.take(now):
            return None
        return f"more than {self._config.max_small_frames_per_s} pings and short fragments a second"

    def fragment(self, nbytes: int, now: float) -> str | None:
        """Count a fragment of so many bytes."""
        return self.small_frame(now) if nbytes < _SMALL_FRAME else None

    def frame_taken(
        self, *, received: int, ended_a_message: bool, more_to_come: bool, now: float
    ) -> None:
        """Note a whole frame.

        Args:
            received: Bytes that the socket has received so far.
            ended_a_message: Whether it was a message's last; a ping is none.
            more_to_come: Whether part of a message is here: earlier fragments, or bytes after this frame.
            now: Monotonic seconds.
        """
        self._seen = received
        if not more_to_come:
            self._unfinished_since = None
        elif ended_a_message or self._unfinished_since is None:
            self._unfinished_since = now

    def writing(self, *, paused: bool, now: float) -> None:
        """Note that what was sent piles up, or that it has left."""
        self._unread_since = now if paused else None

    def unfinished(self, received: int) -> int:
        """Return how many bytes of a message that has not ended are here, by what the socket has received."""
        return received - self._seen

    def look(self, *, received: int, reading: bool, now: float) -> str | None:
        """Say what took too long. Ask now and then: what came since the last time counts from then.

        Args:
            received: Bytes that the socket has received so far.
            reading: Whether the server reads from it; while it does not, no message is late.
            now: Monotonic seconds.
        """
        if (
            self._unread_since is not None
            and now - self._unread_since > self._config.unread_timeout_s
        ):
            return f"did not read its replies for {self._config.unread_timeout_s:g} s"
        if not reading:
            self._unfinished_since = None if self._unfinished_since is None else now
        elif self._unfinished_since is None and received != self._seen:
            self._unfinished_since = now
        elif (
            self._unfinished_since is not None
            and now - self._unfinished_since > self._config.message_timeout_s
        ):
            return f"a message that took longer than {self._config.message_timeout_s:g} s to come"
        return None
