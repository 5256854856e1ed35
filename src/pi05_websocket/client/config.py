# SPDX-License-Identifier: Apache-2.0
"""How to reach a policy server: address, patience, credentials, trust.

In: a user's settings, an environment variable or files for secrets. Out: one checked `ConnectionConfig`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pi05_websocket.client.image_quality import ImageTransport, check_images
from pi05_websocket.client.pinning import read_fingerprint
from pi05_websocket.errors import ConfigError
from pi05_websocket.wire.dialects import AUTO, DIALECTS, DialectChoice, check_dialect

__all__ = [
    "AuthScheme",
    "ConnectionConfig",
    "check_url",
    "load_headers",
    "openpi_url",
    "split_urls",
]

AuthScheme = Literal["api-key", "bearer"]
"""`Authorization: Api-Key KEY` as OpenPI's client sends it, or `Authorization: Bearer KEY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """Where the policy server is and how patient to be. All durations in seconds."""

    url: str = "ws://127.0.0.1:8000"
    """Server address: `ws://` or `wss://`, host, port, any path."""

    dialect: DialectChoice = "auto"
    """How the server talks: openpi, roboarena, dreamzero, vllm-omni, sglang, starvla, behavior, lingbot-va;
    auto: by what it says of itself, else openpi."""

    connect_timeout: float = 10.0
    """Longest wait for name resolution and TCP."""

    handshake_timeout: float = 10.0
    """Longest wait for TLS and the WebSocket upgrade."""

    metadata_timeout: float = 10.0
    """Longest wait for the server's first message."""

    request_timeout: float = 5.0
    """Longest wait for a reply. A later reply is still told apart from the next one's."""

    first_request_timeout: float = 600.0
    """The same until the server has answered once: its model may be compiling, which takes minutes."""

    hard_timeout: float | None = None
    """When an unanswered request costs the socket; None: twice `request_timeout`. Never before
    `first_request_timeout` while the server has not answered once."""

    silence_timeout: float | None = 1.0
    """Longest that the server's machine acknowledges nothing of a request, beyond four round trips, before the
    connection is renewed; twice as long after each time that brought no answer. None: never. Linux only."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Extra HTTP headers of the upgrade request, `Authorization` included. Not in reprs: may hold secrets."""

    ca_file: str | None = None
    """PEM file of certificates to trust for `wss://` instead of the system's."""

    tls_fingerprint: str | None = None
    """`sha256:…` of the server's public key, as `serve --tls auto` prints it: for `wss://` that key is trusted
    and nothing else, whatever the certificate's names and dates say."""

    client_cert_file: str | None = None
    """PEM client certificate, for servers that ask for one."""

    client_key_file: str | None = None
    """PEM private key of `client_cert_file`; None: it is in the same file."""

    proxy: str | None = None
    """`http://`, `socks4://` or `socks5://` proxy. The environment's proxy variables are not used."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Largest message accepted from the server."""

    congestion_control: str = "bbr"
    """What the kernel shall use for a connection that took more than 10 ms to open, where it may: CUBIC, the
    usual one, takes lost packets for congestion. Empty: the system's."""

    keep_warm: bool = True
    """Send six bytes every 50 ms for ten seconds after each exchange, to a server farther than 5 ms: kernels
    without BBR begin anew after a pause, which costs the next observation several round trips."""

    image_transport: ImageTransport = "auto"
    """`auto`: images as they are while that is quick, else as JPEG, as good as the link carries without delay;
    `raw`: never JPEG, the policy sees every pixel; `jpeg`: always. Only where the server reads JPEG."""

    jpeg_quality_floor: int = 75
    """Worst JPEG quality to be sent, 1 to 100."""

    backoff_first: float = 0.1
    """Wait before the first attempt to reconnect; doubles with each, with jitter."""

    backoff_max: float = 2.0
    """Longest wait between two attempts."""

    def __post_init__(self) -> None:
        check_url(self.url)
        check_dialect(self.dialect)
        for name in (
            "connect_timeout",
            "handshake_timeout",
            "metadata_timeout",
            "request_timeout",
            "first_request_timeout",
            "hard_timeout",
            "silence_timeout",
            "backoff_first",
            "backoff_max",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value}: must be more than 0 seconds")
        check_images(self.image_transport, self.jpeg_quality_floor)
        if self.max_message_bytes < 1024:
            raise ConfigError(f"max_message_bytes={self.max_message_bytes}: must be 1024 or more")
        if self.tls_fingerprint is not None:
            read_fingerprint(self.tls_fingerprint)
            if not self.url.lower().startswith("wss://"):
                raise ConfigError(
                    f"tls_fingerprint with {self.url}: only wss:// has a key to look at"
                )
            if self.ca_file:
                raise ConfigError("tls_fingerprint and ca_file: give one of them")
        if self.client_key_file and not self.client_cert_file:
            raise ConfigError("client_key_file without client_cert_file: give both or neither")

    @property
    def address(self) -> str:
        """The URL that is opened: with the path its dialect's servers listen on, where none is given."""
        path = "" if self.dialect == AUTO else DIALECTS[self.dialect].path
        parts = urlsplit(self.url)
        return parts._replace(path=path).geturl() if path and parts.path in ("", "/") else self.url

    def request_limit(self, *, answered_before: bool) -> float:
        """Return how long the next reply may take before it counts as late."""
        return self.request_timeout if answered_before else self.first_request_timeout

    def hard_limit(self, *, answered_before: bool) -> float:
        """Return how long a reply may take before the socket is renewed."""
        hard = 2 * self.request_timeout if self.hard_timeout is None else self.hard_timeout
        return hard if answered_before else max(hard, self.first_request_timeout)


