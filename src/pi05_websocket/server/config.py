# SPDX-License-Identifier: Apache-2.0
"""Settings of the policy server. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pi05_websocket.errors import ConfigError
from pi05_websocket.wire.dialects import DialectName
from pi05_websocket.wire.limits import DecodeLimits

__all__ = ["ServerConfig"]

_AT_LEAST = {
    "max_message_bytes": 1024,
    "max_batch": 1,
    "batch_window_ms": 0,
    "max_queue_s": 0,
    "max_wait_s": 0,
    "max_queued_requests": 1,
    "max_queued_bytes": 1024,
    "max_held_bytes": 1024,
    "max_pipelined_requests": 1,
    "max_connections": 1,
    "max_small_frames_per_s": 1,
    "handshake_timeout_s": 0.01,
    "message_timeout_s": 0.01,
    "unread_timeout_s": 0.01,
    "ping_interval_s": 0,
    "stop_timeout_s": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How much the server takes, and how it behaves when something ends."""

    keys: str | None = None
    """File with the keys that let robots in, made by `pi05-websocket keys`; read again when it changes. None:
    everybody who reaches the port comes in, as at a stock server."""

    tls: Literal["files", "auto"] = "files"
    """auto: the server makes its own certificate and renews it, and prints the fingerprint by which robots know
    it; needs the extra `tls`. files: it has that of `tls_cert`; without, there is no TLS."""

    tls_folder: str | None = None
    """Where `tls=auto` keeps its keys and certificates. None: `pi05-websocket/tls` in the user's configuration
    folder (`~/.config`)."""

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

    max_held_bytes: int = 2 * 1024 * 1024 * 1024
    """Bytes of all connections together: of requests that wait, and of messages that have not ended (these on
    Linux only). Looked at every second; who holds most is closed with 1008 until it is enough."""

    max_pipelined_requests: int = 1024
    """Requests of one connection that may wait at all, those included that came in one piece with others; one
    more closes it with 1008."""

    max_connections: int = 512
    """WebSockets at once; one more gets HTTP 503. Some more sockets may be open, for health checks and
    refusals; one without a WebSocket gives way to a newer one where there is no room."""

    max_connections_per_address: int | None = None
    """Sockets from one address, or one /64 network of IPv6, likewise. None: 64, but any number from this
    machine, where tunnels end. Without effect with `behind_proxy`: the proxy has to count."""

    max_small_frames_per_s: int = 1000
    """Pings, pongs and fragments below 1 KiB of one connection; more close it with 1008."""

    handshake_timeout_s: float = 10.0
    """Longest time in seconds for TLS, and for HTTP after it."""

    message_timeout_s: float = 60.0
    """Longest time in seconds from a message's first byte to its last; then the connection is closed with 1008.
    On other systems than Linux only where the message came right behind another."""

    unread_timeout_s: float = 60.0
    """Longest time in seconds that a client may leave its replies unread; then the connection is cut."""

    ping_interval_s: float = 20.0
    """Seconds between pings that keep proxies and NATs open; no answer is demanded. 0 sends none."""

    encoded_images: bool = True
    """Announce that images may come as JPEG, and decode them before the policy sees them; clients that do not
    know this send arrays as ever. Off: nothing is added to the metadata, as a stock server."""

    dialect: DialectName | Literal["none"] = "openpi"
    """How clients are spoken to whose URL path (`/roboarena`, `/v1/realtime/robot/openpi`) and key do not say.
    none: OpenPI's to everybody, whatever the path."""

    stop_timeout_s: float = 10.0
    """Longest time in seconds that a stop waits for the inference under way."""

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if self.max_connections_per_address is not None and self.max_connections_per_address < 1:
            raise ConfigError(
                f"max_connections_per_address must be at least 1, got {self.max_connections_per_address}"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError(
                "tls_cert and tls_key: give both or neither; they may be the same file"
            )
        if self.tls == "auto" and self.tls_cert:
            raise ConfigError("tls=auto and tls_cert: give one of them")
        if self.tls_folder and self.tls != "auto":
            raise ConfigError(
                "tls_folder without tls=auto: only certificates of our own are kept there"
            )
        if self.tls_client_ca and not self.encrypted:
            raise ConfigError(
                "tls_client_ca without tls_cert: clients show certificates over TLS only"
            )

    @property
    def encrypted(self) -> bool:
        """Whether the server does TLS."""
        return self.tls == "auto" or self.tls_cert is not None

    @property
    def limits(self) -> DecodeLimits:
        """What the decoder allows a request."""
        return DecodeLimits(max_message_bytes=self.max_message_bytes)
