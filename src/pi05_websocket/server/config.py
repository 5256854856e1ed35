# SPDX-License-Identifier: Apache-2.0
"""Settings of the policy server. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pi05_websocket.errors import ConfigError
from pi05_websocket.wire.limits import DecodeLimits

__all__ = ["ServerConfig"]

_AT_LEAST = {
    "max_message_bytes": 1024,
    "max_batch": 1,
    "batch_window_ms": 0,
    "max_connections": 1,
    "max_queue_s": 0,
    "max_wait_s": 0,
    "max_queued_requests": 1,
    "max_queued_bytes": 1024,
    "ping_interval_s": 0,
    "stop_timeout_s": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How much the server takes, and how it behaves when something ends."""

    keys: str | None = None
    """File with the keys that let robots in, made by `pi05-websocket keys`; read again when it changes. None:
    everybody who reaches the port comes in, as at a stock server."""

    tls_cert: str | None = None
    """PEM file with the server's certificate and those above it: robots connect with `wss://`. Read again when
    it changes, for connections from then on."""

    tls_key: str | None = None
    """PEM file with the private key of `tls_cert`, without a password."""

    tls_client_ca: str | None = None
    """PEM file of authorities: only clients with a certificate of theirs come in; keys count too. Read once."""

    behind_proxy: bool = False
    """A proxy before the server does TLS; only on a loopback or private address."""

    insecure: bool = False
    """Serve other computers without keys or without TLS: for a network you trust."""

    debug: bool = False
    """Send the whole traceback of a failed request to its client, as OpenPI does, also to other computers and
    through a proxy; else these get type and message. Clients on this machine always get it."""

    max_batch: int = 16
    """Most requests of different robots that share an inference, for a policy that takes several."""

    batch_window_ms: float = 0.0
    """Longest time in milliseconds that a request waits for others to share its batch. 0: a batch is what waits
    when the policy is free, which answers as many robots and keeps none waiting."""

    max_connections: int = 256
    """Most robots that are connected; one more gets HTTP 503 in the place of the WebSocket."""

    max_queue_s: float = 2.0
    """Nobody else comes in while half of all requests wait longer than this for the policy, in seconds."""

    max_wait_s: float = 120.0
    """Longest time in seconds that a request waits for the policy. Then a client of ours is told that the
    server is busy, and a stock client gets OpenPI's error."""

    deadlines: bool = True
    """Announce that requests may say how long their answer is of use, plan by that, and refuse what would come
    too late; clients that do not know this are answered as ever. Off: nothing is added to the metadata."""

    seed: int | None = None
    """What the policy's random draws begin from; every connection has its own stream. None: another each
    run."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Longest request in bytes; a longer one closes its connection with 1009."""

    max_queued_requests: int = 16
    """Requests of one connection that may wait; from then on the server reads no further from it."""

    max_queued_bytes: int = 64 * 1024 * 1024
    """Bytes of one connection that may wait, likewise."""

    ping_interval_s: float = 20.0
    """Seconds between pings that keep proxies and NATs open; no answer is demanded. 0 sends none."""

    encoded_images: bool = True
    """Announce that images may come as JPEG, and decode them before the policy sees them; clients that do not
    know this send arrays as ever. Off: nothing is added to the metadata, as a stock server."""

    stop_timeout_s: float = 10.0
    """Longest time in seconds that a stop waits for the inference under way."""

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError(
                "tls_cert and tls_key: give both or neither; they may be the same file"
            )
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError(
                "tls_client_ca without tls_cert: clients show certificates over TLS only"
            )

    @property
    def limits(self) -> DecodeLimits:
        """What the decoder allows a request."""
        return DecodeLimits(max_message_bytes=self.max_message_bytes)