def openpi_url(host: str, port: int | None) -> str:
    """Build a URL from OpenPI's constructor arguments: a host name or a whole `ws://` or `wss://` URL."""
    url = host if host.startswith(("ws://", "wss://")) else f"ws://{host}"
    return url if port is None else f"{url}:{port}"


def split_urls(urls: str) -> tuple[str, ...]:
    """Return the addresses of a setting that takes one, or several with commas between them.

    Raises:
        ConfigError: None, one twice, or one that is no address.
    """
    found = tuple(url.strip() for url in urls.split(","))
    for url in found:
        check_url(url)
    twice = next((url for url in found if found.count(url) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice: expected different servers")
    return found


_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f\s]")
"""What would end the request's first line early, or be taken out of an address without a word."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_url(url: str) -> None:
    """Check a server address before anything is opened.

    Raises:
        ConfigError: Wrong scheme, no host, bad port, or credentials inside the URL.
    """
    if _UNFIT.search(url):
        raise ConfigError(f"{_shown(url)!r}: expected no white space or control characters in it")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        why = "" if "@" in url else f": {exc}"  # which may quote the credentials
        raise ConfigError(f"{_shown(url)!r} is not a valid address{why}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{_shown(url)!r} carries credentials: URLs are logged and saved. "
            "Take them out and use api_key_env, api_key_file or headers_file."
        )
    if parts.scheme in ("http", "https"):
        raise ConfigError(
            f"{_shown(url)!r}: got http scheme, a policy server speaks WebSocket. "
            f"Did you mean {_shown(url).replace('http', 'ws', 1)}?"
        )
    if parts.scheme not in ("ws", "wss"):
        raise ConfigError(
            f"{_shown(url)!r}: expected ws://HOST:PORT or wss://HOST, got {parts.scheme or 'no'} scheme"
        )
    if not host:
        raise ConfigError(f"{_shown(url)!r}: expected ws://HOST:PORT, got no host")
    if parts.fragment:
        raise ConfigError(f"{_shown(url)!r}: a WebSocket address has no #fragment")
    try:
        host.encode("ascii" if url.isascii() else "idna")
    except UnicodeError as exc:
        raise ConfigError(f"{_shown(url)!r}: {host!r} is no valid host name: {exc}") from exc


def load_headers(
    *,
    api_key: str | None = None,
    api_key_env: str | None = None,
    api_key_file: str | None = None,
    auth_scheme: AuthScheme = "api-key",
    headers_file: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Collect the headers of the upgrade request from the places secrets may live in.

    Args:
        api_key: The key itself; for Python callers, never for a saved config.
        api_key_env: Name of an environment variable that holds it.
        api_key_file: File whose content is the key; white space around it is ignored.
        headers_file: File with one `Name: value` per line; empty lines and `#` lines are ignored.
        environ: Environment to read; None: the process's.

    Raises:
        ConfigError: More than one source for the key, or a source that is missing or empty.
    """
    sources = {"api_key": api_key, "api_key_env": api_key_env, "api_key_file": api_key_file}
    given = [name for name, value in sources.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give the key in one place only")
    headers = _read_headers(Path(headers_file)) if headers_file else {}
    key = api_key
    if api_key_env:
        key = (os.environ if environ is None else environ).get(api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"api_key_env={api_key_env!r}: that environment variable is not set or empty"
            )
    if api_key_file:
        key = _read_text(Path(api_key_file), "api_key_file").strip()
        if not key:
            raise ConfigError(f"api_key_file={api_key_file!r}: the file is empty")
    if key:
        if not key.isprintable():
            raise ConfigError(f"{given[0]}: the key has line breaks or control characters in it")
        if any(name.lower() == "authorization" for name in headers):
            raise ConfigError(
                f"{given[0]} and an Authorization line in headers_file: give one of them"
            )
        headers["Authorization"] = f"{'Bearer' if auth_scheme == 'bearer' else 'Api-Key'} {key}"
    return headers


def _read_headers(path: Path) -> dict[str, str]:
    headers: dict[str, str] = {}
    for number, line in enumerate(_read_text(path, "headers_file").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, value = line.partition(":")
        named = _HEADER_NAME.fullmatch(name.strip(" "))
        if not colon or named is None or not value.strip().isprintable():
            # The line itself may be a secret: it is not quoted.
            raise ConfigError(f"headers_file={str(path)!r}, line {number}: expected 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def _read_text(path: Path, setting: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{setting}={str(path)!r}: cannot be read: {exc}") from exc


def _shown(url: str) -> str:
    """Return the URL without what could be its user part, for error texts."""
    scheme, slashes, rest = url.partition("://")
    if not slashes or "@" in scheme:
        return url.rpartition("@")[2]
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"
