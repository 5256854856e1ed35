# SPDX-License-Identifier: Apache-2.0
"""Failed handshakes as a line each, where the event loop would print a traceback.

In: an event loop. Out: the same, with a handler for what nobody catches. Runs on it.
Whoever speaks to a port that others can reach makes handshakes fail all day; none of them is an error of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

__all__ = ["told_in_a_line"]

logger = logging.getLogger(__name__)

_MESSAGES = ("SSL handshake failed", "SSL error in data received")
"""How asyncio and the library that accepts for us begin theirs."""
_TOO_LATE = "websocket handshake timeout"
"""What picows leaves behind of a client whose time for HTTP is over."""


@contextlib.contextmanager
def told_in_a_line(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Tell failed handshakes at INFO; leave everything else to who had it before."""
    before = loop.get_exception_handler()

    def take(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if str(context.get("message", "")).startswith(_MESSAGES):
            logger.info("a TLS handshake failed from=%s: %r", _peer(context), exc)
        elif isinstance(exc, TimeoutError) and str(exc) == _TOO_LATE:
            logger.info("a client did not ask for a WebSocket in time")
        elif before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    loop.set_exception_handler(take)
    try:
        yield
    finally:
        loop.set_exception_handler(before)


def _peer(context: dict[str, Any]) -> str:
    transport = context.get("transport")
    address = None if transport is None else transport.get_extra_info("peername")
    return ":".join(str(part) for part in address[:2]) if address else "?"
