# SPDX-License-Identifier: Apache-2.0
"""TCP keepalive for both ends: find out that a peer is gone while nothing is under way."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["notice_vanished_peers"]


def notice_vanished_peers(sock: socket.socket) -> None:
    """Let the kernel find out within 35 s of idling that the other side lost its power or its network.

    While a request is unacknowledged the kernel sends no such probes; then `client.silence` and the request's
    own limits count.
    Kernels answer these probes even while a stock server's event loop is blocked by inference, so a slow
    model is never cut off; a WebSocket ping with a deadline would do just that.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # TCP_KEEPALIVE is macOS's name of the first.
    for name, value in (
        ("TCP_KEEPIDLE", 20),
        ("TCP_KEEPALIVE", 20),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
    ):
        option = getattr(socket, name, None)  # not on every platform
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
