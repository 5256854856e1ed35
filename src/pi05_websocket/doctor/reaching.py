# SPDX-License-Identifier: Apache-2.0
"""Reach a policy server step by step, and say at which step it ends and why.

In: a connection's settings. Out: findings, one for each step, and an open `RemotePolicy` where all went well.
Blocks; every wait has a limit.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.doctor.findings import Finding, found, passed
from pi05_websocket.errors import (
    AccessRefused,
    CertificateRefused,
    ConnectFailed,
    DeadlineExceeded,
    Pi05WebsocketError,
)

__all__ = ["named", "reached"]

_STATUS = re.compile(r"HTTP (\d{3})")
_LET_IN = "Take another server, or ask who runs it to let robots in again: its operations port has the lever."
_WHY_BUSY = (
    ("drained", _LET_IN),
    ("paused", _LET_IN),
    ("stopping", "Take another server, or start it again."),
    ("as many robots as it takes", "Take another server, or wait until a robot has left."),
    ("is busy", "Take another server, or try again later: requests wait for its policy."),
)
"""What our server says of why nobody comes in, and what helps; where it is none of these, it is starting."""


@contextlib.contextmanager
def reached(config: ConnectionConfig, findings: list[Finding]) -> Iterator[RemotePolicy | None]:
    """Give an open policy, or None; add what was found to `findings`."""
    if config.proxy is None and not _name_and_port(config, findings):
        yield None
        return
    with RemotePolicy(config=config, wait_for_server=0) as policy:
        began = time.monotonic()
        try:
            policy.connection.wait_ready(policy.patience)
        except Pi05WebsocketError as exc:
            findings.append(named(exc, config))
            yield None
            return
        took = 1000 * (time.monotonic() - began)
        kind = "TLS and WebSocket" if config.url.startswith("wss://") else "WebSocket"
        key = ", with a key" if "Authorization" in config.headers else ", without a key"
        findings.append(passed("server", f"{kind} opened and metadata read in {took:.0f} ms{key}"))
        yield policy


def _name_and_port(config: ConnectionConfig, findings: list[Finding]) -> bool:
    parts = urlsplit(config.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        findings.append(found("address", "name-unknown", f"{host}: {exc}"))
        return False
    findings.append(
        passed("address", f"{host} is {', '.join(str(each[4][0]) for each in addresses)}")
    )
    silent: list[str] = []
    error: OSError | None = None
    # The client dials them side by side: one that answers is enough.
    for family, kind, proto, _, address in addresses:
        began = time.monotonic()
        try:
            with socket.socket(family, kind, proto) as sock:
                sock.settimeout(config.connect_timeout)
                sock.connect(address)
        except OSError as exc:
            error = exc
            silent.append(f"{address[0]} ({exc})")
            continue
        took = 1000 * (time.monotonic() - began)
        but = f"; not at {', '.join(silent)}" if silent else ""
        text = f"port {port} accepts connections, after {took:.1f} ms{but}"
        findings.append(passed("server", text))
        return True
    if isinstance(error, ConnectionRefusedError):
        findings.append(found("server", "nothing-listens", f"{host}:{port} refuses connections"))
    else:
        said = f"{host}:{port} cannot be reached: {error}"
        findings.append(found("server", "port-silent", said))
    return False


def named(exc: Pi05WebsocketError, config: ConnectionConfig) -> Finding:
    """Return which mistake an error of connecting is."""
    mistake = _mistake(exc, config)
    # What to do is said by the fix, in a command line's words; the error has it in Python's.
    said = exc.said if isinstance(exc, AccessRefused | CertificateRefused) else str(exc)
    return found("server", mistake, said, fix=_busy_fix(said) if mistake == "server-busy" else "")


def _busy_fix(said: str) -> str:
    """Return what helps with a server that says why nobody comes in; empty: it does not say."""
    return next((fix for why, fix in _WHY_BUSY if why in said), "")


def _mistake(exc: Pi05WebsocketError, config: ConnectionConfig) -> str:
    text = str(exc)
    if isinstance(exc, AccessRefused):
        return "key-wrong" if "Authorization" in config.headers else "key-missing"
    if isinstance(exc, CertificateRefused):
        if exc.expected:
            return "fingerprint-differs"
        return "certificate-expired" if "expired" in text else "certificate-untrusted"
    if isinstance(exc, DeadlineExceeded):
        phases = {"metadata": "no-greeting", "TLS handshake": "tls-not-spoken"}
        return phases.get(exc.phase, "port-silent")
    if "TLS failed" in text:
        return "tls-not-spoken"
    if "TLS handshake was broken off" in text:  # TLS is spoken there, and not to us now
        return "server-busy"
    status = _STATUS.search(text)
    if status is not None:
        return "server-busy" if isinstance(exc, ConnectFailed) else "path-wrong"
    if isinstance(exc, ConnectFailed):
        return "tls-needed" if _speaks_tls(config) else "not-a-websocket"
    return "other-protocol"


def _speaks_tls(config: ConnectionConfig) -> bool:
    """Say whether the server answers a TLS greeting; nothing else is sent to it."""
    parts = urlsplit(config.url)
    if parts.scheme == "wss":
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        where = (parts.hostname or "", parts.port or 80)
        with socket.create_connection(where, timeout=config.connect_timeout) as plain:
            plain.settimeout(config.handshake_timeout)
            with context.wrap_socket(plain, server_hostname=parts.hostname):
                return True
    except OSError:
        return False
