# SPDX-License-Identifier: Apache-2.0
"""Failed handshakes as a line each, where the event loop would print a traceback.

In: an event loop. Out: the same, with a handler for what nobody catches. Runs on it.
Whoever speaks to a port that others can reach makes handshakes fail all day; none of them is an error of ours.
Event loops tell of few of them: what TLS itself finds wrong they keep for their debug mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator
from typing import Any

__all__ = ["in_words", "told_in_a_line"]

logger = logging.getLogger(__name__)

_MESSAGES = ("SSL handshake failed", "SSL error in data received")
"""How asyncio and the library that accepts for us begin theirs."""
_TOO_LATE = "websocket handshake timeout"
"""What picows leaves behind of a client whose time for HTTP is over."""

_REASONS = {
    "UNKNOWN_CA": "the client does not know the authority of this server's certificate; give it ca_file or "
    "tls_fingerprint",
    "CERTIFICATE_UNKNOWN": "the client does not accept this server's certificate",
    "BAD_CERTIFICATE": "the client does not accept this server's certificate",
    "CERTIFICATE_EXPIRED": "the client finds this server's certificate expired; is its clock right?",
    "HTTP_REQUEST": "the client speaks HTTP without TLS; it has to connect with wss://",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS; it has to connect with wss://",
    "UNSUPPORTED_PROTOCOL": "the client speaks an old version of TLS only; this server wants 1.2 or newer",
    "NO_SHARED_CIPHER": "client and server have no cipher in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has shown no certificate, and --tls-client-ca wants one",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not from an authority of --tls-client-ca",
}
"""A part of OpenSSL's word for it to ours; an alert has the same name with its version before it."""


@contextlib.contextmanager
def told_in_a_line(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Tell failed handshakes at INFO; leave everything else to who had it before."""
    before = loop.get_exception_handler()

    def take(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if str(context.get("message", "")).startswith(_MESSAGES):
            logger.info("a TLS handshake failed from=%s: %s", _peer(context), in_words(exc))
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


def in_words(exc: object) -> str:
    """Say what went wrong in a handshake.

    Args:
        exc: An exception; or the class of one, which some event loops tell instead.
    """
    kind = exc if isinstance(exc, type) else type(exc)
    reason = str(getattr(exc, "reason", None) or "")
    for word, ours in _REASONS.items():
        if reason.endswith(word):
            return ours
    if issubclass(kind, ConnectionAbortedError | TimeoutError):
        return "the client did not go on within the time for it (handshake_timeout_s)"
    if issubclass(kind, ConnectionResetError | ssl.SSLEOFError | BrokenPipeError):
        return "the client hung up before it was over; it may not trust the certificate, or not speak TLS"
    return repr(exc)


def _peer(context: dict[str, Any]) -> str:
    transport = context.get("transport")
    address = None if transport is None else transport.get_extra_info("peername")
    return ":".join(str(part) for part in address[:2]) if address else "?"
