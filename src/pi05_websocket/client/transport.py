# SPDX-License-Identifier: Apache-2.0
"""One open WebSocket on picows: whole messages in, whole messages out, foreign errors translated.

Runs on the connection's loop thread. The only file of the robot side that knows the WebSocket library.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

import picows

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.errors import (
    AccessRefused,
    CertificateRefused,
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    IncompatibleServer,
)

__all__ = ["HEADROOM", "Listener", "Transport", "open_transport"]

HEADROOM = 64
"""Free bytes picows wants before a message, so that the frame header needs no copy of it."""

# The WebSocket library reports every connection at INFO; ours says the same in our words.
_library_logger = logging.getLogger("pi05_websocket.client.picows")
_library_logger.setLevel(logging.WARNING)

_NO_WEBSOCKET = (
    "accepts connections but gives no WebSocket answer. Another service, or a tunnel to a port where nothing "
    "listens?"
)

_RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class Listener(Protocol):
    """Who is told what a transport receives. Called on the loop thread."""

    def on_message(self, payload: bytes | str) -> None:
        """Take one whole message, `str` for text."""

    def on_ended(self, code: int, reason: str) -> None:
        """Note that the transport is gone. Called once."""


class Transport(picows.WSListener):  # type: ignore[misc]  # picows is compiled and untyped for mypy
    """Joins fragments, bounds messages, remembers how the peer said goodbye."""

    def __init__(self, listener: Listener, max_message_bytes: int) -> None:
        self._listener: Listener | None = listener
        self._max_message_bytes = max_message_bytes
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._parts_are_text = False
        self._closed_by: tuple[int, str] | None = None
        self._ws: picows.WSTransport | None = None

    @property
    def opened(self) -> bool:
        """Whether the upgrade succeeded."""
        return self._ws is not None

    def send(self, buffer: bytearray) -> None:
        """Send the binary message that begins at `HEADROOM`. The buffer is free again afterwards.

        Its content is masked in place. Does nothing on a connection that is gone: `on_ended` tells.
        """
        if self._ws is not None and not self._ws.is_disconnected:
            self._ws.send_reuse_external_bytearray(picows.WSMsgType.BINARY, buffer, HEADROOM)

    def close(self) -> None:
        """Say goodbye and disconnect once that is sent. The listener hears nothing more. Safe to call twice."""
        self._listener = None
        self._say_goodbye(1000)

    def abort(self) -> None:
        """Disconnect without a word, for a link that no longer carries any. The listener hears nothing more."""
        self._listener = None
        if self._ws is not None and not self._ws.is_disconnected:
            self._ws.disconnect(graceful=False)

    def _say_goodbye(self, code: int) -> None:
        if self._ws is not None and not self._ws.is_disconnected:
            with contextlib.suppress(OSError):
                self._ws.send_close(picows.WSCloseCode(code))
            self._ws.disconnect(graceful=True)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Keep the transport (picows callback)."""
        self._ws = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Join frames to messages (picows callback). Pings are answered by picows."""
        kind = frame.msg_type
        if kind == picows.WSMsgType.CLOSE:
            code = frame.get_close_code()
            number = code.value if hasattr(code, "value") else int(code)
            reason = frame.get_close_message() or b""
            self._closed_by = (number or 1005, bytes(reason).decode("utf-8", "replace"))
            self._say_goodbye(1000)
        elif kind in (picows.WSMsgType.BINARY, picows.WSMsgType.TEXT):
            if self._parts:
                self._refuse("a new message inside a fragmented one")
                return
            self._parts_are_text = kind == picows.WSMsgType.TEXT
            self._take(frame)
        elif kind == picows.WSMsgType.CONTINUATION:
            if not self._parts:
                self._refuse("a continuation of no message")
                return
            self._take(frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Report the end once (picows callback)."""
        code, reason = self._closed_by or (1006, "")
        self._parts.clear()
        if self._listener is not None:
            self._listener.on_ended(code, reason)

    def _take(self, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        self._parts_size += len(payload)
        if self._parts_size > self._max_message_bytes:
            self._refuse(f"a message over max_message_bytes={self._max_message_bytes}", code=1009)
            return
        self._parts.append(payload)
        if not frame.fin:
            return
        message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._parts_size = [], 0
        if self._listener is not None:
            text = self._parts_are_text
            self._listener.on_message(message.decode("utf-8", "replace") if text else message)

    def _refuse(self, what: str, *, code: int = 1002) -> None:
        self._closed_by = (code, f"the server sent {what}")
        self._say_goodbye(code)


async def open_transport(config: ConnectionConfig, transport: Transport) -> None:
    """Connect and upgrade; `transport` is open afterwards. Its listener may hear before this returns.

    Raises:
        ConnectFailed: Refused, unreachable, no such name, no WebSocket there, HTTP 5xx. Retryable.
        AccessRefused: HTTP 401 or 403.
        CertificateRefused: TLS certificate not trusted.
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

    dialled: list[socket.socket] = []

    async def dial(url: object) -> socket.socket:
        dialled.append(await _tcp_connect(config, url.host, url.port))  # type: ignore[attr-defined]
        return dialled[-1]

    with _translated(config), _hung_up_when_cancelled(dialled):
        async with asyncio.timeout(config.connect_timeout + config.handshake_timeout):
            await picows.ws_connect(
                lambda: transport,
                config.url,
                ssl_context=context,
                websocket_handshake_timeout=config.handshake_timeout,
                max_frame_size=config.max_message_bytes + 1024,
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


async def _tcp_connect(config: ConnectionConfig, host: str, port: int) -> socket.socket:
    """Resolve and connect, trying every address, within `connect_timeout`."""
    loop = asyncio.get_running_loop()
    last: OSError | None = None
    try:
        async with asyncio.timeout(config.connect_timeout):
            for family, kind, proto, _, address in await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            ):
                sock = socket.socket(family, kind, proto)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                except OSError as exc:
                    sock.close()
                    last = exc
                    continue
                except BaseException:
                    sock.close()
                    raise
                _set_options(sock)
                return sock
    except TimeoutError as exc:
        raise DeadlineExceeded(
            "connect",
            config.connect_timeout,
            f"Is {host}:{port} reachable from here (firewall, VPN)?",
        ) from exc
    raise last if last is not None else OSError(f"no address for {host}")


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A peer that vanished while nothing is under way shows within 35 s. The kernel answers these probes even
    # while a stock server's event loop is blocked by inference, so a slow model is never cut off.
    for name, seconds in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)  # not on every platform
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, seconds)


def _ssl_context(config: ConnectionConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.client_cert_file:
            context.load_cert_chain(config.client_cert_file, config.client_key_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"ca_file={config.ca_file!r} client_cert_file={config.client_cert_file!r}: cannot be loaded: {exc}"
        ) from exc
    return context


@contextlib.contextmanager
def _translated(config: ConnectionConfig) -> Iterator[None]:
    """Turn every foreign error of connecting into one of ours, with its remedy."""
    url = config.url
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise CertificateRefused(
            f"{url}: certificate not trusted: {exc.verify_message}. Give the CA's file as ca_file."
        ) from exc
    except ssl.SSLError as exc:
        raise IncompatibleServer(
            f"{url}: TLS failed: {exc.reason or exc}. Is it ws:// there?"
        ) from exc
    except picows.WSInvalidStatusError as exc:
        raise _status_error(url, exc) from exc
    except picows.WSError as exc:
        raise ConnectFailed(f"{url}: {_NO_WEBSOCKET} ({exc})") from exc
    except TimeoutError as exc:
        if isinstance(exc, DeadlineExceeded):
            raise
        raise DeadlineExceeded(
            "handshake",
            config.handshake_timeout,
            "A stock OpenPI server answers nobody while it computes; it is tried again.",
        ) from exc
    except socket.gaierror as exc:
        raise ConnectFailed(f"{url}: the host name cannot be resolved ({exc.strerror})") from exc
    except ConnectionRefusedError as exc:
        raise ConnectFailed(
            f"{url}: connection refused: no server listens there. Is it running?"
        ) from exc
    except OSError as exc:
        raise ConnectFailed(f"{url}: {exc.strerror or exc}") from exc


def _status_error(url: str, exc: picows.WSInvalidStatusError) -> Exception:
    status = int(exc.response.status) if exc.response is not None else 0
    if status in (401, 403):
        return AccessRefused(
            f"{url}: HTTP {status}: the server refused the key. Set api_key_env or api_key_file"
            " (auth_scheme='bearer' for servers that want a bearer token)."
        )
    if status in _RETRYABLE_STATUS:
        return ConnectFailed(
            f"{url}: HTTP {status} instead of a WebSocket; the server may be starting"
        )
    return IncompatibleServer(
        f"{url}: HTTP {status} instead of a WebSocket. Check host, port and path of the URL."
    )
