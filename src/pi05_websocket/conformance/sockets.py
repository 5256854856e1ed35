# SPDX-License-Identifier: Apache-2.0
"""Blocking sockets before there is a WebSocket: connect, send, read an HTTP head, each within a time.

In: addresses and bytes. Out: a socket, a head. The wall clock, any thread.
"""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

from pi05_websocket.conformance.frames import HttpHead, read_head

__all__ = ["open_socket", "read_http", "send_all"]


def open_socket(url: str, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    """Connect to a URL's host and port, TLS done.

    Raises:
        OSError: It cannot be reached.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    sock = socket.create_connection((parts.hostname or "", port), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return sock
    return context.wrap_socket(sock, server_hostname=parts.hostname)


def send_all(sock: socket.socket, data: bytes, within_s: float) -> None:
    """Send bytes, all of them within a time; `sendall` has its own for each piece where there is TLS.

    Raises:
        TimeoutError: The peer has not read enough by then; a part may have gone.
        OSError: The connection is gone.
    """
    deadline = time.monotonic() + within_s
    unsent = memoryview(data)
    while unsent:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"expected the peer to read within {within_s:g} s, it did not")
        sock.settimeout(left)
        unsent = unsent[sock.send(unsent) :]


def read_http(sock: socket.socket, timeout_s: float) -> tuple[HttpHead, bytes] | None:
    """Read an HTTP head and what came with it; None: the peer hung up, or said nothing in time.

    Raises:
        ValueError: It is no HTTP.
    """
    deadline = time.monotonic() + timeout_s
    received = b""
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            more = sock.recv(65536)
        except OSError:
            return None
        received += more
        head = read_head(received)
        if head is not None or not more:
            return head
    return None
