# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of a TCP connection and sockets do not say: Linux's `struct tcp_info`.

In: a socket. Out: counts, zeros where the system does not tell, or the connection is gone; a time.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from typing import Any, Final, NamedTuple

__all__ = ["Sent", "bytes_received", "round_trip_s", "sent"]

_UNACKED: Final = 24
"""Offset of `tcpi_unacked`: 8 bytes and four words precede it."""
_RTT: Final = 68
"""Offset of `tcpi_rtt`, microseconds."""
_BYTES_ACKED: Final = 120
"""Offset of `tcpi_bytes_acked`: 8 bytes, 24 words, two numbers of 64 bits."""
_BYTES_RECEIVED: Final = 128
"""Offset of `tcpi_bytes_received`, which follows."""


class Sent(NamedTuple):
    """What has become of what was sent."""

    in_flight: int
    """Segments on the way, or lost: the other kernel has not acknowledged them. None of those that wait here
    because that kernel has no room: its program does not read, and yet it is there."""

    acknowledged: int
    """Bytes that the other kernel has acknowledged, since the connection was opened."""


def sent(sock: Any) -> Sent:
    """Return what has become of what a socket has sent."""
    facts = _facts(sock, _BYTES_ACKED + 8)
    if not facts:
        return Sent(0, 0)
    (in_flight,) = struct.unpack_from("=I", facts, _UNACKED)
    (acknowledged,) = struct.unpack_from("=Q", facts, _BYTES_ACKED)
    return Sent(int(in_flight), int(acknowledged))


def round_trip_s(sock: Any) -> float:
    """Return a connection's round trip as its kernel sees it, smoothed; infinity where it does not say.

    Unlike the time that opening took: that contains every second a lost SYN had to be waited for.
    """
    facts = _facts(sock, _RTT + 4)
    microseconds = struct.unpack_from("=I", facts, _RTT)[0] if facts else 0
    return microseconds / 1e6 if microseconds else math.inf


def bytes_received(sock: Any) -> int:
    """Return how many bytes a socket's kernel has received."""
    facts = _facts(sock, _BYTES_RECEIVED + 8)
    return int(struct.unpack_from("=Q", facts, _BYTES_RECEIVED)[0]) if facts else 0


def _facts(sock: Any, size: int) -> bytes:
    """Return so many bytes of the structure; none where there are fewer."""
    # Others have a structure of their own under that name.
    option = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
    if option is None:
        return b""
    try:
        facts: bytes = sock.getsockopt(socket.IPPROTO_TCP, option, size)
    except OSError:  # gone, or no TCP
        return b""
    return facts if len(facts) == size else b""  # else an older kernel
