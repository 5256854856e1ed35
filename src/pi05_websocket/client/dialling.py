# SPDX-License-Identifier: Apache-2.0
"""From an address to an open transport: TCP, TLS, upgrade; foreign errors become ours here.

Runs on the connection's loop thread. Each phase has its own deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import picows

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.pinning import FingerprintDiffers, pinned_context, read_fingerprint
from pi05_websocket.client.tcp import congestion_control, tcp_connect
from pi05_websocket.client.transport import Transport
from pi05_websocket.errors import (
    AccessRefused,
    CertificateRefused,
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    IncompatibleServer,
)
from pi05_websocket.wire.foreign_words import in_a_line

__all__ = ["open_transport", "tell_in_a_line"]

# The WebSocket library reports every connection at INFO; ours says the same in our words.
logger = logging.getLogger(__name__)
_library_logger = logging.getLogger("pi05_websocket.client.picows")
_library_logger.setLevel(logging.WARNING)

_NO_WEBSOCKET = (
    "accepts connections but gives no WebSocket answer. A server that wants wss://, another service, or a "
    "tunnel to a port where nothing listens?"
)

_NO_TLS = (
    "accepts connections but hangs up in the TLS handshake. A server that wants ws://, another service, or a "
    "tunnel to a port where nothing listens?"
)

_PLAIN_THERE = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL"}
)
"""OpenSSL's words for what came, where no TLS is spoken. All others may be over at the next attempt."""

_LONGEST_WORDS = 300
"""Characters of a refusal that are shown; it is a stranger's text."""

_RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def tell_in_a_line(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what goes wrong on a loop: a connection that breaks is a line, everything else as asyncio shows it.

    `open_transport` raises the same, in our words. aiofastnet tells the class of an exception in the place of
    one, of which `logging` can only say that it cannot be logged.
    """
    exc = context.get("exception")
    kind = exc if isinstance(exc, type) else type(exc)
    if issubclass(kind, OSError):
        said = in_a_line(str(context.get("message", "")).partition("\n")[0])
        logger.debug("%s: %s", said, kind.__name__ if exc is kind else exc)
    else:
        loop.default_exception_handler(context)


async def open_transport(config: ConnectionConfig, transport: Transport) -> None:
    """Connect and upgrade; `transport` is open afterwards. Its listener may hear before this returns.

    Raises:
        ConnectFailed: Refused, unreachable, no such name, no WebSocket there, a TLS handshake that the server
            broke off, HTTP 5xx. Retryable.
        AccessRefused: HTTP 401 or 403.
        CertificateRefused: TLS certificate not trusted, or of another key than the pinned one.
        IncompatibleServer: Another HTTP status, or TLS where none is spoken.
        DeadlineExceeded: `connect_timeout` or `handshake_timeout` passed. Retryable.
        ConfigError: A certificate file cannot be loaded.
    """
    secure = config.url.startswith("wss://")
    context = _ssl_context(config) if secure else None
    extra: dict[str, object] = {}
    if secure:
        extra = {
            "server_hostname": urlsplit(config.url).hostname,
            "ssl_handshake_timeout": config.handshake_timeout,
        }
    if config.tls_fingerprint is not None:
        extra["use_aiofastnet"] = False  # its TLS does not look at the pin

    dialled: list[socket.socket] = []

    async def dial(url: object) -> socket.socket:
        sock, took_s = await tcp_connect(config, url.host, url.port)  # type: ignore[attr-defined]
        transport.dialled(sock, took_s, congestion_control(sock))
        dialled.append(sock)
        return sock

    with _translated(config, dialled), _hung_up_when_cancelled(dialled):
        async with asyncio.timeout(config.connect_timeout + config.handshake_timeout):
            await picows.ws_connect(
                lambda: transport,
                config.address,
                ssl_context=context,
                websocket_handshake_timeout=config.handshake_timeout,
                max_frame_size=config.max_message_bytes + 1024,
                enable_auto_pong=False,  # a server that pings and does not read
                extra_headers=dict(config.headers),
                max_redirects=0,  # a redirect would carry the key to another host
                proxy=config.proxy,
                socket_factory=dial,
                logger_name=_library_logger,
                **extra,
            )
    if not transport.opened:
        # picows returns all the same when the peer hangs up during the upgrade.
        raise ConnectFailed(f"{config.url}: {_NO_WEBSOCKET}")


@contextlib.contextmanager
def _hung_up_when_cancelled(dialled: list[socket.socket]) -> Iterator[None]:
    """End a half-made connection: nobody else holds it when `close` comes during the upgrade."""
    try:
        yield
    except asyncio.CancelledError:
        for sock in dialled:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        raise


def _ssl_context(config: ConnectionConfig) -> ssl.SSLContext:
    try:
        if config.tls_fingerprint is not None:
            context = pinned_context(read_fingerprint(config.tls_fingerprint))
        else:
            context = ssl.create_default_context(cafile=config.ca_file)
        if config.client_cert_file:
            context.load_cert_chain(config.client_cert_file, config.client_key_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"ca_file={config.ca_file!r} client_cert_file={config.client_cert_file!r}: cannot be loaded: {exc}"
        ) from exc
    return context


@contextlib.contextmanager
def _translated(config: ConnectionConfig, dialled: Sequence[socket.socket] = ()) -> Iterator[None]:
    """Turn every foreign error of connecting into one of ours, with its remedy.

    Args:
        config: Of the connection.
        dialled: Filled once TCP is open: who ends it then has accepted it before.
    """
    url = config.url
    try:
        yield
    except ssl.SSLError as exc:
        raise _tls_error(config, exc) from exc
    except picows.WSInvalidStatusError as exc:
        raise _status_error(url, exc) from exc
    except picows.WSError as exc:
        raise ConnectFailed(f"{url}: {_NO_WEBSOCKET} ({in_a_line(str(exc))})") from exc
    except TimeoutError as exc:
        if isinstance(exc, DeadlineExceeded):
            raise
        raise DeadlineExceeded(
            "handshake",
            config.handshake_timeout,
            "A stock OpenPI server answers nobody while it computes; it is tried again.",
        ) from exc
    except OSError as exc:
        raise _socket_error(config, exc, accepted=bool(dialled)) from exc


def _socket_error(config: ConnectionConfig, exc: OSError, *, accepted: bool) -> Exception:
    url = config.url
    if isinstance(exc, socket.gaierror):
        return ConnectFailed(f"{url}: the host name cannot be resolved ({exc.strerror})")
    if isinstance(exc, ConnectionRefusedError):
        return ConnectFailed(f"{url}: connection refused: no server listens there. Is it running?")
    if isinstance(exc, ConnectionAbortedError) and exc.errno is None:
        # asyncio's and aiofastnet's way to say that TLS took too long
        return DeadlineExceeded(
            "TLS handshake",
            config.handshake_timeout,
            "A server that wants ws://, a tunnel to a host that drops everything, or one that is busy?",
        )
    if accepted and isinstance(exc, ConnectionError):
        return ConnectFailed(f"{url}: {_NO_TLS if url.startswith('wss://') else _NO_WEBSOCKET}")
    return ConnectFailed(f"{url}: {exc.strerror or str(exc) or type(exc).__name__}")


def _tls_error(config: ConnectionConfig, exc: ssl.SSLError) -> Exception:
    url = config.url
    if isinstance(exc, FingerprintDiffers):
        expected = read_fingerprint(config.tls_fingerprint or "")
        return CertificateRefused(
            f"{url}: expected a server whose key has the fingerprint {expected}, got {exc.got}. Nothing was "
            "sent to it",
            remedy="If the server's key was made anew, take the fingerprint that it prints at its start; "
            "if not, another computer answers in its place.",
            expected=expected,
            got=exc.got,
        )
    if isinstance(exc, ssl.SSLCertVerificationError):
        return CertificateRefused(
            f"{url}: certificate not trusted: {exc.verify_message}",
            remedy="Give the CA's file as ca_file, or, of a server with --tls auto, its tls_fingerprint.",
        )
    if isinstance(exc, ssl.SSLEOFError):
        return ConnectFailed(f"{url}: {_NO_TLS}")
    if exc.reason in _PLAIN_THERE:
        return IncompatibleServer(f"{url}: TLS failed: {exc.reason}. Is it ws:// there?")
    return ConnectFailed(
        f"{url}: the TLS handshake was broken off: {exc.reason or exc}. A proxy that has no certificate yet? "
        "The server's log says why. If it wants to see a certificate, give client_cert_file."
    )


def _status_error(url: str, exc: picows.WSInvalidStatusError) -> Exception:
    status = int(exc.response.status) if exc.response is not None else 0
    if status in (401, 403):
        return AccessRefused(
            f"{url}: HTTP {status}: the server wants a key, or refused this one",
            remedy="Give it as api_key_file or api_key_env (ConnectionConfig: "
            "headers=load_headers(api_key_file=...)); auth_scheme='bearer' for servers that want a "
            "bearer token.",
        )
    if status in _RETRYABLE_STATUS:
        return _not_now(url, status, exc)
    return IncompatibleServer(
        f"{url}: HTTP {status} instead of a WebSocket. Check host, port and path of the URL."
    )


def _not_now(url: str, status: int, exc: picows.WSInvalidStatusError) -> ConnectFailed:
    """Return the error of a server that may let us in later, with its own words where it says why."""
    headers = {} if exc.response is None else exc.response.headers
    body = (exc.raw_body or b"").decode("utf-8", "replace").strip()
    said = headers.get("Retry-After", "")
    after = float(said) if re.fullmatch(r"[0-9]{1,5}", said, re.ASCII) else None
    why = repr(body[:_LONGEST_WORDS]) if body else "the server may be starting"
    return ConnectFailed(f"{url}: HTTP {status} instead of a WebSocket; {why}", retry_after_s=after)
